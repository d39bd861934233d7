"""Links to MLflow's own pages."""

from __future__ import annotations

from urllib.parse import quote

from app.ui.formatting import escape_markdown
from app.ui.settings import UiSettings


def run_url(run_id: str) -> str:
    """The address of a run's page in MLflow, as the browser reaches it."""
    return f"{UiSettings().mlflow_links}/#/runs/{quote(run_id, safe='')}"


def run_link(run_id: str) -> str:
    """A Markdown link to a run's page in MLflow; without an id, the text "no run"."""
    return f"[run {escape_markdown(run_id[:8])}]({run_url(run_id)})" if run_id else "no run"


def version_url(model: str, version: str) -> str:
    """The address of a model version's page in MLflow, as the browser reaches it."""
    return f"{UiSettings().mlflow_links}/#/models/{quote(model, safe='')}/versions/{quote(version, safe='')}"
