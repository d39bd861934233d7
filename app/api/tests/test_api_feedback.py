from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.errors import Refusal
from app.api.feedback_committer import Committer
from app.api.feedback_token import FeedbackTokens
from app.clients.mlflow import MlflowClient
from app.clients.model_api import WITH_TOKENS
from app.registry import feedback_store
from app.registry.feedback_store import read
from app.runtime.processes import Server
from app.runtime.waiting import wait_until
from app.testing.model_api import KEY, SETOSA, VIRGINICA, Example, absent_mlflow, metric, publish

Follow = Callable[..., TestClient]


@pytest.fixture
def client(client: TestClient) -> Iterator[TestClient]:
    """All four models, MLflow away; asks for feedback tokens."""
    client.headers.update(WITH_TOKENS)
    yield client
    for name in WITH_TOKENS:
        del client.headers[name]


@pytest.fixture
def storing(mlflow: MlflowClient, follow: Follow, examples: dict[str, Example], model_name: str) -> Any:
    """An API with iris (by default), diabetes and cars, and its names for them."""
    names = {kind: f"{model_name}-{kind}" for kind in ("iris", "diabetes", "cars")}
    for kind, name in names.items():
        publish(mlflow, name, examples[kind].bundle)
    client = follow(default_model=names["iris"])
    client.headers.update(WITH_TOKENS)
    wait_until(lambda: len(client.get("/models").json()["models"]) == len(names))
    return client, names


def test_a_label_is_stored_with_all_that_training_needs(storing: Any, mlflow: MlflowClient) -> None:
    client, names = storing
    answer = client.get("/predict", params=SETOSA).json()
    response = client.post("/feedback", json={"feedback_token": answer["feedback_token"], "label": "versicolor"})
    assert response.status_code == 201
    expected = {"model": names["iris"], "version": "1", "prediction": "setosa", "label": "versicolor"}
    assert response.json() == {"stored": True, **expected, "correct": False}
    (row,) = read(mlflow, names["iris"])
    assert row.pop("time") > 0
    assert row == {"id": answer["prediction_id"], "features": SETOSA, "client": "", **expected}


def test_a_regression_answers_the_error(storing: Any, mlflow: MlflowClient, examples: dict[str, Example]) -> None:
    client, names = storing
    answer = client.post(f"/models/{names['diabetes']}/predict", json=examples["diabetes"].rows(1)[0]).json()
    stored = client.post("/feedback", json={"feedback_token": answer["feedback_token"], "label": 100}).json()
    assert stored["absolute_error"] == pytest.approx(abs(answer["prediction"] - 100))
    assert read(mlflow, names["diabetes"])[0]["label"] == 100.0
    assert metric(client, "mlops_feedback_absolute_error_count", model=names["diabetes"]) == 1
    assert metric(client, "mlops_feedback_absolute_error_sum", model=names["diabetes"]) == pytest.approx(
        stored["absolute_error"]
    )


def test_an_array_of_several_models_is_stored(storing: Any, mlflow: MlflowClient) -> None:
    client, names = storing
    iris = [a["feedback_token"] for a in client.post("/predict", json=[SETOSA, VIRGINICA]).json()]
    car = client.post(f"/models/{names['cars']}/predict", json={"colour": "red", "doors": 4, "weight": 1}).json()
    items = [{"feedback_token": token, "label": "setosa"} for token in iris]
    response = client.post("/feedback", json=[*items, {"feedback_token": car["feedback_token"], "label": True}])
    assert [answer.get("correct") for answer in response.json()] == [True, False, car["prediction"] is True]
    assert len(read(mlflow, names["iris"])) == 2
    assert read(mlflow, names["cars"])[0]["label"] is True


def test_labels_are_counted_once(storing: Any, mlflow: MlflowClient) -> None:
    client, names = storing
    token = client.get("/predict", params=SETOSA).json()["feedback_token"]
    for label in ("setosa", "setosa", "virginica", "virginica"):
        assert client.post("/feedback", json={"feedback_token": token, "label": label}).status_code == 201
    assert metric(client, "mlops_feedback_total", model=names["iris"], correct="true") == 1
    assert metric(client, "mlops_feedback_total", model=names["iris"], correct="false") == 1
    (row,) = read(mlflow, names["iris"])
    assert row["label"] == "virginica"


