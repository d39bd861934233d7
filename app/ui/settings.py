"""Settings of the pages; MLflow's address and account are app.runtime.settings.MlflowSettings."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from app.runtime.settings import EnvironmentSettings, MlflowSettings


class UiSettings(EnvironmentSettings):
    """What MLOPS_* variables set for the pages; they are read when this is created.

    api_url, api_key: the model API, as this process reaches it; its key, "" where it asks for none.
    ui_host, ui_port: where to listen.
    ui_timeout: seconds for one request to the API or MLflow.
    prometheus_url: Prometheus, for the page Live; without one it reads the API.
    admin_secret: namespace/name of the Kubernetes Secret with MLflow's admin password, which the page Models names
        where a visitor's account is refused.
    mlflow_public_url: MLflow as the browser reaches it, for links; default MLFLOW_TRACKING_URI.
    """

    prefix: ClassVar[str] = "MLOPS_"

    api_url: str = "http://127.0.0.1:8086"
    api_key: str = Field(default="", repr=False)
    ui_host: str = "127.0.0.1"
    ui_port: int = Field(default=8501, ge=0, le=65535)
    ui_timeout: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    prometheus_url: str = ""
    admin_secret: str = Field(default="", pattern=r"^([a-z0-9.-]+/[a-z0-9.-]+)?$")
    mlflow_public_url: str = ""

    @property
    def mlflow_links(self) -> str:
        """Base URL of links to MLflow's own pages."""
        return (self.mlflow_public_url or MlflowSettings().mlflow_tracking_uri).rstrip("/")
