"""Features that may be without a value: how each protocol says so, and what is made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.clients.mlflow import MlflowClient
from app.clients.model_api import WITH_TOKENS
from app.registry.feedback_store import read
from app.runtime.waiting import wait_until
from app.testing.model_api import Example, metric, publish

ROW = {"age": 71.0, "ward": "north", "pressure": 140.0}
PATH = "/models/patients/predict"


@pytest.fixture
def expected(examples: dict[str, Example]) -> Any:
    """What the estimator itself says of a row, where None is a missing value."""
    estimator, frame = examples["patients"].estimator, examples["patients"].frame

    def predict(**changed: Any) -> Any:
        row = frame.head(1).copy()
        for name, value in {**ROW, **changed}.items():
            row[name] = row[name].where(row[name].isna(), np.nan) if value is None else value
        return estimator.predict(row.astype(frame.dtypes.to_dict()))[0]

    return predict


@pytest.mark.parametrize("name", ROW)
def test_null_and_absent_are_a_missing_value(client: TestClient, expected: Any, name: str) -> None:
    null = client.post(PATH, json={**ROW, name: None})
    absent = client.post(PATH, json={key: value for key, value in ROW.items() if key != name})
    many = client.post(PATH, json=[{**ROW, name: None}, ROW])
    assert null.status_code == absent.status_code == many.status_code == 200, (null.text, absent.text, many.text)
    assert null.json()["prediction"] == absent.json()["prediction"] == expected(**{name: None})
    assert [answer["prediction"] for answer in many.json()] == [expected(**{name: None}), expected()]


def test_a_row_may_have_no_value_at_all(client: TestClient, expected: Any) -> None:
    answer = client.post(PATH, json={})
    assert answer.status_code == 200, answer.text
    assert answer.json()["prediction"] == expected(age=None, ward=None, pressure=None)


@pytest.mark.parametrize("query", ["age=71&ward=north", "age=71&ward=north&pressure="])
def test_empty_in_a_query_is_a_missing_value(client: TestClient, expected: Any, query: str) -> None:
    answer = client.get(f"{PATH}?{query}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["prediction"] == expected(pressure=None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("age", "old", "age should be a number (double) or null"),
        ("ward", 5, "ward should be text (string) or null"),
        ("pressure", True, "pressure should be a number (double) or null"),
    ],
)
def test_a_wrong_value_is_refused_and_null_is_named(client: TestClient, name: str, value: Any, message: str) -> None:
    answer = client.post(PATH, json={**ROW, name: value})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"] == message


def test_other_models_refuse_missing_values_as_ever(client: TestClient) -> None:
    answer = client.post("/models/cars/predict", json={"colour": "red", "doors": 4, "weight": None})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"] == "weight should be a number (double)"


def infer(client: TestClient, inputs: list[dict[str, Any]]) -> list[Any]:
    answer = client.post("/v2/models/patients/infer", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"]


def tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data}


def test_tensors_may_have_nulls_or_not_be_there(client: TestClient, expected: Any) -> None:
    age, ward = tensor("age", "FP64", [None, 71.0]), tensor("ward", "BYTES", ["north", None])
    pressure = tensor("pressure", "FP64", [140.0, 140.0])
    assert infer(client, [age, ward, pressure]) == [expected(age=None), expected(ward=None)]
    assert infer(client, [age, pressure]) == [expected(age=None, ward=None), expected(ward=None)]


def test_nan_in_a_binary_tensor_is_a_missing_value(client: TestClient, expected: Any) -> None:
    values = np.array([np.nan, 71.0]).tobytes()
    binary = {"name": "age", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": len(values)}}
    content = json.dumps({"inputs": [binary, tensor("ward", "BYTES", ["north", None])]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(content))}
    answer = client.post("/v2/models/patients/infer", content=content + values, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == [
        expected(age=None, pressure=None),
        expected(ward=None, pressure=None),
    ]


def test_missing_values_are_a_bucket_of_their_own(client: TestClient) -> None:
    info = client.get("/models/patients").json()
    features = {feature["name"]: feature for feature in info["features"]}
    assert 0.1 < features["age"]["missing"] < 0.3
    assert sum(features["age"]["shares"]) + features["age"]["missing"] == pytest.approx(1)
    bucket = str(len(features["age"]["shares"]))

    def counted() -> float:
        return metric(client, "mlops_feature_bucket_total", model="patients", feature="age", bucket=bucket) or 0

    before = counted()
    client.post(PATH, json={**ROW, "age": None}).raise_for_status()
    client.post(PATH, json=ROW).raise_for_status()
    assert counted() == before + 1
    share = metric(client, "mlops_feature_reference_share", model="patients", feature="age", bucket=bucket)
    assert share == pytest.approx(features["age"]["missing"])


def test_the_schema_says_that_a_value_may_be_missing(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    paths, row = document["paths"], document["components"]["schemas"]["patients_row"]
    parameters = {one["name"]: one["required"] for one in paths[PATH]["get"]["parameters"]}
    assert not any(parameters[name] for name in ROW)
    assert "required" not in row
    assert {"type": "null"} in row["properties"]["age"]["anyOf"]


def test_feedback_on_a_row_without_a_value_is_stored(
    mlflow: MlflowClient, follow: Callable[..., TestClient], examples: dict[str, Example], model_name: str
) -> None:
    publish(mlflow, model_name, examples["patients"].bundle)
    client = follow(default_model=model_name)
    wait_until(lambda: client.get("/models").json()["models"])
    row = {**ROW, "ward": None}
    answer = client.post("/predict", json=row, headers=WITH_TOKENS).json()
    by_token = {"feedback_token": answer["feedback_token"], "label": "yes"}
    by_row = {"model": model_name, "version": "1", "features": {"age": 50.0}, "label": "no"}
    stored = client.post("/feedback", json=[by_token, by_row])
    assert stored.status_code == 201, stored.text
    features = [stored_row["features"] for stored_row in read(mlflow, model_name)]
    assert features == [row, {"age": 50.0, "ward": None, "pressure": None}]
