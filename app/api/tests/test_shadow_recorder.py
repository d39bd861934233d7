"""What a replica counted of its challengers reaches MLflow, whatever MLflow does meanwhile."""

from __future__ import annotations

import pytest

from app.api.shadow import Shadow
from app.api.shadow_recorder import ShadowRecorder
from app.clients.mlflow import MlflowClient
from app.registry import shadow_record
from app.registry.bundle import read_bundle
from app.registry.feedback_store import EXPERIMENT
from app.registry.ledger import SEQUENCE_TAG, ensure_model
from app.registry.predictor import load_predictor
from app.registry.shadow_record import Beside, ShadowCounts
from app.testing.model_api import SETOSA, Example, absent_mlflow

ROW = tuple(SETOSA.values())


@pytest.fixture
def beside(mlflow: MlflowClient, model_name: str) -> Beside:
    """Version 2 of a model beside version 1."""
    return Beside(model_name, "2", "1", ensure_model(mlflow, model_name).tags[SEQUENCE_TAG])


@pytest.fixture
def shadow(examples: dict[str, Example]) -> Shadow:
    """A challenger that agrees."""
    bundle = read_bundle(examples["iris"].bundle)
    return Shadow("iris", "2", bundle, load_predictor(bundle), 1.0, bundle)


def predict(shadow: Shadow, rows: int) -> None:
    shadow.offer([ROW] * rows, ["setosa"] * rows, 0)
    shadow.work()


def stored(mlflow: MlflowClient, beside: Beside) -> ShadowCounts:
    return shadow_record.read(mlflow, beside.model, beside.version, beside.production)


def runs(mlflow: MlflowClient, beside: Beside) -> list[str]:
    return [run.run_id for run in mlflow.search_runs(EXPERIMENT, {"mlops.model": beside.model})]


def test_counts_are_written_when_mlflow_is_back(
    mlflow: MlflowClient, beside: Beside, shadow: Shadow, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = ShadowRecorder(absent_mlflow())
    recorder.follow(shadow, beside)
    recorder.write()
    assert not caplog.text, "there is nothing to write yet"
    predict(shadow, 3)
    for _ in range(3):
        recorder.write()
    assert caplog.text.count("cannot be written to MLflow, and will be later") == 1
    recorder.registry = mlflow
    recorder.write()
    assert stored(mlflow, beside) == ShadowCounts(agree=3)


def test_counts_are_written_now_and_then_and_when_it_has_ended(
    mlflow: MlflowClient, beside: Beside, shadow: Shadow
) -> None:
    recorder = ShadowRecorder(mlflow)
    recorder.follow(shadow, beside)
    predict(shadow, 1)
    recorder.write()
    predict(shadow, 1)
    recorder.write()
    assert stored(mlflow, beside).agree == 1, "a write in 10 seconds is enough"
    recorder.write(now=True)
    assert stored(mlflow, beside).agree == 2
    predict(shadow, 1)
    shadow.stop()
    recorder.write()
    assert stored(mlflow, beside) == ShadowCounts(agree=3)
    assert len(runs(mlflow, beside)) == 1


def test_a_run_that_was_deleted_is_begun_anew(mlflow: MlflowClient, beside: Beside, shadow: Shadow) -> None:
    recorder = ShadowRecorder(mlflow)
    recorder.follow(shadow, beside)
    predict(shadow, 1)
    recorder.write()
    (run,) = runs(mlflow, beside)
    mlflow._post("runs/delete", {"run_id": run})
    predict(shadow, 1)
    recorder.write(now=True)
    recorder.write(now=True)
    assert stored(mlflow, beside) == ShadowCounts(agree=2)


def test_another_model_of_the_same_name_begins_with_nothing(
    mlflow: MlflowClient, beside: Beside, shadow: Shadow
) -> None:
    recorder = ShadowRecorder(mlflow)
    recorder.follow(shadow, beside)
    predict(shadow, 1)
    recorder.write()
    mlflow.set_model_tag(beside.model, SEQUENCE_TAG, "of one that was made anew")
    assert stored(mlflow, beside) == ShadowCounts()


def test_what_is_no_count_is_not_added() -> None:
    counts = ShadowCounts(agree=1)
    counts.add({"agree": 2.0, "disagree": float("nan"), "failed": -3.0, "challenger_error": 0.5, "other": 7.0})
    assert counts == ShadowCounts(agree=3, challenger_error=0.5)
