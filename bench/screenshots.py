"""`python -m bench.screenshots`: docs/images/ from the pages of a running demo (`make demo`)."""

from __future__ import annotations

import argparse
import math
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from app.clients.errors import ServiceError
from app.clients.model_api import ModelApiClient
from app.contract.feedback import TokenFeedback
from app.runtime.browser import CHROMIUM, CHROMIUM_FLAGS, choose
from app.ui.settings import UiSettings
from flows.models import iris

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SIZE: ViewportSize = {"width": 1280, "height": 900}
LIVE_SECONDS = 45
LABELLED = 0.25  # of the predictions get their true label


class Traffic(threading.Thread):
    """Requests predictions of the data set's flowers, petals somewhat wider than they were, in waves; labels some.

    error: what ended it early.
    """

    def __init__(self, api: str) -> None:
        super().__init__(daemon=True)
        self.api = api
        self.stopping = threading.Event()
        self.error: ServiceError | None = None
        frame = iris.load()
        self.rows: list[dict[Any, Any]] = frame.to_dict("records")
        self.random = random.Random(4)  # noqa: S311

    def run(self) -> None:
        """Send until `stopping` is set."""
        try:
            with ModelApiClient(self.api, key=UiSettings().api_key) as client:
                self._send(client)
        except ServiceError as error:
            self.error = error

    def _send(self, client: ModelApiClient) -> None:
        labels: list[TokenFeedback] = []
        begin = time.monotonic()
        while not self.stopping.is_set():
            row = dict(self.random.choice(self.rows))
            truth = row.pop("species")
            row["petal_width"] = round(row["petal_width"] + self.random.choice([0.0, 0.0, 0.2]), 1)
            answer = client.predict("iris", row)
            if self.random.random() < LABELLED:
                labels.append(TokenFeedback(feedback_token=answer.feedback_token or "", label=truth))
            if len(labels) == 20:
                client.feedback_many(labels)
                labels = []
            wave = math.sin((time.monotonic() - begin) / 4)
            self.stopping.wait(1 / (30 + 18 * wave))


def _open(browser: Browser, url: str) -> Page:
    page = browser.new_page(viewport=SIZE, device_scale_factor=1)
    page.goto(url)
    return page


def _settled(page: Page) -> None:
    """Wait until Streamlit has run the page and the charts are drawn."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    page.wait_for_timeout(1000)


def _choose_iris(page: Page) -> None:
    choose(page, "Model", "iris")
    _settled(page)


def take(browser: Browser, ui: str, api: str) -> None:
    """Make predict.png, models.png and live.png."""
    traffic = Traffic(api)
    traffic.start()
    try:
        page = _open(browser, f"{ui}/live")
        _choose_iris(page)
        page.wait_for_timeout(LIVE_SECONDS * 1000)
        page.screenshot(path=IMAGES / "live.png")
        page.close()
    finally:
        traffic.stopping.set()
        traffic.join()
    if traffic.error:
        raise SystemExit(str(traffic.error))

    page = _open(browser, ui)
    _choose_iris(page)
    for name, value in {"petal_length": "4.90", "petal_width": "1.60", "sepal_length": "8.10"}.items():
        page.locator(f"input[aria-label^='{name} ']").fill(value)
    page.get_by_role("button", name="Predict", exact=True).click()
    page.get_by_text("What was the true").wait_for()
    page.get_by_role("button", name="versicolor", exact=True).click()
    page.get_by_text("Stored:").wait_for()
    _settled(page)
    page.screenshot(path=IMAGES / "predict.png")
    page.close()

    page = _open(browser, f"{ui}/models")
    _choose_iris(page)
    page.get_by_text("Promotion history").wait_for()
    _settled(page)
    page.screenshot(path=IMAGES / "models.png")
    page.close()


def main() -> None:
    """Take the screenshots of a demo that runs."""
    settings = UiSettings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ui", default=f"http://127.0.0.1:{settings.ui_port}")
    parser.add_argument("--api", default=settings.api_url)
    options = parser.parse_args()
    if not CHROMIUM:
        sys.exit("chromium is not installed: apt-get install chromium")
    for url in (f"{options.ui}/_stcore/health", f"{options.api}/livez"):
        try:
            httpx.get(url, timeout=5).raise_for_status()
        except httpx.HTTPError as error:
            sys.exit(f"{url} does not answer ({error}); start the demo with `make demo`")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        take(browser, options.ui, options.api)
        browser.close()


if __name__ == "__main__":
    main()
