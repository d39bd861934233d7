"""The pages in a browser, served as users serve them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from app.runtime.browser import CHROMIUM, CHROMIUM_FLAGS, choose
from app.runtime.processes import Server, free_port

PATIENCE = 60_000  # ms

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")


@pytest.fixture
def pages(served: Any, mlflow_server: Server, tmp_path: Path) -> Iterator[str]:
    """The pages' address."""
    port = free_port()
    env = {
        "MLOPS_API_URL": served.url,
        "MLFLOW_TRACKING_URI": mlflow_server.uri,
        "MLOPS_UI_PORT": str(port),
    }
    server = Server("ui", ["app.ui"], f"http://127.0.0.1:{port}", "/_stcore/health", env, tmp_path)
    server.start()
    yield server.uri
    server.stop(10)


@pytest.fixture
def browser_page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield page
        browser.close()


def test_a_flower_is_typed_in_and_read_and_labelled(served: Any, pages: str, browser_page: Page) -> None:
    page = browser_page
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    flower = {"sepal_length": 6.7, "sepal_width": 3.0, "petal_length": 5.2, "petal_width": 2.3}
    page.goto(pages)
    choose(page, "Model", served.names["iris"])
    for name, value in flower.items():
        page.locator(f"input[aria-label^='{name} ']").fill(str(value))
    page.get_by_role("button", name="Predict", exact=True).click()
    prediction = served.predict("iris", flower)["prediction"]
    expect(page.locator(".st-key-answer").get_by_role("heading", name=prediction)).to_be_visible()
    page.get_by_role("button", name=prediction, exact=True).click()
    expect(page.get_by_text(f"Stored: {prediction}. The prediction was right.")).to_be_visible()

    page.get_by_role("link", name="Models").click()
    expect(page.get_by_role("heading", name="Promotion history")).to_be_visible()
    page.get_by_role("link", name="Live").click()
    expect(page.get_by_role("heading", name="Feature drift")).to_be_visible()
    local = (pages, pages.replace("http", "ws"), "data:", "blob:")
    assert [url for url in requested if not url.startswith(local)] == []  # nothing comes from the Internet


def test_the_address_of_an_alert_leads_to_its_section(pages: str, browser_page: Page) -> None:
    browser_page.goto(f"{pages}/alerts#targetdown")
    expect(browser_page.get_by_role("heading", name="TargetDown")).to_be_in_viewport()
    expect(browser_page.get_by_role("heading", name="ApiDown", exact=True)).not_to_be_in_viewport()
