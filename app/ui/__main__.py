"""`python -m app.ui` serves the pages."""

from __future__ import annotations

import sys
from pathlib import Path

from streamlit.runtime.pages_manager import PagesManager
from streamlit.web import cli

from app.runtime.settings import WrongSettings
from app.ui.settings import UiSettings

# Streamlit's own environment variables (STREAMLIT_...) do not override these; everything else may be set by them.
OPTIONS = {
    "server.headless": "true",
    "server.enableXsrfProtection": "true",
    "server.enableCORS": "true",
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
    "theme.baseRadius": "0.5rem",
    "theme.showWidgetBorder": "true",
    "theme.metricValueFontSize": "1.75rem",
    "theme.headingFontSizes": '["2rem","1.4rem","1.1rem"]',
    "theme.light.primaryColor": "#2F6F9F",
    "theme.light.backgroundColor": "#FFFFFF",
    "theme.light.secondaryBackgroundColor": "#F4F6F8",
    "theme.light.textColor": "#1F2933",
    "theme.light.borderColor": "#DDE3E9",
    "theme.light.grayTextColor": "#616E7C",
    "theme.dark.primaryColor": "#6BA9D6",
}
# A pod's files never change, and watching them costs a thread and memory.
DEFAULTS = {"server.fileWatcherType": "none"}


def arguments(settings: UiSettings, given: list[str]) -> list[str]:
    """The arguments of the `streamlit` command. Those `given` on the command line come last, and so they win."""
    options = {**DEFAULTS, **OPTIONS, "server.address": settings.ui_host, "server.port": str(settings.ui_port)}
    script = str(Path(__file__).with_name("main.py"))
    return ["run", script, *(f"--{name}={value}" for name, value in options.items()), *given]


def main() -> None:
    """Serve the pages until the process is told to stop; wrong settings end it with exit code 2."""
    try:
        settings = UiSettings()
    except WrongSettings as error:
        sys.stderr.write(f"the pages cannot start: {error}\n")
        sys.exit(2)
    # As st.navigation does, but before the first visitor: Streamlit would run a file of pages/ as a page of its own.
    PagesManager.uses_pages_directory = False
    cli.main(arguments(settings, sys.argv[1:]), prog_name="streamlit")


if __name__ == "__main__":
    main()
