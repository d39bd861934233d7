"""A challenger in the shadow: what it is given, what is counted of it, and that production never depends on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.shadow import MAX_ROWS_WAITING, Shadow, tolerance
from app.clients.mlflow import CHALLENGER, PRODUCTION, MlflowClient, MlflowError
from app.clients.model_api import WITH_TOKENS
from app.registry.bundle import read_bundle
from app.registry.challenger import challenge, end_challenge
from app.registry.predictor import Predictions, Predictor, load_predictor
from app.registry.shadow_record import ShadowCounts, read
from app.runtime.waiting import wait_until
from app.testing.model_api import SETOSA, Example, metric, publish

Follow = Callable[..., TestClient]


def info(client: TestClient, name: str) -> dict[str, Any]:
    return client.get(f"/models/{name}").json()


def shadow(example: Example, predictor: Predictor | None = None, share: float = 1.0) -> Shadow:
    bundle = read_bundle(example.bundle)
    return Shadow("iris", "2", bundle, predictor or load_predictor(bundle), share, bundle)


class Broken:
    """A model that fails on every row."""

    def predict(self, rows: Any) -> Predictions:
        raise ZeroDivisionError("broken")


class Held:
    """A model that does not answer until it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()

    def predict(self, rows: Any) -> Predictions:
        self.begun.set()
        self.let_go.wait(60)
        return Predictions(["setosa"] * len(rows), None)


ROW = tuple(SETOSA.values())


def test_agreement_is_counted(examples: dict[str, Example]) -> None:
    one = shadow(examples["iris"])
    one.offer([ROW, ROW], ["setosa", "virginica"], 0)
    one.work()
    assert (one.counts.agree, one.counts.disagree, one.counts.failed, one.counts.dropped) == (1, 1, 0, 0)
    assert one.buckets()[-1] == ("+Inf", 1)


def test_values_of_a_regression_agree_within_a_tenth_of_the_range(examples: dict[str, Example]) -> None:
    one = shadow(examples["diabetes"])
    rows = [tuple(row.values()) for row in examples["diabetes"].rows(3)]
    values = list(map(float, load_predictor(one.bundle).predict(rows).labels))
    allowed = tolerance(one.bundle)
    assert allowed is not None
    assert allowed == pytest.approx(0.1 * (346 - 25))  # the diabetes data's largest and smallest target
    one.offer(rows, [values[0], values[1] + 0.9 * allowed, values[2] - 1.1 * allowed], 0)
    one.work()
    assert (one.counts.agree, one.counts.disagree) == (2, 1)


def test_a_share_of_the_batches_is_copied(examples: dict[str, Example]) -> None:
    one = shadow(examples["iris"], share=0.25)
    for _ in range(100):
        one.offer([ROW], ["setosa"], 0)
    one.work()
    assert one.counts.agree == 25


def test_a_challenger_that_fails_is_counted(examples: dict[str, Example], caplog: pytest.LogCaptureFixture) -> None:
    one = shadow(examples["iris"], Broken())  # type: ignore[arg-type]
    for _ in range(3):
        one.offer([ROW], ["setosa"], 0)
    one.work()
    assert (one.counts.agree, one.counts.disagree, one.counts.failed) == (0, 0, 3)
    assert caplog.text.count("version 2 of iris, failed") == 1


def test_true_labels_say_which_of_both_was_right(
    examples: dict[str, Example], caplog: pytest.LogCaptureFixture
) -> None:
    one = shadow(examples["iris"], share=0.001)  # whatever the share
    production = ["setosa", "virginica", "setosa", "virginica"]
    one.offer_truths([ROW] * 4, production, ["setosa", "setosa", "virginica", "virginica"], 0)  # it predicts setosa
    one.work()
    counts = one.counts
    right = counts.both_right, counts.challenger_right, counts.production_right, counts.neither_right
    assert right == (1, 1, 1, 1)
    assert counts.rows == 0, "the rows were offered before, when they were predicted"
    broken = shadow(examples["iris"], Broken())  # type: ignore[arg-type]
    broken.offer_truths([ROW] * 2, ["setosa", "virginica"], ["setosa", "setosa"], 0)
    broken.work()
    assert (broken.counts.production_right, broken.counts.neither_right) == (1, 1)
    assert "version 2 of iris, failed" in caplog.text


