"""Settings of the retrainer; the addresses of Prefect and MLflow are in app.runtime.settings."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from app.retrainer.decision import Policy
from app.runtime.settings import EnvironmentSettings


class RetrainerSettings(EnvironmentSettings):
    """Read from MLOPS_RETRAINER_* when it is created.

    token: what Alertmanager sends as its bearer token.
    host, port: where to listen.
    cooldown_seconds, cooldown_max_seconds, daily_cap, dry_run: see Policy.
    """

    prefix: ClassVar[str] = "MLOPS_RETRAINER_"

    token: str = Field(repr=False)
    host: str = "127.0.0.1"
    port: int = Field(default=8090, ge=0, le=65535)
    cooldown_seconds: int = Field(default=3600, ge=0)
    cooldown_max_seconds: int = Field(default=86400, ge=0)
    daily_cap: int = Field(default=4, ge=1, le=100)
    dry_run: bool = False

    @field_validator("token")
    @classmethod
    def _long_enough(cls, token: str) -> str:
        if len(token.strip()) < 16:
            raise ValueError("a token of at least 16 characters is needed, such as `openssl rand -hex 16` prints")
        return token.strip()

    @model_validator(mode="after")
    def _in_order(self) -> RetrainerSettings:
        if self.cooldown_max_seconds < self.cooldown_seconds:
            least, most = self.cooldown_seconds, self.cooldown_max_seconds
            raise ValueError(f"cooldown_max_seconds is {most}, less than cooldown_seconds, which is {least}")
        return self

    @property
    def policy(self) -> Policy:
        """How often a model may be retrained."""
        return Policy(self.cooldown_seconds, self.cooldown_max_seconds, self.daily_cap, self.dry_run)
