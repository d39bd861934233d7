"""Settings of the API; MLflow's address and account are app.runtime.settings.MlflowSettings."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from app.runtime.settings import EnvironmentSettings

MIN_KEY = 32  # bytes: what the tokens' encryption makes full use of


class ApiSettings(EnvironmentSettings):
    """Read from MLOPS_* when it is created.

    host, port: where to listen.
    grpc_port: where to answer the Open Inference Protocol's gRPC, too; 0 for nowhere, and then grpcio is not imported.
    default_model: what /predict serves; by default the only model there is.
    cache_dir: where verified bundles are kept, so that the API starts without MLflow.
    poll_seconds: between two looks at MLflow's aliases.
    feedback_key: encrypts feedback tokens, the same for all replicas, at least 32 bytes; when empty, one is kept in
        cache_dir.
    api_keys_required: what needs a key, such as "predict,feedback"; by default nothing does.
    api_keys_dir: where the clients with keys are, see app.api.keys.
    """

    prefix: ClassVar[str] = "MLOPS_"

    host: str = "127.0.0.1"
    port: int = Field(default=8086, ge=0, le=65535)
    grpc_port: int = Field(default=0, ge=0, le=65535)
    default_model: str = ""
    cache_dir: Path = Path(".mlops/cache")
    poll_seconds: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    feedback_key: str = Field(default="", repr=False)
    api_keys_required: frozenset[Literal["predict", "feedback"]] = frozenset()
    api_keys_dir: Path = Path(".mlops/api-keys")

    @field_validator("api_keys_required", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value

    def token_key(self) -> bytes:
        """The key of the feedback tokens, made once where none is configured.

        Raises:
            ValueError: the configured one is short: whoever guesses it can make up feedback.
            OSError: cache_dir cannot be written.
        """
        if key := self.feedback_key.strip().encode():
            if len(key) < MIN_KEY:
                raise ValueError(
                    f"MLOPS_FEEDBACK_KEY has {len(key)} bytes, at least {MIN_KEY} are needed; "
                    "`openssl rand -hex 32` makes one"
                )
            return key
        path = self.cache_dir / "feedback.key"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".feedback.key.{secrets.token_hex(4)}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
            try:
                os.link(draft, path)  # unlike a rename it fails when another process was first
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return path.read_text().strip().encode()