@pytest.mark.parametrize("label", [5, True, None, "Setosa", "", ["setosa"], {"a": 1}, 1.5, "setosa "])
def test_a_label_that_is_no_class_is_422(client: TestClient, label: Any) -> None:
    token = client.get("/predict", params=SETOSA).json()["feedback_token"]
    response = client.post("/feedback", json={"feedback_token": token, "label": label})
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert problem["loc"] == ["body", "label"]
    assert "versicolor" in problem["msg"]


@pytest.mark.parametrize("label", ["100", True, None, [1], float("nan"), float("inf"), 1e300, 10**400])
def test_a_label_that_is_no_number_is_422(client: TestClient, examples: dict[str, Example], label: Any) -> None:
    token = client.post("/models/diabetes/predict", json=examples["diabetes"].rows(1)[0]).json()["feedback_token"]
    response = client.post("/feedback", content=json.dumps({"feedback_token": token, "label": label}).encode())
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "label"]


@pytest.mark.parametrize("label", [1, 0, 1.0, "true", None])
def test_another_label_than_true_or_false_is_422_where_one_was_predicted(client: TestClient, label: Any) -> None:
    token = client.post("/models/cars/predict", json={"colour": "red", "doors": 4, "weight": 1}).json()[
        "feedback_token"
    ]
    response = client.post("/feedback", json={"feedback_token": token, "label": label})
    assert response.status_code == 422
    assert "true" in response.json()["detail"][0]["msg"]


@pytest.mark.parametrize("token", ["", "x", 5, None, "é", "A" * 200, ["a"]])
def test_an_id_that_the_api_never_gave_is_422(client: TestClient, token: Any) -> None:
    response = client.post("/feedback", json={"feedback_token": token, "label": "setosa"})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "feedback_token"]


def test_an_id_of_another_key_is_422(client: TestClient) -> None:
    token = FeedbackTokens(b"another").make("id", "iris", "1", "classification", SETOSA, "setosa")
    assert client.post("/feedback", json={"feedback_token": token, "label": "setosa"}).status_code == 422


def test_an_array_is_taken_whole_or_not_at_all(storing: Any, mlflow: MlflowClient) -> None:
    client, names = storing
    token = client.get("/predict", params=SETOSA).json()["feedback_token"]
    good = {"feedback_token": token, "label": "setosa"}
    bad = [good, {**good, "label": "tulip"}, {"label": "setosa"}, {**good, "more": 1}, 5]
    response = client.post("/feedback", json=bad)
    assert response.status_code == 422
    assert {tuple(item["loc"]) for item in response.json()["detail"]} == {
        ("body", 1, "label"), ("body", 2, "feedback_token"), ("body", 3, "more"), ("body", 4),
    }  # fmt: skip
    assert read(mlflow, names["iris"]) == []
    assert metric(client, "mlops_feedback_total", model=names["iris"], correct="true") == 0


def test_any_replica_takes_an_id_of_a_version_it_never_served(storing: Any, mlflow: MlflowClient) -> None:
    client, names = storing
    tokens = FeedbackTokens(KEY.encode())
    old = tokens.make("a", names["iris"], "0", "classification", SETOSA, "setosa")
    assert client.post("/feedback", json={"feedback_token": old, "label": "setosa"}).json()["version"] == "0"
    assert metric(client, "mlops_feedback_total", model=names["iris"], version="0", correct="true") == 1
    gone = tokens.make("b", f"{names['iris']}-gone", "7", "classification", {"a": 1}, "tulip")
    assert client.post("/feedback", json={"feedback_token": gone, "label": "rose"}).status_code == 201
    assert client.post("/feedback", json={"feedback_token": gone, "label": 5}).status_code == 422


def test_with_mlflow_down_it_is_503_and_later_it_works(
    follow: Follow, mlflow: MlflowClient, mlflow_server: Server, model_name: str, examples: dict[str, Example]
) -> None:
    publish(mlflow, model_name, examples["iris"].bundle)
    client = follow()
    client.headers.update(WITH_TOKENS)
    answer = wait_until(lambda: client.get("/predict", params=SETOSA).json().get("feedback_token"))
    body = {"feedback_token": answer, "label": "setosa"}
    mlflow_server.stop()
    try:
        response = client.post("/feedback", json=body)
        assert response.status_code == 503
        assert "send it again" in response.json()["detail"]
        assert response.headers["retry-after"]
        assert metric(client, "mlops_feedback_total", model=model_name, correct="true") == 0
    finally:
        mlflow_server.start()
    assert client.post("/feedback", json=body).status_code == 201
    assert [row["id"] for row in read(mlflow, model_name)] == [FeedbackTokens(KEY.encode()).open(answer).prediction_id]


