"""Where the platform's services are, as the command line reaches them; by default where `make demo` puts them."""

from __future__ import annotations

import os

import httpx
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.registry.client import RegistrySettings

PREFECT_DEFAULT = "http://127.0.0.1:4200/api"


class PlatformSettings(BaseSettings):
    """api_url, ui_url, prometheus_url: base URLs (MLOPS_API_URL, ...), prometheus_url "" where there is none; timeout:
    seconds for one request.
    """

    model_config = SettingsConfigDict(env_prefix="MLOPS_")

    api_url: str = "http://127.0.0.1:8086"
    ui_url: str = "http://127.0.0.1:8501"
    prometheus_url: str = ""
    timeout: float = 10.0

    @property
    def mlflow_url(self) -> str:
        return RegistrySettings().mlflow_tracking_uri

    @property
    def prefect_url(self) -> str:
        return os.environ.get("PREFECT_API_URL", PREFECT_DEFAULT)

    def prefect_client(self) -> httpx.Client:
        """A client of Prefect's REST API with the account of PREFECT_API_AUTH_STRING, "user:password", if it is set."""
        user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
        return httpx.Client(base_url=self.prefect_url, auth=(user, password) if user else None, timeout=self.timeout)

    def export(self) -> None:
        """Set the variables that MLflow's and Prefect's own clients read, so that they use these services too."""
        os.environ.setdefault("MLFLOW_TRACKING_URI", self.mlflow_url)
        os.environ.setdefault("PREFECT_API_URL", PREFECT_DEFAULT)
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
