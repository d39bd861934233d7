"""Every kind of answer fits its shape in `app.contract`, with no field more and none less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel

from app import contract
from app.clients.mlflow import MlflowClient
from app.clients.model_api import WITH_TOKENS
from app.runtime.waiting import wait_until
from app.testing.model_api import SETOSA, VIRGINICA, Example, publish


def assert_fits(answer: Any, shape: type[BaseModel]) -> None:
    """What the shape keeps of the answer is all of it: at no depth is there a field that the shape does not know."""
    assert shape.model_validate(answer).model_dump(mode="json", exclude_unset=True) == answer


def one_row(examples: dict[str, Example], name: str) -> dict[str, Any]:
    return examples[name].rows(1)[0]


def matrix(rows: list[dict[str, Any]]) -> dict[str, Any]:
    data = [value for row in rows for value in row.values()]
    return {"inputs": [{"name": "features", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": data}]}


@pytest.mark.parametrize("name", ["iris", "diabetes", "cars", "slow"])
def test_predictions(client: TestClient, examples: dict[str, Example], name: str) -> None:
    path, row = f"/models/{name}/predict", one_row(examples, name)
    assert_fits(client.get(f"{path}?{urlencode(row)}").json(), contract.Prediction)
    assert_fits(client.post(path, json=row).json(), contract.Prediction)
    answers = client.post(path, json=[row] * 100).json()
    assert len(answers) == 100
    for answer in answers:
        assert_fits(answer, contract.Prediction)


def test_scores(client: TestClient) -> None:
    response = client.post("/invocations", json={"dataframe_records": [SETOSA, VIRGINICA]})
    assert_fits(response.json(), contract.Scores)


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_the_answers_of_the_open_inference_protocol(
    client: TestClient, examples: dict[str, Example], name: str
) -> None:
    response = client.post(f"/v2/models/{name}/infer", json=matrix(examples[name].rows(2)))
    assert_fits(response.json(), contract.InferAnswer)
    assert_fits(client.get(f"/v2/models/{name}").json(), contract.ModelMetadata)
    assert_fits(client.get(f"/v2/models/{name}/ready").json(), contract.ModelReady)
    assert_fits(client.get("/v2").json(), contract.ServerMetadata)
    assert_fits(client.get("/v2/health/live").json(), contract.ServerLive)
    assert_fits(client.get("/v2/health/ready").json(), contract.ServerReady)
    for entry in client.post("/v2/repository/index").json():
        assert_fits(entry, contract.RepositoryEntry)


def test_models_in_service(client: TestClient, examples: dict[str, Example]) -> None:
    assert_fits(client.get("/models").json(), contract.ModelList)
    assert_fits(client.get("/model").json(), contract.ModelInfo)
    for name in examples:
        assert_fits(client.get(f"/models/{name}").json(), contract.ModelInfo)


def test_health(client: TestClient) -> None:
    assert_fits(client.get("/livez").json(), contract.Alive)
    assert_fits(client.get("/readyz").json(), contract.Ready)


@pytest.mark.parametrize("kind", ["iris", "diabetes"])
def test_feedback(
    mlflow: MlflowClient,
    follow: Callable[..., TestClient],
    model_name: str,
    examples: dict[str, Example],
    kind: str,
) -> None:
    publish(mlflow, model_name, examples[kind].bundle)
    client = follow()
    wait_until(lambda: client.get("/readyz").status_code == 200)
    row = one_row(examples, kind)
    answer = client.post("/predict", json=row, headers=WITH_TOKENS).json()
    assert_fits(answer, contract.Prediction)
    item = {"feedback_token": answer["feedback_token"], "label": answer["prediction"]}
    assert_fits(item, contract.TokenFeedback)
    of_row = {"model": model_name, "version": "1", "features": row, "label": answer["prediction"]}
    assert_fits(of_row, contract.RowFeedback)
    assert_fits(client.post("/feedback", json=item).json(), contract.StoredFeedback)
    for stored in client.post("/feedback", json=[item, of_row, {**of_row, "version": "7"}]).json():
        assert_fits(stored, contract.StoredFeedback)


def test_refusals(client: TestClient) -> None:
    for path, body, plain, of_fields in (
        ("/models/{}/predict", {**SETOSA, "petal_width": "x"}, contract.Refused, contract.InvalidRequest),
        ("/v2/models/{}/infer", matrix([SETOSA]) | {"outputs": [{"name": "x"}]}, contract.InferRefused,
         contract.InferInvalid),
    ):  # fmt: skip
        unknown, invalid = client.post(path.format("tulips"), json=body), client.post(path.format("iris"), json=body)
        assert (unknown.status_code, invalid.status_code) == (404, 422)
        assert_fits(unknown.json(), plain)
        assert_fits(invalid.json(), of_fields)
    assert_fits(client.get("/models/tulips").json(), contract.Refused)
    assert_fits(client.get("/v2/models/tulips").json(), contract.InferRefused)
