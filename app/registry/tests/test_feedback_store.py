from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clients.mlflow import MlflowClient, MlflowUnavailable
from app.registry import feedback_store
from app.runtime.processes import free_port


def row(token: str, time: float, label: object) -> dict:
    return {"id": token, "time": time, "model": "m", "version": "1", "features": {"a": 1.5}, "label": label}


text = st.text(st.characters(codec="utf-8"))
plain = text | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)


@given(rows=st.lists(st.fixed_dictionaries({"id": text, "label": plain})))
def test_what_is_encoded_is_decoded(rows: list[dict]) -> None:
    assert feedback_store.decode(feedback_store.encode(rows)) == rows


def test_a_name_fits_one_content_only() -> None:
    content = feedback_store.encode([row("a", 1, "x")])
    name = feedback_store.name(content)
    assert feedback_store.is_whole(name, content)
    assert not feedback_store.is_whole(name, content[:-1])
    assert not feedback_store.is_whole("notes.txt", content)
    assert feedback_store.name(content) != name


def test_nothing_is_read_where_nothing_was_stored(registry: MlflowClient) -> None:
    assert feedback_store.read(registry, f"m{uuid4().hex}") == []


def test_the_newest_label_of_a_prediction_wins_and_half_files_are_skipped(
    registry: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    model = f"m{uuid4().hex}"
    feedback_store.store(registry, model, [row("a", 1, "old"), row("b", 5, "new")])
    path = feedback_store.store(registry, model, [row("a", 2, "new"), row("b", 4, "old"), row("c", 3, "only")])
    other = feedback_store.store(registry, f"{model}x", [row("d", 1, "elsewhere")])
    assert path.rsplit("/", 1)[0] != other.rsplit("/", 1)[0]
    content = feedback_store.encode([row("a", 9, "half"), row("e", 9, "half")])
    registry.write_artifact(f"{path.rsplit('/', 1)[0]}/{feedback_store.name(content)}", content[: len(content) // 2])
    labels = {r["id"]: r["label"] for r in feedback_store.read(registry, model)}
    assert labels == {"a": "new", "b": "new", "c": "only"}
    assert "not whole" in caplog.text
    (run,) = registry.search_runs("feedback", {"mlops.kind": "feedback", "mlops.model": model})
    assert run.name == model


def test_rows_of_two_runs_of_a_model_are_read(registry: MlflowClient) -> None:
    """Two replicas may have made a run each, at the same moment."""
    model = f"m{uuid4().hex}"
    feedback_store.store(registry, model, [row("a", 1, 1)])
    experiment = registry.ensure_experiment("feedback")
    run = registry.create_run(experiment, model, {"mlops.kind": "feedback", "mlops.model": model})
    content = feedback_store.encode([row("b", 2, 2)])
    folder = registry.artifact_path(registry.run(run).artifact_uri)
    registry.write_artifact(f"{folder}/feedback/{feedback_store.name(content)}", content)
    assert [r["id"] for r in feedback_store.read(registry, model)] == ["a", "b"]


def test_a_store_that_is_away_is_an_error() -> None:
    with MlflowClient(f"http://127.0.0.1:{free_port()}") as nobody, pytest.raises(MlflowUnavailable):
        feedback_store.store(nobody, "m", [row("a", 1, 1)])
