"""Grafana through the ingress: who gets in, its data source, its dashboards and their panels; live websockets."""

from __future__ import annotations

import base64
import http.client
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from dashboard_queries import dashboards, panels
from namespace import wait_for
from release import INGRESS, Platform
from test_dashboards import EMPTY, predictions

HOST = "grafana.localhost:8080"
PATIENCE = 300  # seconds: some scrapes for rates, then the recording rules
NOT_HERE = "Grafana is not installed: no container registry answers here, and so its image is not there"


@pytest.fixture(scope="module", autouse=True)
def installed(platform: Platform) -> None:
    if not platform.pods("grafana"):
        pytest.skip(NOT_HERE)


@pytest.fixture(scope="module")
def grafana(platform: Platform) -> Iterator[httpx.Client]:
    """A client that logged in as people do, with the form's request and its cookie."""
    with httpx.Client(base_url=INGRESS, headers={"Host": HOST}, timeout=30) as client:
        account = {"user": "admin", "password": platform.credentials["grafana-admin-password"]}
        answer = client.post("/login", json=account, headers={"Origin": f"http://{HOST}"})
        assert answer.status_code == 200, answer.text
        # The jar has it for 127.0.0.1, as that is what was connected to.
        assert "grafana_session" in client.cookies
        yield client


def test_strangers_are_sent_to_the_login() -> None:
    with httpx.Client(base_url=INGRESS, headers={"Host": HOST}, timeout=30) as stranger:
        home = stranger.get("/")
        assert home.status_code in (302, 307)
        assert home.headers["location"].startswith("/login"), home.headers
        assert stranger.get("/api/search").status_code == 401
        assert stranger.get("/metrics").status_code == 404
        wrong = stranger.post("/login", json={"user": "admin", "password": "admin"})
        assert wrong.status_code == 401, wrong.text
        new = {"email": "a@example.com", "username": "a", "password": "b" * 12}
        assert stranger.post("/api/user/signup/step2", json=new).status_code in (401, 403, 404)


def test_the_data_source_is_healthy(grafana: httpx.Client) -> None:
    def health() -> Any:
        return grafana.get("/api/datasources/uid/prometheus/health").json()

    wait_for(lambda: health().get("status") == "OK", f"the data source's health, now {health()}", 60)


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_a_dashboard_loads_as_it_was_committed(grafana: httpx.Client, name: str) -> None:
    committed = dashboards()[name]
    answer = grafana.get(f"/api/dashboards/uid/{committed['uid']}")
    assert answer.status_code == 200, answer.text
    loaded = answer.json()
    assert loaded["meta"]["provisioned"] is True
    assert loaded["dashboard"]["title"] == committed["title"]
    assert [panel["title"] for panel in panels(loaded["dashboard"])] == [panel["title"] for panel in panels(committed)]


def _answers(grafana: httpx.Client, platform: Platform, expression: str, panel: dict[str, Any]) -> bool:
    """Whether Grafana, asked as the page does for a panel, gives values."""
    filled = expression.replace("$namespace", platform.namespace).replace("$model", ".+").replace("$__range", "3h")
    query = {
        "refId": "A",
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "expr": filled,
        "range": True,
        "intervalMs": 15_000,
        "maxDataPoints": 500,
    }
    answer = grafana.post("/api/ds/query", json={"queries": [query], "from": "now-15m", "to": "now"})
    assert answer.status_code == 200, f"{panel['title']}: {answer.text}"
    frames = answer.json()["results"]["A"].get("frames", [])
    return any(value is not None for frame in frames for column in frame["data"]["values"][1:] for value in column)


def test_no_panel_is_empty(platform: Platform, grafana: httpx.Client) -> None:
    """test_dashboards.py asks Prometheus itself; this is the way through Grafana, its own variables filled in by it."""
    expressions = [
        (target["expr"], panel)
        for dashboard in dashboards().values()
        for panel in panels(dashboard)
        if (dashboard["uid"], panel["title"]) not in EMPTY
        for target in panel["targets"]
    ]
    with predictions(platform):
        for expression, panel in expressions:
            answers = partial(_answers, grafana, platform, expression, panel)
            wait_for(answers, f"data for {panel['title']}: {expression}", PATIENCE)


def _handshake(grafana: httpx.Client, origin: str) -> int:
    """The status with which the ingress answers a websocket's handshake."""
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=10)
    headers = {
        "Host": HOST,
        "Origin": origin,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Cookie": "; ".join(f"{name}={value}" for name, value in grafana.cookies.items()),
    }
    connection.request("GET", "/api/live/ws", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_live_websockets_are_for_its_own_pages(grafana: httpx.Client) -> None:
    assert _handshake(grafana, f"http://{HOST}") == 101
    assert _handshake(grafana, "http://evil.example.com") == 403