def test_with_mlflow_hanging_predictions_go_on_and_feedback_is_503(
    follow: Follow, mlflow: MlflowClient, mlflow_server: Server, model_name: str, examples: dict[str, Example]
) -> None:
    publish(mlflow, model_name, examples["iris"].bundle)
    client = follow(timeout=2)
    client.headers.update(WITH_TOKENS)
    answer = wait_until(lambda: client.get("/predict", params=SETOSA).json().get("feedback_token"))
    assert mlflow_server.process
    mlflow_server.process.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: metric(client, "mlops_registry_up") == 0)
        assert client.get("/predict", params=SETOSA).status_code == 200
        assert client.post("/feedback", json={"feedback_token": answer, "label": "setosa"}).status_code == 503
    finally:
        mlflow_server.process.signal(signal.SIGCONT)
    wait_until(lambda: metric(client, "mlops_registry_up") == 1)


def test_what_comes_in_during_an_upload_goes_as_one_file(mlflow: MlflowClient, model_name: str) -> None:
    rows = [{"id": str(i), "time": i, "model": model_name, "version": "1", "label": i} for i in range(200)]

    async def put_all() -> None:
        committer = Committer(mlflow)
        committer.start()
        await asyncio.gather(*(committer.put({model_name: [row]}, 100) for row in rows))
        await committer.close()

    asyncio.run(put_all())
    assert [row["id"] for row in read(mlflow, model_name)] == [row["id"] for row in rows]
    run = mlflow.search_runs("feedback", {"mlops.model": model_name})[0]
    assert len(mlflow.list_artifacts(mlflow.artifact_path(run.artifact_uri))) < 5


def test_uploads_are_compacted_now_and_then(
    mlflow: MlflowClient, model_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback_store, "COMPACT_AT", 3)

    def compacted() -> bool:
        runs = mlflow.search_runs("feedback", {"mlops.model": model_name})
        return any(feedback_store.COMPACTED_TAG in run.tags for run in runs)

    async def put_one_by_one() -> None:
        committer = Committer(mlflow)
        committer.start()
        for i in range(8):
            await committer.put({model_name: [{"id": str(i), "time": i, "label": i}]}, 100)
        await asyncio.to_thread(wait_until, compacted)
        await committer.close()

    asyncio.run(put_one_by_one())
    assert [row["label"] for row in read(mlflow, model_name)] == list(range(8))


@pytest.mark.parametrize(("rows", "size"), [({"m": [{}] * 30_000}, 1), ({"m": [{}]}, 17 * 1024 * 1024)])
def test_a_full_queue_is_503(rows: dict[str, list[Any]], size: int) -> None:
    async def overflow() -> None:
        committer = Committer(absent_mlflow())
        with pytest.raises(Refusal, match="too much") as refused:
            await committer.put(rows, size)
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "5"})

    asyncio.run(overflow())


def test_what_is_pending_is_stored_when_it_closes(mlflow: MlflowClient, model_name: str) -> None:
    async def close_at_once() -> None:
        committer = Committer(mlflow)
        committer.start()
        waiting = asyncio.ensure_future(committer.put({model_name: [{"id": "a", "time": 1, "label": 1}]}, 100))
        await asyncio.sleep(0)
        await committer.close()
        await waiting
        with pytest.raises(Refusal, match="shutting down"):
            await committer.put({model_name: [{}]}, 100)

    asyncio.run(close_at_once())
    assert [row["id"] for row in read(mlflow, model_name)] == ["a"]


# -- rows without a token --------------------------------------------------------------------------------------------


def of_row(model: str, **changes: Any) -> dict[str, Any]:
    return {"model": model, "version": "1", "features": SETOSA, "label": "setosa", **changes}


def test_a_row_is_taken_without_a_token(storing: Any, mlflow: MlflowClient) -> None:
    client, names = storing
    response = client.post("/feedback", json=of_row(names["iris"], label="virginica"))
    assert response.status_code == 201
    expected = {"model": names["iris"], "version": "1", "prediction": "setosa", "label": "virginica"}
    assert response.json() == {"stored": True, **expected, "correct": False}
    (row,) = read(mlflow, names["iris"])
    assert row.pop("time") > 0
    assert row.pop("id")
    assert row == {"features": SETOSA, "client": "", **expected}
    assert metric(client, "mlops_feedback_total", model=names["iris"], correct="false") == 1


