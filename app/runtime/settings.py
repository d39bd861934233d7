"""Where the platform's services are; by default where `make demo` puts them."""

from __future__ import annotations

import os

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFECT_DEFAULT = "http://127.0.0.1:4200/api"


class MlflowSettings(BaseSettings):
    """Where MLflow is, and the account; the environment variables are those of MLflow's own client."""

    mlflow_tracking_uri: str = "http://127.0.0.1:5000"
    mlflow_tracking_username: str = ""
    mlflow_tracking_password: str = ""


class PrefectSettings(BaseSettings):
    """Where Prefect is; the environment variables are those of Prefect's own client.

    prefect_api_auth_string: "user:password", or "" for no account.
    """

    prefect_api_url: str = PREFECT_DEFAULT
    prefect_api_auth_string: str = ""


class PlatformSettings(BaseSettings):
    """Read from MLOPS_* when it is created.

    api_url, ui_url: base URLs of the model API and the pages.
    api_key: key of the model API, "" where it asks for none.
    prometheus_url: base URL of Prometheus, "" where there is none.
    timeout: seconds for one request.
    """

    model_config = SettingsConfigDict(env_prefix="MLOPS_")

    api_url: str = "http://127.0.0.1:8086"
    api_key: str = Field(default="", repr=False)
    ui_url: str = "http://127.0.0.1:8501"
    prometheus_url: str = ""
    timeout: float = 10.0

    @property
    def mlflow_url(self) -> str:
        """Base URL of MLflow."""
        return MlflowSettings().mlflow_tracking_uri

    @property
    def prefect_url(self) -> str:
        """Base URL of Prefect's REST API."""
        return PrefectSettings().prefect_api_url

    def export(self) -> None:
        """Set the variables that MLflow's and Prefect's own clients read, so that they use these services too."""
        os.environ.setdefault("MLFLOW_TRACKING_URI", self.mlflow_url)
        os.environ.setdefault("PREFECT_API_URL", PREFECT_DEFAULT)
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
