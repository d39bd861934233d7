from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.testing.model_api import SETOSA, Example


def test_get_answers_prediction_and_where_it_comes_from(client: TestClient) -> None:
    response = client.get("/predict", params=SETOSA)
    assert response.status_code == 200
    answer = response.json()
    assert answer["prediction"] == "setosa"
    assert set(answer["probabilities"]) == {"setosa", "versicolor", "virginica"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert (answer["model"], answer["version"], answer["run_id"]) == ("iris", "1", "run-of-iris")
    assert answer["prediction_id"]


@pytest.mark.parametrize("path", ["/predict", "/predict/", "/models/iris/predict"])
def test_get_and_post_agree(client: TestClient, path: str) -> None:
    got, posted = client.get(path, params=SETOSA).json(), client.post(path, json=SETOSA).json()
    got.pop("prediction_id"), posted.pop("prediction_id")
    assert got == posted


@pytest.mark.parametrize("name", ["iris", "diabetes", "cars", "slow"])
@pytest.mark.parametrize("n", [1, 150])
def test_answers_are_the_estimators(client: TestClient, examples: dict[str, Example], name: str, n: int) -> None:
    rows = examples[name].rows(n)
    answers = client.post(f"/models/{name}/predict", json=rows).json()
    assert len(answers) == len(rows)
    predictions = [answer["prediction"] for answer in answers]
    expected = examples[name].expected(rows)
    assert predictions == (expected if name != "diabetes" else pytest.approx(expected, rel=1e-4))
    assert len({answer["prediction_id"] for answer in answers}) == len(rows)


def test_probabilities_are_the_estimators(client: TestClient, examples: dict[str, Example]) -> None:
    rows = examples["iris"].rows(20)
    probabilities = [list(answer["probabilities"].values()) for answer in client.post("/predict", json=rows).json()]
    np.testing.assert_allclose(
        probabilities, examples["iris"].estimator.predict_proba(examples["iris"].frame.head(20)), atol=1e-5
    )


def test_a_regression_has_no_probabilities(client: TestClient, examples: dict[str, Example]) -> None:
    answer = client.post("/models/diabetes/predict", json=examples["diabetes"].rows(1)[0]).json()
    assert isinstance(answer["prediction"], float)
    assert "probabilities" not in answer


def test_a_truth_value_is_answered_as_one(client: TestClient, examples: dict[str, Example]) -> None:
    row = examples["cars"].rows(1)[0]
    answer = client.get("/models/cars/predict?" + urlencode(row)).json()
    assert answer["prediction"] in (True, False)
    assert set(answer["probabilities"]) == {"true", "false"}


def test_an_unknown_category_is_answered_by_an_encoder_that_ignores_it(client: TestClient) -> None:
    row = {"colour": "grün", "doors": 4, "weight": 1000.0}
    assert client.post("/models/cars/predict", json=row).status_code == 200
    assert client.get("/models/cars/predict", params=row).status_code == 200


def test_the_same_row_twice_gets_two_ids(client: TestClient) -> None:
    assert len({client.get("/predict", params=SETOSA).json()["prediction_id"] for _ in range(10)}) == 10


def test_an_array_of_one_is_answered_by_an_array(client: TestClient) -> None:
    assert len(client.post("/predict", json=[SETOSA]).json()) == 1


def test_10000_rows_are_answered_and_no_more(client: TestClient) -> None:
    row = dict.fromkeys(SETOSA, 1)
    assert len(client.post("/predict", json=[row] * 10_000).json()) == 10_000
    response = client.post("/predict", json=[row] * 10_001)
    assert response.status_code == 422
    assert "10000" in response.json()["detail"][0]["msg"]


@pytest.mark.parametrize("path", ["/predict", "/models/iris/predict", "/v2/models/iris/infer", "/invocations"])
def test_without_a_model_the_answer_says_which_command_makes_one(empty_client: TestClient, path: str) -> None:
    response = empty_client.post(path, json=SETOSA)
    assert response.status_code == 503
    assert "MLflow cannot be asked" in response.json()["detail"]
    assert response.headers["retry-after"]


def test_an_unknown_model_is_404_and_names_those_served(client: TestClient) -> None:
    response = client.post("/models/irsi/predict", json=SETOSA)
    assert response.status_code == 404
    assert "iris" in response.json()["detail"]


def test_other_methods_are_refused(client: TestClient) -> None:
    response = client.delete("/predict")
    assert response.status_code == 405
    assert response.headers["allow"]


def test_a_body_in_chunks_is_read(client: TestClient) -> None:
    def chunks() -> Any:
        yield b'{"sepal_length": 5.1, "sepal_width": 3.5,'
        yield b""
        yield b'"petal_length": 1.4, "petal_width": 0.2}'

    assert client.post("/predict", content=chunks()).json()["prediction"] == "setosa"