def test_true_values_say_how_far_both_were_off(examples: dict[str, Example]) -> None:
    one = shadow(examples["diabetes"])
    rows = [tuple(row.values()) for row in examples["diabetes"].rows(2)]
    own = list(map(float, load_predictor(one.bundle).predict(rows).labels))
    one.offer_truths(rows, [own[0] + 1, own[1] + 2], [own[0] + 4, own[1] + 4], 0)
    one.work()
    assert one.counts.labels == 2
    assert one.counts.challenger_error == pytest.approx(8)
    assert one.counts.production_error == pytest.approx(5)
    broken = shadow(examples["diabetes"], Broken())  # type: ignore[arg-type]
    broken.offer_truths(rows, own, own, 0)
    broken.work()
    assert broken.counts == ShadowCounts()


def test_what_does_not_fit_is_dropped(examples: dict[str, Example]) -> None:
    one = shadow(examples["iris"])
    for _ in range(MAX_ROWS_WAITING + 5):
        one.offer([ROW], ["setosa"], 0)
    assert one.counts.dropped == 5
    one.offer([ROW], ["setosa"], 2**30)
    assert one.counts.dropped == 6


def test_answers_do_not_wait_for_the_challenger(
    mlflow: MlflowClient, follow: Follow, model_name: str, examples: dict[str, Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(mlflow, model_name, examples["iris"].bundle)
    second = publish(mlflow, model_name, examples["iris"].bundle, promote=False)
    held = Held()
    monkeypatch.setattr("app.api.following.load_predictor", lambda bundle: held)
    challenge(mlflow, model_name, second, 1.0)
    client = follow()
    wait_until(lambda: info(client, model_name).get("challenger"))
    client.get("/predict", params=SETOSA)
    assert held.begun.wait(60)
    for _ in range(20):  # while the challenger predicts the first
        assert client.get("/predict", params=SETOSA).json()["prediction"] == "setosa"
    assert info(client, model_name)["challenger"]["agree"] == 0
    held.let_go.set()
    wait_until(lambda: info(client, model_name)["challenger"]["agree"] == 21)


def test_a_challenger_comes_counts_and_goes(
    mlflow: MlflowClient, follow: Follow, model_name: str, examples: dict[str, Example], permuted: Example
) -> None:
    first = publish(mlflow, model_name, examples["iris"].bundle)
    second = publish(mlflow, model_name, permuted.bundle, promote=False)
    client = follow()
    wait_until(lambda: info(client, model_name).get("version") == first)
    assert info(client, model_name)["challenger"] is None
    challenge(mlflow, model_name, second, 1.0)
    wait_until(lambda: info(client, model_name)["challenger"])
    answer = client.get("/predict", params=SETOSA).json()
    assert (answer["prediction"], answer["version"]) == ("setosa", first)
    client.post("/predict", json=[SETOSA] * 500)  # in a thread
    wait_until(lambda: info(client, model_name)["challenger"]["disagree"] == 501)
    labels = {"model": model_name, "version": second}
    assert metric(client, "mlops_challenger_rows_total", agreement="disagree", **labels) == 501
    assert metric(client, "mlops_challenger_rows_total", agreement="agree", **labels) == 0
    assert metric(client, "mlops_challenger_dropped_rows_total", **labels) == 0
    assert (metric(client, "mlops_challenger_duration_seconds_count", **labels) or 0) >= 3
    challenge(mlflow, model_name, second, 0.5)
    wait_until(lambda: info(client, model_name)["challenger"]["share"] == 0.5)
    mlflow.set_alias(model_name, PRODUCTION, second)
    wait_until(lambda: info(client, model_name)["version"] == second)
    wait_until(lambda: info(client, model_name)["challenger"] is None)
    assert metric(client, "mlops_challenger_rows_total", **labels) is None
    mlflow.set_alias(model_name, PRODUCTION, first)
    wait_until(lambda: info(client, model_name)["challenger"])
    end_challenge(mlflow, model_name)
    wait_until(lambda: info(client, model_name)["challenger"] is None)


def test_labels_grade_both_and_the_counts_outlive_the_replicas(
    mlflow: MlflowClient, follow: Follow, model_name: str, examples: dict[str, Example], permuted: Example
) -> None:
    first = publish(mlflow, model_name, examples["iris"].bundle)
    second = publish(mlflow, model_name, permuted.bundle, promote=False)
    challenge(mlflow, model_name, second, 1.0)
    client = follow()
    wait_until(lambda: info(client, model_name).get("challenger"))
    answer = client.get("/predict", params=SETOSA, headers=WITH_TOKENS).json()
    for label in ("setosa", "setosa", "virginica"):  # the second is not counted again; permuted says virginica
        client.post("/feedback", json={"feedback_token": answer["feedback_token"], "label": label}).raise_for_status()
    row = {"model": model_name, "version": first, "features": SETOSA, "label": "setosa"}
    other = {**row, "version": second}  # production's answer to it is no prediction of version 2
    client.post("/feedback", json=[row, row, other]).raise_for_status()
    wanted = {"both": 0, "challenger": 1, "production": 3, "neither": 0}
    wait_until(lambda: info(client, model_name)["challenger"]["right_on_feedback"] == wanted)
    labels = {"model": model_name, "version": second}
    assert metric(client, "mlops_challenger_feedback_total", right="production", **labels) == 3
    wait_until(lambda: info(client, model_name)["challenger"]["disagree"] == 1)
    wait_until(lambda: read(mlflow, model_name, second, first).rows)  # the first counts are written at once
    client.__exit__(None, None, None)
    counts = ShadowCounts(disagree=1, challenger_right=1, production_right=3)
    assert read(mlflow, model_name, second, first) == counts

    another = follow()
    wait_until(lambda: info(another, model_name).get("challenger"))
    another.post("/predict", json=[SETOSA] * 5)
    wait_until(lambda: info(another, model_name)["challenger"]["disagree"] == 5)
    end_challenge(mlflow, model_name)
    wait_until(lambda: read(mlflow, model_name, second, first).disagree == 6)
    assert read(mlflow, model_name, second, "9") == ShadowCounts(), "of another version in production"


def test_the_gates_alias_alone_starts_nothing(
    mlflow: MlflowClient, follow: Follow, model_name: str, examples: dict[str, Example]
) -> None:
    publish(mlflow, model_name, examples["iris"].bundle)
    checked = publish(mlflow, model_name, examples["iris"].bundle, promote=False)
    tried = publish(mlflow, model_name, examples["iris"].bundle, promote=False)
    mlflow.set_alias(model_name, CHALLENGER, checked)
    client = follow()
    wait_until(lambda: client.get("/readyz").status_code == 200)
    challenge(mlflow, model_name, tried, 1.0)
    wait_until(lambda: info(client, model_name)["challenger"])
    mlflow.set_alias(model_name, CHALLENGER, checked)
    wait_until(lambda: info(client, model_name)["challenger"] is None)


def test_a_challenger_that_cannot_be_compared_stays_out(
    mlflow: MlflowClient,
    follow: Follow,
    model_name: str,
    examples: dict[str, Example],
    narrow: Example,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = publish(mlflow, model_name, examples["iris"].bundle)
    other = publish(mlflow, model_name, narrow.bundle, promote=False)
    challenge(mlflow, model_name, other, 1.0)
    client = follow()
    wait_until(lambda: info(client, model_name).get("challenger_failure"))
    found = info(client, model_name)
    assert (found["version"], found["challenger"], found["last_failure"]) == (first, None, None)
    assert found["challenger_failure"]["version"] == other
    assert found["challenger_failure"]["reason"].startswith("its features are petal_length (double); production's")
    assert metric(client, "mlops_challenger_load_failures_total", model=model_name, version=other) == 1
    assert f"the challenger, version {other} of {model_name}, stays out" in caplog.text
    assert client.get("/predict", params=SETOSA).json()["prediction"] == "setosa"
    end_challenge(mlflow, model_name)
    wait_until(lambda: info(client, model_name)["challenger_failure"] is None)


def test_only_another_version_beside_one_in_production_can_challenge(
    mlflow: MlflowClient, model_name: str, examples: dict[str, Example]
) -> None:
    version = publish(mlflow, model_name, examples["iris"].bundle, promote=False)
    with pytest.raises(MlflowError, match=f"mlops promote {model_name}"):
        challenge(mlflow, model_name, version, 1.0)
    mlflow.set_alias(model_name, PRODUCTION, version)
    with pytest.raises(MlflowError, match="is in production: name another one"):
        challenge(mlflow, model_name, version, 1.0)
    with pytest.raises(ValueError, match="the share 2 is not"):
        challenge(mlflow, model_name, version, 2)
