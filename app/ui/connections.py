"""The services behind the pages: one client each for all visitors, by the settings of the environment."""

from __future__ import annotations

import streamlit as st

from app.clients.errors import ServiceError
from app.clients.mlflow import MlflowClient
from app.clients.model_api import ModelApiClient
from app.clients.prometheus import PrometheusClient
from app.runtime.settings import MlflowSettings
from app.ui.live.prometheus_source import PrometheusSource
from app.ui.mlflow_errors import readable_mlflow_errors
from app.ui.settings import UiSettings


def model_api() -> ModelApiClient:
    """The model API of MLOPS_API_URL."""
    settings = UiSettings()
    return _model_api(settings.api_url, settings.ui_timeout, settings.api_key)


def registry() -> MlflowClient:
    """MLflow with the account of the pages, which may only read.

    Raises:
        ServiceError: MLFLOW_TRACKING_URI is no address of a server.
    """
    mlflow = MlflowSettings()
    with readable_mlflow_errors():
        return _registry(
            mlflow.mlflow_tracking_uri,
            mlflow.mlflow_tracking_username,
            mlflow.mlflow_tracking_password,
            UiSettings().ui_timeout,
        )


def prometheus_source() -> PrometheusSource | None:
    """The figures of the Prometheus of MLOPS_PROMETHEUS_URL; None where that is not set."""
    settings = UiSettings()
    return _prometheus_source(settings.prometheus_url, settings.ui_timeout) if settings.prometheus_url else None


# The arguments are the keys: with other settings there is another client.
@st.cache_resource(show_spinner=False, max_entries=4)
def _model_api(url: str, timeout: float, key: str) -> ModelApiClient:
    return ModelApiClient(url, timeout, key=key)


@st.cache_resource(show_spinner=False, max_entries=4)
def _registry(uri: str, username: str, password: str, timeout: float) -> MlflowClient:
    return MlflowClient(uri, username, password, timeout=timeout)


@st.cache_resource(show_spinner=False, max_entries=4)
def _prometheus_source(url: str, timeout: float) -> PrometheusSource:
    return PrometheusSource(PrometheusClient(url, timeout))


def default_model() -> str | None:
    """The model that the API answers with by default; None where there is none, or the API does not answer."""
    try:
        return model_api().models().default
    except ServiceError:
        return None
