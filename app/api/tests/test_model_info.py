from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from app.api.main import create_app
from app.testing.model_api import SETOSA, Example, absent_mlflow, cache_bundle, settings


def test_a_model_tells_all_that_a_form_needs(client: TestClient, examples: dict[str, Example]) -> None:
    info = client.get("/model").json()
    assert info == client.get("/models/iris").json()
    assert (info["name"], info["version"], info["run_id"]) == ("iris", "1", "run-of-iris")
    assert (info["task"], info["target"], info["serving"]) == ("classification", "species", "onnx")
    assert info["classes"] == ["setosa", "versicolor", "virginica"]
    assert [feature["name"] for feature in info["features"]] == list(SETOSA)
    for feature in info["features"]:
        assert feature["dtype"] == "double"
        assert feature["min"] <= feature["median"] <= feature["max"]
        assert len(feature["shares"]) == len(feature["edges"]) + 1
    assert list(info["example"]) == list(SETOSA)
    assert info["prediction_reference"]["categories"][-1] == "(other)"
    assert info["gate"]["metric"] == "accuracy"
    assert info["last_failure"] is None
    assert info["registry"]["ok"] is False


def test_text_features_have_categories(client: TestClient) -> None:
    colour, doors, weight = client.get("/models/cars").json()["features"]
    assert (colour["dtype"], doors["dtype"], weight["dtype"]) == ("string", "long", "double")
    assert sorted(colour["categories"]) == ["(other)", "blue", "green", "red"]


def test_a_skops_model_says_why(client: TestClient) -> None:
    info = client.get("/models/slow").json()
    assert info["serving"] == "skops"
    assert info["serving_reason"]


def test_the_list_names_the_default(client: TestClient) -> None:
    listed = client.get("/models").json()
    assert listed["default"] == "iris"
    assert [model["name"] for model in listed["models"]] == ["cars", "diabetes", "iris", "members", "patients", "slow"]


def test_an_unknown_model_is_404(client: TestClient) -> None:
    assert client.get("/models/tulips").status_code == 404


def test_the_only_model_is_the_default_one(tmp_path: Path, examples: dict[str, Example]) -> None:
    cache_bundle(tmp_path, "iris", examples["iris"].bundle)
    with TestClient(create_app(settings(tmp_path), absent_mlflow())) as client:
        assert client.get("/models").json()["default"] == "iris"
        assert client.get("/predict", params=SETOSA).status_code == 200


def test_of_several_models_none_is_the_default(tmp_path: Path, examples: dict[str, Example]) -> None:
    for name in ("iris", "diabetes"):
        cache_bundle(tmp_path, name, examples[name].bundle)
    with TestClient(create_app(settings(tmp_path), absent_mlflow())) as client:
        assert client.get("/models").json()["default"] is None
        assert client.get("/readyz").status_code == 200
        for path in ("/predict", "/model"):
            response = client.get(path, params=SETOSA)
            assert response.status_code == 422
            assert "MLOPS_DEFAULT_MODEL" in response.json()["detail"][0]["msg"]
        assert client.get("/models/iris/predict", params=SETOSA).status_code == 200
        assert "/predict" not in client.get("/openapi.json").json()["paths"]
