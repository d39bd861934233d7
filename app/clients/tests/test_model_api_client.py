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
from app.testing.model_api import SETOSA, VIRGINICA, bundle_of, cache_bundle, settings


@pytest.fixture
def api(registry: MlflowClient, iris_rows: Any, tmp_path: Path) -> Iterator[ModelApiClient]:
    """An API that serves iris from its cache, and stores feedback in a real MLflow."""
    train = iris_rows[0]
    tree = DecisionTreeClassifier(random_state=0)
    example = bundle_of(
        tmp_path / "bundle", tree, train.drop(columns="species"), train["species"], task="classification"
    )
    cache_bundle(tmp_path / "cache", "iris", example.bundle)
    with TestClient(create_app(settings(tmp_path / "cache"), registry)) as http:
        yield ModelApiClient(str(http.base_url), http=http)


def test_one_row_and_many(api: ModelApiClient) -> None:
    api.check_alive()
    assert [model.name for model in api.models().models] == ["iris"]
    assert [feature.name for feature in api.model("iris").features] == list(SETOSA)
    assert api.predict("iris", SETOSA).prediction == "setosa"
    assert api.predict_text("iris", [(name, str(value)) for name, value in SETOSA.items()]).prediction == "setosa"
    assert [answer.prediction for answer in api.predict_rows("iris", [VIRGINICA, SETOSA])] == ["virginica", "setosa"]
    assert 'mlops_model_info{model="iris"' in api.metrics()


def test_one_label_and_many(api: ModelApiClient) -> None:
    one, other = api.predict_rows("iris", [SETOSA, SETOSA])
    assert api.feedback(one.prediction_id, "setosa").correct is True
    items = [FeedbackItem(prediction_id=answer.prediction_id, label="virginica") for answer in (one, other)]
    assert [stored.correct for stored in api.feedback_many(items)] == [False, False]


def test_refusals_have_a_status_and_name_what_is_wrong(api: ModelApiClient) -> None:
    with pytest.raises(ServiceError, match="petal_length is missing") as raised:
        api.predict("iris", {"sepal_length": 5.1, "sepal_width": 3.5, "petal_width": 0.2})
    assert raised.value.status == 422
    with pytest.raises(ServiceError, match="tulips") as raised:
        api.model("tulips")
    assert raised.value.status == 404
