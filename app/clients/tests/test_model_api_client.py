"""The client against the real API, in this process; what the API answers wrongly is in the pages' tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sklearn.tree import DecisionTreeClassifier

from app.api.main import create_app
from app.clients.errors import ServiceError
from app.clients.mlflow import MlflowClient
from app.clients.model_api import ModelApiClient
from app.contract.feedback import TokenFeedback
from app.registry import feedback_store
from app.runtime.api_keys import new_key
from app.runtime.waiting import wait_until
from app.testing.api_keys import add_client
from app.testing.model_api import SETOSA, VIRGINICA, bundle_of, cache_bundle, publish, settings


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
    assert api.feedback(one.feedback_token or "", "setosa").correct is True
    items = [TokenFeedback(feedback_token=answer.feedback_token or "", label="virginica") for answer in (one, other)]
    assert [stored.correct for stored in api.feedback_many(items)] == [False, False]


def test_refusals_have_a_status_and_name_what_is_wrong(api: ModelApiClient, name: str) -> None:
    with pytest.raises(ServiceError, match="petal_length is missing") as raised:
        api.predict(name, {"sepal_length": 5.1, "sepal_width": 3.5, "petal_width": 0.2})
    assert raised.value.status == 422
    with pytest.raises(ServiceError, match="tulips") as raised:
        api.model("tulips")
    assert raised.value.status == 404


@pytest.fixture
def guarded(
    registry: MlflowClient, name: str, iris_bundle: Path, tmp_path: Path
) -> Iterator[Callable[[str], ModelApiClient]]:
    """Clients, by their key, of an API that asks for one for everything and has Iris in service."""
    cache_bundle(tmp_path / "cache", name, iris_bundle)
    publish(registry, name, iris_bundle)
    values = settings(tmp_path / "cache", api_keys_required="predict,feedback", api_keys_dir=tmp_path / "clients")
    with TestClient(create_app(values, registry)) as http:
        yield lambda key: ModelApiClient(str(http.base_url), http=http, key=key)


def test_a_key_is_sent_with_everything(
    guarded: Callable[[str], ModelApiClient], registry: MlflowClient, name: str, tmp_path: Path
) -> None:
    key = add_client(tmp_path / "clients", "shop", "predict", "feedback")
    api = guarded(f"{key}\n")  # as a file has it
    wait_until(lambda: name in allowed(api))
    answer = api.predict(name, SETOSA)
    assert api.feedback(answer.feedback_token or "", "setosa").correct is True
    assert [row["client"] for row in feedback_store.read(registry, name)] == ["shop"]


def allowed(api: ModelApiClient) -> list[str]:
    """The models that the API tells of; none where it knows the key not yet."""
    try:
        return [model.name for model in api.models().models]
    except ServiceError:
        return []


def test_a_refused_key_says_what_to_do(guarded: Callable[[str], ModelApiClient], name: str, tmp_path: Path) -> None:
    folder = tmp_path / "clients"
    lacking, slow = (
        add_client(folder, "lacking", "feedback"),
        add_client(folder, "slow", "predict", requests_per_second=0.01),
    )
    wait_until(lambda: allowed(guarded(slow)))
    for key, status, message in (
        (
            "",
            401,
            "answered 401. No key was sent; send `Authorization: Bearer KEY` with a key that has the scope predict",
        ),
        (new_key(), 401, "The key is not known, or not any more"),
        (lacking, 403, "The key of the client lacking lacks the scope predict"),
    ):
        with pytest.raises(ServiceError, match=re.escape(message)) as raised:
            guarded(key).model(name)
        assert raised.value.status == status
        assert raised.value.cure == "Set MLOPS_API_KEY to such a key."
        assert "`mlops keys create NAME --scopes predict`" in raised.value.what
    with pytest.raises(
        ServiceError, match=r"The limit of the client slow is 0\.01 requests a second: send it again in"
    ) as raised:
        guarded(slow).model(name)
    assert raised.value.status == 429


@pytest.mark.parametrize("key", ["nonsense", "mlops_" + "x" * 42, "mlops_" + "x" * 43 + "\nmore", "schlüssel"])
def test_what_is_no_key_is_not_sent_and_not_shown(
    guarded: Callable[[str], ModelApiClient], name: str, key: str
) -> None:
    with pytest.raises(ServiceError, match="MLOPS_API_KEY has no key of the model API") as raised:
        guarded(key).model(name)
    assert "`mlops keys create NAME" in raised.value.cure
    assert key not in str(raised.value)
