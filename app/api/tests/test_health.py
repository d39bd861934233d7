from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from app.api.main import create_app
from app.testing.model_api import Example, absent_mlflow, cache_bundle, settings


def test_ready_once_a_model_is_loaded(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json()["models"]["iris"] == "1"


def test_alive_but_not_ready_without_a_model(empty_client: TestClient) -> None:
    assert empty_client.get("/livez").status_code == 200
    response = empty_client.get("/readyz")
    assert response.status_code == 503
    assert "MLflow" in response.json()["detail"]


def test_not_ready_without_the_default_model(tmp_path: Path, examples: dict[str, Example]) -> None:
    cache_bundle(tmp_path, "iris", examples["iris"].bundle)
    with TestClient(create_app(settings(tmp_path, default_model="tulips"), absent_mlflow())) as client:
        assert client.get("/readyz").status_code == 503
        assert client.get("/predict").status_code == 503
        assert client.get("/models/iris").status_code == 200
