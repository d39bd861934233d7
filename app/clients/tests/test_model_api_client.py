"""The client against the real API, in this process; what the API answers wrongly is in the pages' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sklearn.tree import DecisionTreeClassifier

from app.api.main import create_app
from app.clients.errors import ServiceError
from app.clients.mlflow import MlflowClient
from app.clients.model_api import ModelApiClient
from app.contract import FeedbackItem
from app.runtime.waiting import wait_until
from app.testing.model_api import SETOSA, VIRGINICA, bundle_of, publish, settings


@pytest.fixture
def api(registry: MlflowClient, name: str, iris_rows: Any, tmp_path: Path) -> Iterator[ModelApiClient]:
    """An API of a real MLflow, in which the model `name` is in production: Iris."""
    train = iris_rows[0]
    tree = DecisionTreeClassifier(random_state=0)
    example = bundle_of(
        tmp_path / "bundle", tree, train.drop(columns="species"), train["species"], task="classification"
    )
    publish(registry, name, example.bundle)
    with TestClient(create_app(settings(tmp_path / "cache"), registry)) as http:
        wait_until(lambda: http.get(f"/models/{name}").is_success)
        yield ModelApiClient(str(http.base_url), http=http)


def test_one_row_and_many(api: ModelApiClient, name: str) -> None:
    api.check_alive()
    assert name in [model.name for model in api.models().models]
    assert [feature.name for feature in api.model(name).features] == list(SETOSA)
    assert api.predict(name, SETOSA).prediction == "setosa"
    assert api.predict_text(name, [(feature, str(value)) for feature, value in SETOSA.items()]).prediction == "setosa"
    assert [answer.prediction for answer in api.predict_rows(name, [VIRGINICA, SETOSA])] == ["virginica", "setosa"]
    assert f'mlops_model_info{{model="{name}"' in api.metrics()


def test_one_label_and_many(api: ModelApiClient, name: str) -> None:
    one, other = api.predict_rows(name, [SETOSA, SETOSA])
    assert api.feedback(one.prediction_id, "setosa").correct is True
    items = [FeedbackItem(prediction_id=answer.prediction_id, label="virginica") for answer in (one, other)]
    assert [stored.correct for stored in api.feedback_many(items)] == [False, False]


def test_refusals_have_a_status_and_name_what_is_wrong(api: ModelApiClient, name: str) -> None:
    with pytest.raises(ServiceError, match="petal_length is missing") as raised:
        api.predict(name, {"sepal_length": 5.1, "sepal_width": 3.5, "petal_width": 0.2})
    assert raised.value.status == 422
    with pytest.raises(ServiceError, match="tulips") as raised:
        api.model("tulips")
    assert raised.value.status == 404
