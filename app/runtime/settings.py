"""Settings are environment variables: how they are read, and those of where the platform's services are."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

PREFECT_DEFAULT = "http://127.0.0.1:4200/api"


class WrongSettings(ValueError):
    """Settings are missing or wrong; the message names each environment variable, and no secret."""


class EnvironmentSettings(BaseModel):
    """Settings that are read from environment variables when they are made, but for those that are given by name.

    Secrets are fields with repr=False.

    prefix: of the variables' names; with MLOPS_ the field `port` is read from MLOPS_PORT.

    Raises:
        WrongSettings: when it is made.
    """

    model_config = ConfigDict(extra="forbid")

    prefix: ClassVar[str] = ""

    def __init__(self, **values: Any) -> None:
        variables = {name: self._variable(name) for name in type(self).model_fields}
        found = {name: os.environ[variable] for name, variable in variables.items() if variable in os.environ}
        given = {**found, **values}
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise WrongSettings("; ".join(self._problem(one, given) for one in error.errors())) from None

    @classmethod
    def _variable(cls, name: str) -> str:
        return f"{cls.prefix}{name}".upper()

    @classmethod
    def _problem(cls, error: ErrorDetails, given: dict[str, Any]) -> str:
        """What is wrong with one variable, or with several of them together."""
        message = error["msg"].removeprefix("Value error, ")
        if not error["loc"]:
            return message
        name = str(error["loc"][0])
        variable, field = cls._variable(name), cls.model_fields.get(name)
        if error["type"] == "missing":
            return f"{variable} must be set"
        if field is None or not field.repr:
            return f"{variable}: {message}"
        return f"{variable} is {given.get(name, error['input'])!r}: {message}"


class MlflowSettings(EnvironmentSettings):
    """Where MLflow is, and the account; the environment variables are those of MLflow's own client."""

    mlflow_tracking_uri: str = "http://127.0.0.1:5000"
    mlflow_tracking_username: str = ""
    mlflow_tracking_password: str = Field(default="", repr=False)


class PrefectSettings(EnvironmentSettings):
    """Where Prefect is; the environment variables are those of Prefect's own client.

    prefect_api_auth_string: "user:password", or "" for no account.
    """

    prefect_api_url: str = PREFECT_DEFAULT
    prefect_api_auth_string: str = Field(default="", repr=False)


class PlatformSettings(EnvironmentSettings):
    """Read from MLOPS_* when it is created.

    api_url, ui_url: base URLs of the model API and the pages.
    api_key: key of the model API, "" where it asks for none.
    prometheus_url: base URL of Prometheus, "" where there is none.
    timeout: seconds for one request.
    """

    prefix: ClassVar[str] = "MLOPS_"

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
