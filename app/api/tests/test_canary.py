"""A canary: which requests fall to it, that none fails because of it, and when it is returned to production."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from fastapi.testclient import TestClient
from sklearn.neighbors import RadiusNeighborsClassifier

from app.api.canary import Canary
from app.api.inference_proto import open_inference_grpc_pb2 as messages
from app.clients.mlflow import PRODUCTION, MlflowClient
from app.registry.bundle import Bundle
from app.registry.canary import CANARY_TAG
from app.registry.predictor import Predictions, Predictor, load_predictor
from app.runtime.processes import free_port
from app.runtime.waiting import wait_until
from app.testing.model_api import SETOSA, Example, bundle_of, metric, publish

Follow = Callable[..., TestClient]
INFER = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": list(SETOSA.values())}]}
FAR = SETOSA | {"petal_length": 60.0}  # a row that the forest answers, and no neighbour of which is known


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory, iris_rows: Any) -> Example:
    """Iris, by a model that raises where no training row is near; it runs in a thread."""
    train = iris_rows[0]
    folder = tmp_path_factory.mktemp("fragile") / "bundle"
    features, species = train.drop(columns="species"), train["species"]
    return bundle_of(folder, RadiusNeighborsClassifier(radius=2.0), features, species, "classification")


def info(client: TestClient, name: str) -> dict[str, Any]:
    return client.get(f"/models/{name}").json()


@pytest.fixture
def beside(mlflow: MlflowClient, follow: Follow, model_name: str, examples: dict[str, Example]) -> Callable[..., Any]:
    """Serves iris in version 1 and a bundle as its canary, version 2, which answers a share of the requests."""

    def start(bundle: Path, share: float, **values: Any) -> TestClient:
        publish(mlflow, model_name, examples["iris"].bundle)
        publish(mlflow, model_name, bundle, promote=False)
        mlflow.set_model_tag(model_name, CANARY_TAG, f"2 {share}")
        client = follow(default_model=model_name, **values)
        wait_until(lambda: info(client, model_name).get("canary"))
        return client

    return start


@pytest.mark.parametrize("share", [0.1, 0.29, 0.5, 0.999])
def test_the_share_is_exact(share: float, examples: dict[str, Example]) -> None:
    canary = Canary("iris", "2", share, object())  # type: ignore[arg-type]
    turns = [canary.next() is not None for _ in range(3000)]
    assert sum(turns) == canary.requests == round(3000 * share)
    if share == 0.1:
        assert [turn for turn, taken in enumerate(turns[:40], 1) if taken] == [10, 20, 30, 40]


def test_five_failures_that_are_more_than_one_percent_return_it(caplog: pytest.LogCaptureFixture) -> None:
    canary = Canary("iris", "2", 0.5, object())  # type: ignore[arg-type]
    for _ in range(1000):  # 500 of which are its own
        canary.next()
    for _ in range(5):
        canary.fail(ZeroDivisionError())
    assert not canary.returned, "5 of 500 are 1 %"
    canary.fail(ZeroDivisionError())
    assert canary.returned == "it failed on 6 of 500 requests, on the last with ZeroDivisionError"
    assert canary.next() is canary.next() is None
    (error,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert "version 2 of iris, is returned" in error
    assert "`mlops promote iris --canary 0`" in error


def test_its_share_of_every_protocol_is_answered_by_it(
    model_name: str, permuted: Example, beside: Callable[..., TestClient]
) -> None:
    """It calls a setosa a virginica, and says so."""
    port = free_port()
    client = beside(permuted.bundle, 0.1, grpc_port=port)

    def predict() -> tuple[str, str]:
        answer = client.get("/predict", params=SETOSA).json()
        return answer["version"], answer["prediction"]

    def predict_many_rows() -> tuple[str, str]:
        answer = client.post(f"/models/{model_name}/predict", json=[SETOSA] * 500).json()[0]  # in a thread
        return answer["version"], answer["prediction"]

    def invocations() -> tuple[str, str]:
        answer = client.post("/invocations", json={"dataframe_records": [SETOSA]}).json()
        return answer["version"], answer["predictions"][0]

    def infer(path: str = f"/v2/models/{model_name}/infer") -> tuple[str, str]:
        answer = client.post(path, json=INFER).json()
        return answer["model_version"], answer["outputs"][0]["data"][0]

    message = messages.ModelInferRequest(model_name=model_name)
    message.inputs.add(name="x", datatype="FP64", shape=[1, 4]).contents.fp64_contents.extend(SETOSA.values())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            messages.ModelInferRequest.SerializeToString,
            messages.ModelInferResponse.FromString,
        )

        def infer_by_grpc() -> tuple[str, str]:
            answer = call(message, timeout=30)
            return answer.model_version, answer.outputs[0].contents.bytes_contents[0].decode()

        for ask in (predict, predict_many_rows, invocations, infer, infer_by_grpc):
            assert Counter(ask() for _ in range(20)) == {("1", "setosa"): 18, ("2", "virginica"): 2}, ask.__name__
    for version, label in (("1", "setosa"), ("2", "virginica")):
        path = f"/v2/models/{model_name}/versions/{version}"
        assert {infer(f"{path}/infer") for _ in range(20)} == {(version, label)}
        assert client.get(f"{path}/ready").status_code == 200
    assert client.get(f"/v2/models/{model_name}").json()["versions"] == ["1", "2"]
    third = client.post(f"/v2/models/{model_name}/versions/3/infer", json=INFER)
    assert (third.status_code, third.json()["error"]) == (
        404,
        f"version 3 of {model_name} is not served; version 1 is",
    )
    assert {client.post("/explain", json=SETOSA).json()["version"] for _ in range(12)} == {"1"}
    found = info(client, model_name)
    assert (found["version"], found["canary"]) == (
        "1",
        {"version": "2", "share": 0.1, "requests": 10, "failures": 0, "returned": None},
    )
    labels = {"model": model_name, "version": "2"}
    assert metric(client, "mlops_canary_requests_total", **labels) == 10
    assert metric(client, "mlops_canary_failures_total", **labels) == 0
    assert metric(client, "mlops_canary_returned", **labels) == 0
    assert metric(client, "mlops_requests_total", status="200", **labels) == 10 + 20  # those that named it
    assert metric(client, "mlops_predictions_total", label="virginica", **labels) == 2 * 500 + 8 + 20


def test_feedback_counts_for_the_version_that_answered(
    model_name: str, permuted: Example, beside: Callable[..., TestClient]
) -> None:
    client = beside(permuted.bundle, 0.5)
    headers = {"Feedback-Token": "true"}
    by_version = {
        answer["version"]: answer
        for answer in (client.get("/predict", params=SETOSA, headers=headers).json() for _ in range(2))
    }
    labelled = [{"feedback_token": by_version[version]["feedback_token"], "label": "setosa"} for version in "12"]
    labelled.append({"model": model_name, "version": "2", "features": SETOSA, "label": "virginica"})
    answers = client.post("/feedback", json=labelled).json()
    assert [(answer["version"], answer["correct"]) for answer in answers] == [("1", True), ("2", False), ("2", True)]
    for version, correct, count in (("1", "true", 1), ("1", "false", 0), ("2", "true", 1), ("2", "false", 1)):
        assert metric(client, "mlops_feedback_total", model=model_name, version=version, correct=correct) == count


def test_what_it_fails_on_production_answers_until_it_is_returned(
    mlflow: MlflowClient,
    model_name: str,
    fragile: Example,
    beside: Callable[..., TestClient],
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = beside(fragile.bundle, 0.5)
    assert {client.post("/predict", json=SETOSA).json()["version"] for _ in range(4)} == {"1", "2"}
    bad = [client.post("/predict", json=SETOSA | {"petal_length": "long"}) for _ in range(4)]
    assert {answer.status_code for answer in bad} == {422}
    assert info(client, model_name)["canary"]["failures"] == 0, "production refuses these, too"
    for body in (FAR, [FAR], [FAR] * 500, FAR):
        answers = [client.post("/predict", json=body) for _ in range(2)]  # one of which falls to the canary
        assert [answer.status_code for answer in answers] == [200, 200]
    found = info(client, model_name)["canary"]
    assert (found["requests"], found["failures"], found["returned"]) == (8, 4, None)
    invalid = client.post(f"/v2/models/{model_name}/versions/2/infer", json={
        "inputs": [INFER["inputs"][0] | {"data": list(FAR.values())}]
    })  # fmt: skip
    assert invalid.status_code == 422, "nobody else can answer for the version that is named"
    assert [client.post("/predict", json=FAR).status_code for _ in range(2)] == [200, 200]
    found = info(client, model_name)["canary"]
    assert found["returned"] == "it failed on 5 of 9 requests, on the last with NoPrediction"
    assert {client.post("/predict", json=SETOSA).json()["version"] for _ in range(10)} == {"1"}
    assert client.get(f"/v2/models/{model_name}").json()["versions"] == ["1"]
    labels = {"model": model_name, "version": "2"}
    assert metric(client, "mlops_canary_requests_total", **labels) == 9
    assert metric(client, "mlops_canary_failures_total", **labels) == 5
    assert metric(client, "mlops_canary_returned", **labels) == 1
    assert f"version 2 of {model_name}, is returned" in caplog.text
    assert caplog.text.count(f"version 2 of {model_name}, failed on a request") == 1

    # it stays out, also when production moves under it, until another share is set
    publish(mlflow, model_name, fragile.bundle)
    wait_until(lambda: info(client, model_name)["version"] == "3")
    assert info(client, model_name)["canary"]["returned"] == found["returned"]
    mlflow.set_alias(model_name, PRODUCTION, "1")
    mlflow.set_model_tag(model_name, CANARY_TAG, "2 0.25")
    wait_until(lambda: info(client, model_name)["canary"]["share"] == 0.25)
    assert info(client, model_name)["canary"] == {
        "version": "2", "share": 0.25, "requests": 0, "failures": 0, "returned": None
    }  # fmt: skip
    mlflow.set_model_tag(model_name, CANARY_TAG, "")
    wait_until(lambda: info(client, model_name)["canary"] is None)
    assert metric(client, "mlops_canary_returned", **labels) is None


class Breaking:
    """A model that breaks once it is told to."""

    def __init__(self, whole: Predictor) -> None:
        self.whole, self.broken = whole, threading.Event()
        self.takes_matrix = whole.takes_matrix

    def predict(self, rows: Any) -> Predictions:
        if self.broken.is_set():
            raise RuntimeError("broken")
        return self.whole.predict(rows)


def test_a_model_that_breaks_loses_no_request_of_many_at_once(
    model_name: str,
    permuted: Example,
    beside: Callable[..., TestClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Breaking] = []

    def load(bundle: Bundle) -> Any:
        whole = load_predictor(bundle)
        if "virginica" not in whole.predict([tuple(SETOSA.values())]).labels:
            return whole
        made.append(Breaking(whole))
        return made[-1]

    monkeypatch.setattr("app.api.served_model.load_predictor", load)
    client = beside(permuted.bundle, 0.5)
    (canary,) = made

    def ask(number: int) -> int:
        if number == 60:
            canary.broken.set()
        return client.get("/predict", params=SETOSA).status_code

    with ThreadPoolExecutor(8) as pool:
        assert Counter(pool.map(ask, range(200))) == {200: 200}
    found = info(client, model_name)["canary"]
    assert 5 <= found["failures"] <= 12, "those that were under way when it was returned may fail on it, too"
    assert "with RuntimeError" in found["returned"]


def test_its_promotion_under_load_fails_no_request(
    mlflow: MlflowClient, model_name: str, permuted: Example, beside: Callable[..., TestClient]
) -> None:
    client = beside(permuted.bundle, 0.5)
    done = threading.Event()

    def ask(_: int) -> Counter[tuple[int, str]]:
        answers: Counter[tuple[int, str]] = Counter()
        while not done.is_set():
            answer = client.get("/predict", params=SETOSA)
            answers[answer.status_code, answer.json()["version"]] += 1
        return answers

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        try:
            wait_until(lambda: info(client, model_name)["canary"]["requests"] > 20)
            mlflow.set_alias(model_name, PRODUCTION, "2")
            wait_until(lambda: info(client, model_name)["version"] == "2" and not info(client, model_name)["canary"])
        finally:
            done.set()
        answers = sum((one.result() for one in asking), Counter())
    assert answers.keys() == {(200, "1"), (200, "2")}
    assert {client.get("/predict", params=SETOSA).json()["version"] for _ in range(4)} == {"2"}


def test_one_that_cannot_answer_productions_requests_stays_out(
    mlflow: MlflowClient, model_name: str, narrow: Example, permuted: Example, beside: Callable[..., TestClient]
) -> None:
    client = beside(narrow.bundle, 0.5)
    found = info(client, model_name)
    assert found["version"] == "1"
    assert found["canary"]["returned"].startswith("it cannot be loaded: its features are petal_length (double)")
    assert metric(client, "mlops_canary_returned", model=model_name, version="2") == 1
    assert {client.get("/predict", params=SETOSA).json()["version"] for _ in range(4)} == {"1"}
    publish(mlflow, model_name, permuted.bundle, promote=False)
    mlflow.set_model_tag(model_name, CANARY_TAG, "3 0.5")
    wait_until(lambda: info(client, model_name)["canary"]["version"] == "3")
    assert {client.get("/predict", params=SETOSA).json()["version"] for _ in range(4)} == {"1", "3"}
    mlflow.delete_alias(model_name, PRODUCTION)
    wait_until(lambda: client.get(f"/models/{model_name}").status_code != 200)
    assert metric(client, "mlops_canary_returned", model=model_name, version="3") is None
