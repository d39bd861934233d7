"""Every kind of answer fits its shape in `app.contract`, with no field more and none less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel

from app.clients.mlflow import MlflowClient
from app.clients.model_api import WITH_TOKENS
from app.contract.errors import InferInvalid, InferRefused, InvalidRequest, Refused
from app.contract.feedback import RowFeedback, StoredFeedback, TokenFeedback
from app.contract.health import Alive, Ready
from app.contract.models import ModelInfo, ModelList
from app.contract.open_inference import InferAnswer
from app.contract.open_inference_metadata import (
    ModelMetadata,
    ModelReady,
    RepositoryEntry,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from app.contract.predictions import Prediction, Scores
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
    assert_fits(client.get(f"{path}?{urlencode(row)}").json(), Prediction)
    assert_fits(client.post(path, json=row).json(), Prediction)
    answers = client.post(path, json=[row] * 100).json()
    assert len(answers) == 100
    for answer in answers:
        assert_fits(answer, Prediction)


def test_scores(client: TestClient) -> None:
    response = client.post("/invocations", json={"dataframe_records": [SETOSA, VIRGINICA]})
    assert_fits(response.json(), Scores)


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_the_answers_of_the_open_inference_protocol(
    client: TestClient, examples: dict[str, Example], name: str
) -> None:
    response = client.post(f"/v2/models/{name}/infer", json=matrix(examples[name].rows(2)))
    assert_fits(response.json(), InferAnswer)
    assert_fits(client.get(f"/v2/models/{name}").json(), ModelMetadata)
    assert_fits(client.get(f"/v2/models/{name}/ready").json(), ModelReady)
    assert_fits(client.get("/v2").json(), ServerMetadata)
    assert_fits(client.get("/v2/health/live").json(), ServerLive)
    assert_fits(client.get("/v2/health/ready").json(), ServerReady)
    for entry in client.post("/v2/repository/index").json():
        assert_fits(entry, RepositoryEntry)


def test_models_in_service(client: TestClient, examples: dict[str, Example]) -> None:
    assert_fits(client.get("/models").json(), ModelList)
    assert_fits(client.get("/model").json(), ModelInfo)
    for name in examples:
        assert_fits(client.get(f"/models/{name}").json(), ModelInfo)


def test_health(client: TestClient) -> None:
    assert_fits(client.get("/livez").json(), Alive)
    assert_fits(client.get("/readyz").json(), Ready)


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
    assert_fits(answer, Prediction)
    item = {"feedback_token": answer["feedback_token"], "label": answer["prediction"]}
    assert_fits(item, TokenFeedback)
    of_row = {"model": model_name, "version": "1", "features": row, "label": answer["prediction"]}
    assert_fits(of_row, RowFeedback)
    assert_fits(client.post("/feedback", json=item).json(), StoredFeedback)
    for stored in client.post("/feedback", json=[item, of_row, {**of_row, "version": "7"}]).json():
        assert_fits(stored, StoredFeedback)


def test_refusals(client: TestClient) -> None:
    for path, body, plain, of_fields in (
        ("/models/{}/predict", {**SETOSA, "petal_width": "x"}, Refused, InvalidRequest),
        ("/v2/models/{}/infer", matrix([SETOSA]) | {"outputs": [{"name": "x"}]}, InferRefused,
         InferInvalid),
    ):  # fmt: skip
        unknown, invalid = client.post(path.format("tulips"), json=body), client.post(path.format("iris"), json=body)
        assert (unknown.status_code, invalid.status_code) == (404, 422)
        assert_fits(unknown.json(), plain)
        assert_fits(invalid.json(), of_fields)
    assert_fits(client.get("/models/tulips").json(), Refused)
    assert_fits(client.get("/v2/models/tulips").json(), InferRefused)
