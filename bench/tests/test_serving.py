"""Servers are started, measured in turns and stopped; those that cannot be are named."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import psutil
import pytest

from app.runtime.processes import free_port
from app.runtime.waiting import wait_until
from bench import report, serving, targets
from bench.load import Request
from bench.models import Iris
from bench.servers import NotMeasured, Server, cause
from bench.serving import CASES, QUICK, measure, requests
from bench.targets import TARGETS, Launch, Target

BY_NAME = {target.name: target for target in TARGETS}


@pytest.fixture
def iris(tmp_path: Path) -> Iris:
    """Rows alone: servers that have no model do not ask for it."""
    columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    rows = [[5.0 + i / 100, 3.5, 1.4, 0.2] for i in range(150)]
    return Iris(columns, rows, tmp_path, tmp_path, "", "")


class Broken(Target):
    """A peer whose lock is another one."""

    @property
    def lock(self) -> Path:
        return Path(self.locked)


def broken_peer(lock: Path) -> Target:
    lock.write_text(f"nothing @ {(lock.parent / 'nothing-1.0-py3-none-any.whl').as_uri()} --hash=sha256:{'0' * 64}\n")
    return Broken("broken", "Broken", (), targets.script("asgi_hello.py"), "/", targets.records, locked=str(lock))


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed (apt-get install wrk)")
def test_what_can_be_measured_is_and_the_rest_is_named(
    iris: Iris, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "ENVIRONMENTS", tmp_path / "environments")
    fails = Target("fails", "Fails", (), lambda start: start.python("-c", "import nothing"), "/", targets.records)
    told: list[str] = []
    chosen = [broken_peer(tmp_path / "bench-broken.txt"), fails, BY_NAME["asgi"], BY_NAME["fastapi"]]
    results = measure(chosen, iris, QUICK, tmp_path, told.append)
    broken, failed, *hellos = results
    assert broken.reason.startswith("error: "), broken.reason
    assert "nothing" in broken.reason
    assert failed.reason == "ModuleNotFoundError: No module named 'nothing'"
    for hello in hellos:
        assert hello.reason == ""
        (measured,) = hello.rounds
        assert set(measured.loads) == set(CASES)
        assert all(load.rate > 0 and load.failed == 0 for load in measured.loads.values())
        assert measured.start > 0
        assert measured.memory > 10
        assert bool(measured.at_rate) == hello.target.has_rate
    table = report.table(results)
    assert f"| not measured: {broken.reason}" in table
    assert "| not measured: ModuleNotFoundError: No module named 'nothing'" in table
    assert told[-1] == "FastAPI, a constant: round 1 of 1"


def test_a_server_that_answers_something_else_is_not_measured(
    iris: Iris, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "FIRST_FLOWER", "virginica")
    (result,) = measure([BY_NAME["asgi"]], iris, QUICK, tmp_path, lambda text: None)
    assert result.reason == 'it answers 200 {"prediction":"setosa"}'
    assert result.rounds == []


def test_all_processes_of_a_server_end_with_it(tmp_path: Path) -> None:
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
    child += " start_new_session=True); time.sleep(600)"
    server = Server("parent", [sys.executable, "-c", child], {}, free_port(), tmp_path)
    try:
        (process,) = wait_until(lambda: server.process.children(recursive=True), 30)
        alone = server.process.memory_info().rss / 1e6
        assert server.memory() > alone
    finally:
        server.stop()
    assert not process.is_running()
    assert not psutil.pid_exists(server.child.process.pid)


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    server = Server("ends", [sys.executable, "-c", "raise SystemExit('error: no room')"], {}, free_port(), tmp_path)
    try:
        with pytest.raises(NotMeasured, match=r"^error: no room$"):
            server.answer(Request("/", b"{}"), "")
    finally:
        server.stop()


def test_the_cause_is_the_last_error() -> None:
    assert cause(["Traceback", "  File x", "a.b.SomeError: first", "ValueError: last", "Shutting down"]) == (
        "ValueError: last"
    )
    assert cause(["no model", ""]) == "no model"
    assert cause([]) == "it ended without a word"


def test_requests_differ_and_have_the_rows_they_should(iris: Iris) -> None:
    asked = requests(BY_NAME["mlserver"], iris, 100)
    assert len(asked) == len({request.body for request in asked}) == serving.DIFFERENT
    assert b'"shape":[100,4]' in asked[0].body
    assert requests(BY_NAME["fastapi"], iris, 100)[0].path == "/predict/rows"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_server_has_a_lock_with_the_packages_that_are_told(target: Target) -> None:
    assert target.lock.is_file()
    assert target.versions().count(" ") >= len(target.packages)


def test_a_start_is_a_command_and_its_environment(iris: Iris, tmp_path: Path) -> None:
    start = targets.Start(tmp_path, iris, 1, tmp_path)
    assert start.python("-m", "x", A="b") == Launch([str(tmp_path / "python"), "-m", "x"], {"A": "b"})
