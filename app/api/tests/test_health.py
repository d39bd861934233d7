from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.api.main import create_app
from app.testing.model_api import Example, absent_mlflow, cache_bundle, settings


def test_ready_once_a_model_is_loaded(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json()["models"]["iris"] == "1"


@pytest.mark.parametrize("path", ["/ping", "/health"])
def test_mlflows_paths_answer_as_readyz(client: TestClient, empty_client: TestClient, path: str) -> None:
    assert client.get(path).json() == client.get("/readyz").json()
    assert (client.get(path).status_code, empty_client.get(path).status_code) == (200, 503)


def test_the_version_is_that_of_the_mlflow_whose_protocol_is_spoken(empty_client: TestClient) -> None:
    response = empty_client.get("/version")
    assert (response.status_code, response.text) == (200, metadata.version("mlflow"))


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
