"""The four addresses in a browser, as people use them; what they looked like is kept in reports/."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from namespace import wait_for
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright
from release import Platform
from runs import Runs, production, put_back, registry_of

from app.runtime.browser import CHROMIUM, CHROMIUM_FLAGS, choose
from conftest import REPORTS

PATIENCE = 60_000  # ms
PORT = 8080
# Errors in the console of MLflow's and Prefect's pages although nothing is wrong.
HARMLESS = [
    r"status of 401 .*http://prefect\.localhost:8080/api/",  # Prefect's page sends requests before the login
    r"^Error\n.*onResponse .*prefect\.localhost",  # and logs the answer once more
    r"status of 404 .*favicon",
    r"status of 404 .*http://prefect\.localhost:8080/\w+\.svg$",  # a run's state as favicon; Prefect has none
    r"status of 404 .*/alerts/_stcore/",  # Streamlit tries the address' folder before its root
    r"amplitude\.com.* Content Security Policy",  # the ingress keeps Prefect's page from it
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")


@dataclass
class Visitor:
    """Someone at a browser: a page, the foreign hosts it sent requests to, and the errors in its console."""

    page: Page
    test: str
    foreign_hosts: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("request", lambda request: self._on_request(request.url))
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("websocket", lambda socket: self.sockets.append(socket.url))

    def _on_request(self, url: str) -> None:
        parts = urlsplit(url)
        is_platform = (parts.hostname or "").endswith(".localhost") and parts.port == PORT
        if not is_platform and parts.scheme not in ("data", "blob"):
            self.foreign_hosts.add(parts.hostname or url)

    def _on_console(self, message: Any) -> None:
        text = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not any(re.search(pattern, text, re.S) for pattern in HARMLESS):
            self.errors.append(text)

    def go(self, name: str, path: str = "/") -> Page:
        self.page.goto(f"http://{name}.localhost:{PORT}{path}")
        return self.page

    def picture(self, name: str) -> None:
        """Keep what the page looks like."""
        self.page.wait_for_timeout(1000)  # charts and lists are drawn after their data came
        self.page.screenshot(path=REPORTS / f"{self.test}_{name}.png")

    def check(self) -> None:
        assert self.foreign_hosts == set(), "hosts that are not the platform's"
        assert self.errors == [], "the console of the browser"


@pytest.fixture
def visitor(platform: Platform, request: pytest.FixtureRequest) -> Iterator[Callable[..., Visitor]]:
    """Opens browsers with a profile of their own, and the account of pages that have none; options are Playwright's."""
    account = {"http_credentials": {"username": "admin", "password": platform.password("ui")}}
    test = request.node.name.removeprefix("test_")
    opened: list[tuple[BrowserContext, Visitor]] = []
    REPORTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)

        def visit(**options: Any) -> Visitor:
            context = browser.new_context(viewport={"width": 1280, "height": 900}, **{**account, **options})
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            expect.set_options(timeout=PATIENCE)
            someone = Visitor(page, test)
            someone.watch()
            opened.append((context, someone))
            return someone

        yield visit
        for _, someone in opened:
            someone.picture("end")
        browser.close()


