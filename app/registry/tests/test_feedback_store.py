from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three files are many."""
    monkeypatch.setattr(feedback_store, "COMPACT_AT", 3)


class Counting(MlflowClient):
    """Counts the files that are read, and does something before the one that is written next."""

    reads = 0
    before_write: Iterator[None] = iter(())

    def read_artifact(self, path: str, limit: int | None = None) -> bytes:
        self.reads += 1
        return super().read_artifact(path, limit)

    def write_artifact(self, path: str, content: bytes) -> None:
        next(self.before_write, None)
        super().write_artifact(path, content)


def store_rows(registry: MlflowClient, model: str, count: int, start: int = 0) -> None:
    for i in range(start, start + count):
        feedback_store.store(registry, model, [row(f"id-{i}", i, i)])


def labels(registry: MlflowClient, model: str) -> list[object]:
    return [r["label"] for r in feedback_store.read(registry, model)]


def test_compacted_feedback_is_read_in_one_file_and_is_the_same(registry: MlflowClient, few: None) -> None:
    model = f"m{uuid4().hex}"
    store_rows(registry, model, 2)
    assert feedback_store.compact(registry, model) == 0
    store_rows(registry, model, 10, start=2)
    before = feedback_store.read(registry, model)
    assert feedback_store.compact(registry, model) == 1
    assert feedback_store.compact(registry, model) == 0
    with Counting(registry.uri) as counting:
        assert feedback_store.read(counting, model) == before
        assert counting.reads == 1
    store_rows(registry, model, 1, start=12)
    feedback_store.store(registry, model, [row("id-3", 99, "corrected")])
    assert labels(registry, model) == [0, 1, 2, *range(4, 13), "corrected"]


def test_large_files_are_not_made_larger(registry: MlflowClient, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback_store, "MAX_FILE", 150)
    model = f"m{uuid4().hex}"
    store_rows(registry, model, 5)
    feedback_store.compact(registry, model)
    with Counting(registry.uri) as counting:
        assert [r["label"] for r in feedback_store.read(counting, model)] == [0, 1, 2, 3, 4]
        assert 1 < counting.reads < 5


def test_what_is_stored_while_its_run_is_compacted_is_not_lost(registry: MlflowClient, few: None) -> None:
    """The writer has looked its run up, then the run is closed and compacted, and only then the file arrives."""
    model = f"m{uuid4().hex}"
    store_rows(registry, model, 3)

    def compacted() -> Iterator[None]:
        feedback_store.compact(registry, model)
        yield

    with Counting(registry.uri) as slow:
        slow.before_write = compacted()
        feedback_store.store(slow, model, [row("late", 50, "late")])
    assert labels(registry, model) == [0, 1, 2, "late"]


@pytest.mark.parametrize("killed_at", ["closed", "written"])
def test_a_compaction_that_was_killed_loses_nothing_and_is_done_by_the_next(
    registry: MlflowClient, few: None, killed_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = f"m{uuid4().hex}"
    store_rows(registry, model, 4)
    log = MlflowClient.log

    def killed(self: MlflowClient, run_id: str, **values: dict[str, str]) -> None:
        if killed_at == "written" and feedback_store.COMPACTED_TAG in values["tags"]:
            raise KeyboardInterrupt
        log(self, run_id, **values)  # type: ignore[arg-type]
        if killed_at == "closed":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log", killed)
        with pytest.raises(KeyboardInterrupt):
            feedback_store.compact(registry, model)
    assert labels(registry, model) == [0, 1, 2, 3]
    store_rows(registry, model, 1, start=4)
    assert feedback_store.compact(registry, model) == 1
    assert labels(registry, model) == [0, 1, 2, 3, 4]


def test_a_half_file_is_not_compacted_and_keeps_nothing_out(
    registry: MlflowClient, few: None, caplog: pytest.LogCaptureFixture
) -> None:
    model = f"m{uuid4().hex}"
    path = feedback_store.store(registry, model, [row("a", 1, "a")])
    store_rows(registry, model, 2)
    content = feedback_store.encode([row("half", 9, "half")])
    registry.write_artifact(f"{path.rsplit('/', 1)[0]}/{feedback_store.name(content)}", content[:20])
    assert feedback_store.compact(registry, model) == 1
    assert "not whole" in caplog.text
    assert labels(registry, model) == [0, "a", 1]


def test_many_writers_and_compactions_at_once_keep_every_row_once(registry: MlflowClient, few: None) -> None:
    model, writers, each = f"m{uuid4().hex}", 4, 12
    stopping = threading.Event()

    def write(number: int) -> None:
        with MlflowClient(registry.uri, timeout=60) as client:
            store_rows(client, model, each, start=number * each)

    def compact() -> None:
        with MlflowClient(registry.uri, timeout=60) as client:
            while not stopping.is_set():
                feedback_store.compact(client, model)

    with ThreadPoolExecutor(writers + 2) as pool:
        compactions = [pool.submit(compact) for _ in range(2)]
        for writing in [pool.submit(write, number) for number in range(writers)]:
            writing.result()
        assert labels(registry, model) == list(range(writers * each))  # read while they are at it
        stopping.set()
        for compaction in compactions:
            compaction.result()
    assert labels(registry, model) == list(range(writers * each))
    assert len(registry.search_runs("feedback", {"mlops.model": model})) > 1
