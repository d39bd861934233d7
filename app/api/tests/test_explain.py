"""POST /explain, of every kind of model."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.testing.model_api import Example, metric


@pytest.mark.parametrize("name", ["iris", "cars", "diabetes", "slow", "patients", "members"])
def test_base_and_contributions_add_up_to_what_is_predicted(
    client: TestClient, examples: dict[str, Example], name: str
) -> None:
    (row,) = examples[name].rows(1)
    predicted = client.post(f"/models/{name}/predict", json=row).json()
    answer = client.post(f"/models/{name}/explain", json=row)
    assert answer.status_code == 200, answer.text
    explained = answer.json()
    assert explained["prediction"] == predicted["prediction"]
    assert [one["feature"] for one in explained["contributions"]] == list(row)
    assert [one["value"] for one in explained["contributions"]] == list(row.values())
    total = explained["base"] + sum(one["contribution"] for one in explained["contributions"])
    assert total == pytest.approx(explained["value"], abs=1e-6)
    if "probabilities" in predicted:
        key = predicted["prediction"]
        shown = predicted["probabilities"][key if isinstance(key, str) else str(key).lower()]
        assert explained["value"] == pytest.approx(shown, abs=1e-6)


def test_what_decides_contributes_most(client: TestClient) -> None:
    answer = client.post(
        "/explain", json={"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
    )
    by_name = {one["feature"]: one["contribution"] for one in answer.json()["contributions"]}
    assert max(by_name, key=lambda name: by_name[name]) in ("petal_length", "petal_width")
    assert answer.json()["base"] == pytest.approx(1 / 3, abs=0.2)


def test_a_missing_value_is_explained_too(client: TestClient) -> None:
    answer = client.post("/models/patients/explain", json={"age": None, "ward": "north", "pressure": 140.0})
    assert answer.status_code == 200, answer.text
    assert answer.json()["contributions"][0]["value"] is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([{}, {}], "is missing"),
        ({"sepal_length": "long"}, "should be a number"),
        ([], "at least 1"),
        ({}, "is missing"),
    ],
)
def test_what_is_no_row_is_refused(client: TestClient, body: Any, message: str) -> None:
    answer = client.post("/models/iris/explain", json=body)
    assert answer.status_code == 422
    assert message in answer.text


def test_several_rows_are_refused(client: TestClient, examples: dict[str, Example]) -> None:
    answer = client.post("/models/iris/explain", json=examples["iris"].rows(2))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"] == "send one row, not 2"
    assert client.post("/models/iris/explain", json=examples["iris"].rows(1)).status_code == 200


def test_a_model_that_is_not_served_is_named(client: TestClient) -> None:
    assert client.post("/models/nothing/explain", json={}).status_code == 404
    assert client.get("/models/iris/explain").status_code == 405


def test_what_is_tried_for_it_is_not_counted_as_predictions(client: TestClient, examples: dict[str, Example]) -> None:
    (row,) = examples["iris"].rows(1)
    client.post("/models/iris/predict", json=row)
    before = metric(client, "mlops_predictions_total", model="iris")
    assert client.post("/models/iris/explain", json=row).status_code == 200
    assert metric(client, "mlops_predictions_total", model="iris") == before
