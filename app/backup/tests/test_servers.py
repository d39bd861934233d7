"""MLflow and Prefect that are written to while they are backed up; restored into empty folders, all is compared."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.backup import databases
from app.backup.restore import restore
from app.backup.save import Job, save
from app.backup.store import FolderStore, backup_name
from app.clients.mlflow import MlflowClient
from app.registry import feedback_store
from app.runtime import processes
from app.runtime.processes import Server, free_port
from app.runtime.waiting import wait_until
from app.testing.mlflow_accounts import client_of
from app.testing.prefect import PrefectAdmin

NOW = datetime(2026, 11, 27, 2, 0, tzinfo=UTC)
NAME = backup_name("team.mlops", NOW)
Rows = dict[str, list[tuple[object, ...]]]


def rows(path: Path) -> Rows:
    """Every row of every table."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {t: sorted(connection.execute(f"SELECT * FROM {t}"), key=repr) for t in tables}  # noqa: S608


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def busy(write: Callable[[int], None]) -> Iterator[list[int]]:
    """Somebody who writes without a pause: the numbers of what was acknowledged. At least five are before the body."""
    done: list[int] = []
    stop, begun = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                write(len(done))
                done.append(len(done))
                if len(done) == 5:
                    begun.set()
        except BaseException as error:
            failures.append(error)
            begun.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(60)
    try:
        yield done
    finally:
        stop.set()
        thread.join()
    assert not failures, failures


def wait_for_more(done: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a save go on only when more was written: before its copy of a database, and after it."""
    original = databases.copy

    def more() -> None:
        so_far = len(done)
        wait_until(lambda: len(done) > so_far + 1, 60, "more is written")

    def copy(source: Path, target: Path) -> None:
        more()
        original(source, target)
        more()

    monkeypatch.setattr(databases, "copy", copy)


def feedback(number: int) -> dict[str, object]:
    values = {"features": {"width": 1.5}, "prediction": "setosa", "label": "setosa"}
    return {
        "id": f"p-{number}",
        "time": NOW.timestamp() + number,
        "model": "iris",
        "version": "1",
        **values,
    }


def test_all_that_mlflow_acknowledged_before_is_there_again(
    mlflow_with_accounts: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = mlflow_with_accounts.logs, tmp_path / "target"
    with client_of(mlflow_with_accounts, "admin") as registry:
        experiment = registry.ensure_experiment("backup")
        run = registry.create_run(experiment, "test", {})

        def write(number: int) -> None:
            feedback_store.store(registry, "iris", [feedback(number)])
            registry.log(run, metrics={f"m{number}": number})

        store = FolderStore(tmp_path / "kept")
        with busy(write) as done:
            before = len(done)
            wait_for_more(done, monkeypatch)
            saved = save(Job("mlflow", source, "team.mlops", NAME), store)
        after = registry.run(run)
    target.mkdir()
    restored = restore(store, NAME, "mlflow", target)
    assert restored.counts == {k: v for k, v in saved.contents.counts.items() if k != "artifact files"}
    assert restored.counts["users"] == 4
    copy = Server(
        "restored", *_server_on(target, tmp_path), "/health", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, tmp_path
    )
    copy.start()
    try:
        with MlflowClient(copy.uri, timeout=30) as registry:
            there = registry.run(run).metrics
            stored = {row["id"] for row in feedback_store.read(registry, "iris")}
    finally:
        copy.stop()
    assert {f"m{number}" for number in range(before)} <= there.keys()
    assert all(after.metrics[key] == value for key, value in there.items())
    assert {f"p-{number}" for number in range(before)} <= stored


def _server_on(folder: Path, logs: Path) -> tuple[list[str], str]:
    port = free_port()
    command, _ = processes.mlflow_server(port, folder)
    return command, f"http://127.0.0.1:{port}"


def test_of_a_server_that_rests_every_row_and_file_is_the_same(mlflow_with_accounts: Server, tmp_path: Path) -> None:
    with client_of(mlflow_with_accounts, "admin") as registry:
        feedback_store.store(registry, "iris", [feedback(0)])
        run = registry.create_run(registry.ensure_experiment("rest"), "test", {})
        registry.create_model("rest", {})
        version = registry.create_version("rest", run, registry.run(run).artifact_uri, {"code": "x"})
        registry.set_alias("rest", "production", version.version)
    store = FolderStore(tmp_path / "kept")
    save(Job("mlflow", mlflow_with_accounts.logs, "team.mlops", NAME), store)
    (target := tmp_path / "target").mkdir()
    restore(store, NAME, "mlflow", target)
    for database in ("mlflow.db", "basic_auth.db"):
        assert rows(target / database) == rows(mlflow_with_accounts.logs / database)
    assert files(target / "artifacts") == files(mlflow_with_accounts.logs / "artifacts")
    assert files(target / "artifacts")
    assert {path.name for path in target.iterdir()} == {"mlflow.db", "basic_auth.db", "artifacts"}


def test_all_that_prefect_acknowledged_before_is_there_again(
    prefect_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = prefect_server.logs / "home"
    store = FolderStore(tmp_path / "kept")
    with PrefectAdmin(prefect_server.uri) as prefect:
        deployment = prefect.deploy("backup", "test", {})
        made: list[str] = []

        def write(_: int) -> None:
            made.append(prefect.request("POST", f"/deployments/{deployment}/create_flow_run", {})["id"])

        with busy(write) as done:
            before = list(made)
            wait_for_more(done, monkeypatch)
            saved = save(Job("prefect", home, "team.mlops", NAME), store)
    (target := tmp_path / "target").mkdir()
    restored = restore(store, NAME, "prefect", target)
    assert restored.counts == saved.contents.counts
    there, original = rows(target / "prefect.db"), rows(home / "prefect.db")
    assert there.keys() == original.keys()
    with closing(sqlite3.connect(target / "prefect.db")) as connection:
        runs = {id for (id,) in connection.execute("SELECT id FROM flow_run")}
    assert set(before) <= {str(id) for id in runs}
    assert set(there["deployment"]) == set(original["deployment"])
