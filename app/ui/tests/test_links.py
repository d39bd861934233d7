from __future__ import annotations

import pytest

from app.ui.links import run_url, version_url


def test_links_go_where_the_browser_can_reach_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert run_url("a/b") == "http://mlflow:5000/#/runs/a%2Fb"
    monkeypatch.setenv("MLOPS_MLFLOW_PUBLIC_URL", "http://mlflow.localhost:8080/")
    assert version_url("iris", "3") == "http://mlflow.localhost:8080/#/models/iris/versions/3"
