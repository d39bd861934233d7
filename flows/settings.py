"""Settings of the flows; MLflow's address and account are app.runtime.settings.MlflowSettings."""

from __future__ import annotations

from typing import ClassVar

from app.runtime.settings import EnvironmentSettings


class FlowSettings(EnvironmentSettings):
    """Read from MLOPS_* when it is created.

    mlflow_public_url: MLflow as a browser reaches it, for links; by default the tracking URI.
    retry_seconds: how long requests to MLflow are repeated while it is away.
    promotion_deployment: what a training has its version promoted by, such as promote/promote; "" for itself.
    decision_seconds: how long a training waits for that.
    """

    prefix: ClassVar[str] = "MLOPS_"

    mlflow_public_url: str = ""
    retry_seconds: float = 60.0
    promotion_deployment: str = ""
    decision_seconds: float = 300.0
