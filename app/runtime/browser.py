"""The Chromium of this machine, for tests of the pages and for their screenshots."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def choose(page: Page, name: str, option: str) -> None:
    """Choose an option of one of the pages' lists, however long the list is.

    Args:
        name: the list's label.
    """
    choice = page.get_by_role("combobox", name=name, exact=True)
    choice.wait_for()
    # a list that is open while the page is still drawn may be closed by it
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    choice.click()
    choice.fill(option)  # only the first ten of a long list are drawn
    page.get_by_role("option", name=option, exact=True).click()
