"""The page Alerts: what each alert means and what to do about it. The alerts' runbook_url leads here."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.ui.elements import heading

HERE = Path(__file__)
# Beside the pages in their image, in docs/ of a checkout.
PLACES = (HERE.parents[1] / "alerts.md", HERE.parents[3] / "docs" / "alerts.md")
BEGIN = "\n### "  # of an alert: what comes before the first is about the installation


def page() -> None:
    """Draw the page. The anchor of an alert is its name in lower case."""
    heading("Alerts", "What each alert means and what to do about it. The page Live has those that fire.", choices=0)
    for alert, text in runbook().items():
        st.subheader(alert, anchor=alert.lower())
        st.markdown(text)


def runbook() -> dict[str, str]:
    """Alert -> what it means and what to do, in Markdown."""
    file = next(path for path in PLACES if path.is_file())
    _, *sections = file.read_text(encoding="utf-8").split(BEGIN)
    parts = (section.partition("\n") for section in sections)
    return {alert.strip(): text.strip() for alert, _, text in parts}
