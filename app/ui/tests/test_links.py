from __future__ import annotations

import pytest

from app.ui.links import run_url, runbook_link, version_url


def test_links_go_where_the_browser_can_reach_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert run_url("a/b") == "http://mlflow:5000/#/runs/a%2Fb"
    monkeypatch.setenv("MLOPS_MLFLOW_PUBLIC_URL", "http://mlflow.localhost:8080/")
    assert version_url("iris", "3") == "http://mlflow.localhost:8080/#/models/iris/versions/3"


def test_a_runbook_is_a_link_where_a_browser_can_open_it() -> None:
    assert runbook_link("http://ui.localhost:8080/alerts#apidown") == (
        "[What to do](http://ui.localhost:8080/alerts#apidown)"
    )
    assert runbook_link("https://x/a)b") == "[What to do](https://x/a%29b)"
    for other in ("docs/alerts.md", "javascript:alert(1)", "http://x y", ""):
        assert "](" not in runbook_link(other)
