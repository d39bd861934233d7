"""Links to MLflow's own pages, and to where it says what to do about an alert."""

from __future__ import annotations

import re
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


def runbook_link(url: str) -> str:
    """A Markdown link to what to do about an alert; the address as text where no browser could open it."""
    if not re.fullmatch(r"https?://\S+", url):
        return f"What to do: {escape_markdown(url)}"
    return f"[What to do]({quote(url, safe=':/?#&=%+,;@~')})"
