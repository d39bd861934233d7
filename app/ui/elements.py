"""What all pages share: clients, problems, the choice of the model, links and the way things are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.clients.errors import ServiceError
from app.clients.mlflow import MlflowClient
from app.clients.model_api import ModelApiClient
from app.runtime.settings import MlflowSettings
from app.ui.mlflow_errors import asking_mlflow
from app.ui.settings import UiSettings

CHOICE = "chosen_model"
# readable on light and dark
BLUE, GRAY, PALE, GREEN, ORANGE, RED = "#2F6F9F", "#7B8794", "#A9B4C0", "#3E9B6E", "#D98E2B", "#C8503C"


@st.cache_resource(show_spinner=False, max_entries=4)
def _api(url: str, timeout: float) -> ModelApiClient:
    return ModelApiClient(url, timeout)


@st.cache_resource(show_spinner=False, max_entries=4)
def _registry(uri: str, username: str, password: str, timeout: float) -> MlflowClient:
    return MlflowClient(uri, username, password, timeout=timeout)


def model_api() -> ModelApiClient:
    """The model API of the settings; one client for all visitors."""
    settings = UiSettings()
    return _api(settings.api_url, settings.ui_timeout)


def registry() -> MlflowClient:
    """MLflow of the settings; one client for all visitors. Raises ServiceError."""
    mlflow = MlflowSettings()
    with asking_mlflow():
        return _registry(
            mlflow.mlflow_tracking_uri,
            mlflow.mlflow_tracking_username,
            mlflow.mlflow_tracking_password,
            UiSettings().ui_timeout,
        )


def plain(text: object) -> str:
    """The text for a place that reads Markdown, where nothing of it means anything but itself."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:@&^=])", r"\\\1", re.sub(r"\s+", " ", str(text)))


def label(text: object) -> str:
    """The text for the label of an input: only what Markdown would take is escaped, as screen readers get it raw."""
    return re.sub(r"([\\`*\[\]<>$~]|(?<!\w)_|_(?!\w)|:(?=\w))", r"\\\1", re.sub(r"\s+", " ", str(text)))


def problem(found: ServiceError) -> None:
    """Say what is wrong and what to do."""
    # the cure is written by us, with `code` in it; the matter may quote a peer
    st.error(f"{plain(found.what)}\n\n{found.cure}" if found.cure else plain(found.what), icon=":material/error:")


def number(value: float) -> str:
    """A number as people read it: 0.9211, 53.55, 12,345."""
    if value and abs(value) < 1e-4:
        return f"{value:.3g}"
    if abs(value) < 10:
        return f"{value:.4f}".rstrip("0").rstrip(".")
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) < 1e4 else f"{value:,.0f}"


def zone() -> tzinfo | None:
    """The visitor's time zone, as the browser says; None, the server's, where it does not."""
    try:
        return ZoneInfo(st.context.timezone) if st.context.timezone else None
    except (ZoneInfoNotFoundError, ValueError):
        return None


def moment(seconds: float) -> str:
    """Seconds since 1970 as 23 Nov 2026, 14:05."""
    return datetime.fromtimestamp(seconds, UTC).astimezone(zone()).strftime("%d %b %Y, %H:%M") if seconds else "unknown"


def clock(seconds: float) -> str:
    """Seconds since 1970 as 14:05:30."""
    return datetime.fromtimestamp(seconds, UTC).astimezone(zone()).strftime("%H:%M:%S")


def run_link(run_id: str) -> str:
    """Markdown link to an MLflow run."""
    return f"[run {plain(run_id[:8])}]({run_url(run_id)})" if run_id else "no run"


def run_url(run_id: str) -> str:
    return f"{UiSettings().mlflow_links}/#/runs/{quote(run_id, safe='')}"


def version_url(model: str, version: str) -> str:
    return f"{UiSettings().mlflow_links}/#/models/{quote(model, safe='')}/versions/{quote(version, safe='')}"


def heading(title: str, about: str, choices: int = 1) -> list[DeltaGenerator]:
    """The head of a page; returns the places for its choices, such as the model."""
    left, *places = st.columns([4 - choices, *[1] * choices], vertical_alignment="bottom")
    with left:
        st.title(title, anchor=False)
        st.caption(about)
    return places


def choose_model(names: Sequence[str], default: str | None = None) -> str:
    """A selector of the model; what is chosen on one page is chosen on the others."""
    wanted = st.session_state.get(CHOICE)
    options = list(names)
    start = next((name for name in (wanted, default) if name in options), options[0])
    chosen: str = st.selectbox("Model", options, index=options.index(start), key=f"model of {options}")
    st.session_state[CHOICE] = chosen
    return chosen