@pytest.fixture
def newcomer(platform: Platform, spare_version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A version that is not in production; what is, is again at the end."""
    monkeypatch.setenv("MLOPS_CACHE_DIR", str(tmp_path))
    with registry_of(platform) as registry:
        before = production(registry)
        yield spare_version
        put_back(registry, before)


def _mlflow_account(platform: Platform) -> dict[str, Any]:
    return {"http_credentials": {"username": "admin", "password": platform.credentials["mlflow-admin-password"]}}


@pytest.mark.quiet
def test_a_flower_is_predicted_and_labelled(platform: Platform, visitor: Callable[..., Visitor]) -> None:
    """The page and its websocket, the API behind it, and feedback that MLflow stores; then the run it links to."""
    someone = visitor()
    page = someone.go("ui")
    for name, value in {"sepal_length": 6.7, "sepal_width": 3.0, "petal_length": 5.2, "petal_width": 2.3}.items():
        page.locator(f"input[aria-label^='{name} ']").fill(str(value))
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.locator(".st-key-answer").get_by_role("heading", name="virginica")).to_be_visible()
    page.get_by_role("button", name="virginica", exact=True).click()
    expect(page.get_by_text("Stored: virginica. The prediction was right.")).to_be_visible()
    someone.picture("predicted")
    assert someone.sockets == ["ws://ui.localhost:8080/_stcore/stream"]
    link = page.locator(".st-key-answer").get_by_role("link", name=re.compile("^run "))
    address = link.get_attribute("href") or ""
    assert urlsplit(address).netloc == "mlflow.localhost:8080"
    someone.check()
    another = visitor(**_mlflow_account(platform))  # a browser asks for the account of each host
    another.page.goto(address)
    expect(another.page.get_by_text("accuracy", exact=True).first).to_be_visible()
    another.check()


@pytest.mark.quiet
def test_live_figures_follow_the_traffic(platform: Platform, visitor: Callable[..., Visitor]) -> None:
    someone = visitor()
    page = someone.go("ui")
    page.get_by_role("link", name="Live").click()
    expect(page.get_by_role("heading", name="Feature drift")).to_be_visible()
    expect(page.get_by_role("heading", name="Requests per minute")).to_be_visible()
    someone.check()


@pytest.mark.quiet
def test_the_address_in_an_alert_leads_to_what_to_do(platform: Platform, visitor: Callable[..., Visitor]) -> None:
    someone = visitor()
    page = someone.go("ui", "/alerts#targetdown")
    expect(page.get_by_role("heading", name="TargetDown")).to_be_in_viewport()
    someone.check()


def test_a_version_is_promoted_and_rolled_back_with_the_admins_password(
    platform: Platform, newcomer: str, visitor: Callable[..., Visitor]
) -> None:
    api = platform.client("api")
    before = api.get("/models/iris").json()["version"]
    someone = visitor()
    page = someone.go("ui")
    page.get_by_role("link", name="Models").click()
    choose(page, "Version to promote", f"version {newcomer}")
    page.get_by_role("button", name="Promote", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Your name").fill("Ada")
    dialog.get_by_label("Why").fill("seen in a browser")
    password = dialog.locator("input[type=password]")
    password.fill("not the password")
    dialog.get_by_role("button", name="Yes, promote").click()
    expect(dialog.get_by_text(re.compile("401|password|account", re.I)).last).to_be_visible()
    someone.picture("refused")
    password.fill(platform.credentials["mlflow-admin-password"])
    dialog.get_by_role("button", name="Yes, promote").click()
    expect(page.get_by_text(f"Version {newcomer} is in production:")).to_be_visible()
    wait_for(lambda: api.get("/models/iris").json()["version"] == newcomer, f"version {newcomer} served", 30)
    expect(page.get_by_role("cell", name="Ada").first).to_be_visible()
    someone.picture("promoted")

    page.get_by_role("button", name="Roll back", exact=True).click()
    dialog.get_by_label("Your name").fill("Ada")
    password.fill(platform.credentials["mlflow-admin-password"])
    dialog.get_by_role("button", name="Yes, roll back").click()
    expect(page.get_by_text(f"Version {before} is in production:")).to_be_visible()
    wait_for(lambda: api.get("/models/iris").json()["version"] == before, f"version {before} served", 30)
    someone.check()


@pytest.mark.quiet
def test_mlflow_shows_runs_and_versions_to_who_has_the_password(
    platform: Platform, visitor: Callable[..., Visitor]
) -> None:
    refused = platform.client("mlflow", account=False).get("/")
    assert refused.status_code == 401
    assert "Basic" in refused.headers["www-authenticate"]  # so that a browser asks
    someone = visitor(**_mlflow_account(platform))
    page = someone.go("mlflow")
    page.get_by_text("Model training", exact=True).click()
    page.get_by_role("link", name="Experiments", exact=True).first.click()
    page.get_by_role("link", name="iris", exact=True).first.click()
    expect(page.get_by_text("matching runs")).to_be_visible()
    someone.picture("runs")
    page.locator("a[href*='/runs/']").first.click()
    expect(page.get_by_text("accuracy", exact=True).first).to_be_visible()
    someone.picture("run")
    someone.go("mlflow", "/#/models/iris")
    expect(page.get_by_text("Version 1", exact=True)).to_be_visible()
    expect(page.get_by_role("status", name="production").first).to_be_visible()
    someone.check()


def test_prefect_shows_runs_and_starts_one_after_the_login(
    platform: Platform, runs: Runs, visitor: Callable[..., Visitor]
) -> None:
    someone = visitor()
    page = someone.go("prefect")
    page.get_by_role("textbox").fill(platform.credentials["prefect-auth-string"])
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Deployments", exact=True).click()
    page.get_by_role("link", name="iris", exact=True).first.click()
    page.get_by_placeholder("Search by run name").fill("bootstrap-iris")
    first = page.get_by_role("link", name="bootstrap-iris-1").first
    expect(first).to_be_visible()
    someone.picture("deployment")

    known = _runs_of_iris(runs)
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Quick run", exact=True).click()
    dialog = page.get_by_role("dialog")  # of the parameters
    expect(dialog.get_by_text("Validate parameters")).to_be_visible()
    dialog.get_by_role("button", name=re.compile("Submit|Run")).click()
    expect(dialog).to_be_hidden()
    (started,) = wait_for(
        lambda: _runs_of_iris(runs) - known, lambda: f"the run of the button; the browser says {someone.errors}", 30
    )
    someone.picture("started")
    wait_for(lambda: runs.jobs(started), "the Job of the run", 60)
    runs.cancel(started)

    first.click()
    expect(page.get_by_text(re.compile("registered version 1 of iris"))).to_be_visible()
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    someone.check()


def _runs_of_iris(runs: Runs) -> set[str]:
    chosen = {"deployments": {"name": {"any_": ["iris"]}}}
    return {run["id"] for run in runs.prefect.request("POST", "/flow_runs/filter", chosen)}


@pytest.mark.quiet
def test_the_apis_documentation_predicts(visitor: Callable[..., Visitor]) -> None:
    someone = visitor()
    page = someone.go("api", "/docs")
    page.get_by_text("Predict one row with iris", exact=True).first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table").get_by_text('"prediction"').first).to_be_visible()
    expect(page.locator(".live-responses-table .response-col_status").filter(has_text="200").first).to_be_visible()
    someone.check()