def test_of_another_version_the_row_is_stored_and_nothing_is_counted(storing: Any, mlflow: MlflowClient) -> None:
    client, names = storing
    response = client.post("/feedback", json=of_row(names["iris"], version="7"))
    assert response.json() == {"stored": True, "model": names["iris"], "version": "7", "label": "setosa"}
    (row,) = read(mlflow, names["iris"])
    assert (row["version"], row["prediction"], row["predicted_by"]) == ("7", "setosa", "1")
    assert metric(client, "mlops_feedback_total", model=names["iris"], correct="true") == 0
    assert metric(client, "mlops_feedback_total", model=names["iris"], version="7") is None


def test_with_its_prediction_id_a_label_replaces_the_one_before(storing: Any, mlflow: MlflowClient) -> None:
    client, names = storing
    answer = client.get("/predict", params=SETOSA).json()
    named = of_row(names["iris"], prediction_id=answer["prediction_id"])
    token = {"feedback_token": answer["feedback_token"], "label": "setosa"}
    for item in (token, named, {**named, "label": "virginica"}, of_row(names["iris"]), of_row(names["iris"])):
        assert client.post("/feedback", json=item).status_code == 201
    labels = sorted(row["label"] for row in read(mlflow, names["iris"]))
    assert labels == ["setosa", "setosa", "setosa", "virginica"], "nobody replaces what came with a token"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"features": {**SETOSA, "petal_width": "x"}}, ["features", "petal_width"]),
        ({"features": {"petal_width": 1}}, ["features", "sepal_length"]),
        ({"features": [5.1, 3.5, 1.4, 0.2]}, ["features"]),
        ({"features": None}, ["features"]),
        ({"version": 1}, ["version"]),
        ({"version": "latest"}, ["version"]),
        ({"prediction_id": "x" * 41}, ["prediction_id"]),
        ({"prediction_id": 5}, ["prediction_id"]),
        ({"label": "tulip"}, ["label"]),
        ({"label": 5}, ["label"]),
        ({"more": 1}, ["more"]),
        ({"feedback_token": "x"}, ["feedback_token"]),
    ],
)
def test_what_is_wrong_with_a_row_is_named(client: TestClient, changes: dict[str, Any], where: list[str]) -> None:
    response = client.post("/feedback", json=of_row("iris", **changes))
    assert response.status_code == 422, response.text
    assert response.json()["detail"][0]["loc"] == ["body", *where]


@pytest.mark.parametrize("missing", ["version", "features", "label"])
def test_what_lacks_is_named(client: TestClient, missing: str) -> None:
    item = of_row("iris")
    del item[missing]
    response = client.post("/feedback", json=[item])
    assert response.json()["detail"][0]["loc"] == ["body", 0, missing]


def test_a_row_of_a_model_that_is_not_served_is_404(client: TestClient) -> None:
    assert client.post("/feedback", json=of_row("tulips")).status_code == 404


def test_an_id_alone_is_refused_with_what_to_send(client: TestClient) -> None:
    response = client.post("/feedback", json={"prediction_id": "5f1d2.1.x.19ab.1", "label": "setosa"})
    assert response.status_code == 422
    messages = [problem["msg"] for problem in response.json()["detail"]]
    assert any("a prediction_id alone does not tell the row; send the feedback_token" in text for text in messages)


@pytest.mark.parametrize("path", ["/predict", "/invocations", "/v2/models/iris/infer"])
def test_a_header_that_is_neither_true_nor_false_is_400(client: TestClient, path: str) -> None:
    response = client.post(path, json=SETOSA, headers={"Feedback-Token": "yes"})
    assert response.status_code == 400
    assert "send true" in response.json()["detail"]


def test_tokens_of_invocations_and_of_many_rows(client: TestClient) -> None:
    scores = client.post("/invocations", json={"dataframe_records": [SETOSA, VIRGINICA]}).json()
    assert len(set(scores["feedback_tokens"])) == 2
    answers = client.post("/predict", json=[SETOSA] * 500).json()
    assert len({answer["feedback_token"] for answer in answers}) == 500
    assert "feedback_token" not in client.get("/predict", params=SETOSA, headers={"Feedback-Token": "false"}).json()
