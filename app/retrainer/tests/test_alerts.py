"""Alerts in, flow runs out: against a real Prefect server."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.retrainer.decision import Policy
from app.retrainer.main import MAX_BODY, create_app
from app.retrainer.settings import RetrainerSettings
from app.runtime.processes import ChildProcess, Server, free_port, wait_for_url
from app.runtime.waiting import wait_until
from app.testing.proxy import FaultyProxy, serving
from app.testing.retrainer import AUTHORIZED, TOKEN, Trainings, alert, notification

STORM = 50


class Caller:
    """The retrainer, and the time that it believes in."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.retrainer = client.app.state.retrainer  # type: ignore[attr-defined]
        self.ahead = timedelta()
        self.retrainer.clock = lambda: datetime.now(UTC) + self.ahead

    def send(self, *alerts: dict[str, Any]) -> httpx.Response:
        return self.client.post("/alerts", json=notification(*alerts), headers=AUTHORIZED)

    def outcome(self, *alerts: dict[str, Any]) -> str:
        answer = self.send(*alerts)
        assert answer.status_code == 200, answer.text
        (decision,) = answer.json()["decisions"]
        return str(decision["outcome"])

    def metric(self, name: str, **labels: str) -> float | None:
        shown = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        wanted = f"{name}{{{shown}}}" if shown else name
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(f"{wanted} ")), None)


@pytest.fixture
def caller(trainings: Trainings) -> Iterator[Caller]:
    with TestClient(create_app()) as client:
        yield Caller(client)


def test_a_firing_alert_starts_one_run_that_names_it(
    caller: Caller, trainings: Trainings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlops.retrainer")
    trainings.deploy()
    answer = caller.send(alert(trainings.model, "petal_width"), alert(trainings.model, "petal_length"))
    assert answer.status_code == 200
    (run,) = trainings.runs()
    assert run.parameters == {
        "model": trainings.model,
        "feedback": True,
        "only_if_better": True,
        "who": "retrainer",
        "cause": "FeatureDrift petal_length, petal_width since 2026-01-01T10:00:00Z",
    }
    assert run.state == "SCHEDULED"
    assert set(run.tags) == {"retrainer", f"model:{trainings.model}"}
    assert caller.metric("mlops_retrain_total", model=trainings.model, outcome="started") == 1
    (line,) = caplog.messages
    assert run.id in line
    assert "FeatureDrift petal_length" in line


def test_what_wants_no_retraining_starts_none(caller: Caller, trainings: Trainings) -> None:
    trainings.deploy()
    answer = caller.send(
        alert(trainings.model, status="resolved"),
        alert(trainings.model, action="page"),
        alert(""),
    )
    assert (answer.status_code, answer.json()) == (200, {"decisions": []})
    assert caller.send().json() == {"decisions": []}
    assert trainings.runs() == []


def test_an_hour_without_drift_starts_nothing(caller: Caller, trainings: Trainings) -> None:
    """Alertmanager says every minute that the alert of before is over; the schedule's runs lie ahead."""
    trainings.deploy()
    for minute in range(60):
        caller.ahead = timedelta(minutes=minute)
        assert caller.send(alert(trainings.model, status="resolved")).status_code == 200
    assert trainings.runs() == []


def test_a_model_that_prefect_does_not_know_is_acknowledged_and_told_of(
    caller: Caller, trainings: Trainings, caplog: pytest.LogCaptureFixture
) -> None:
    assert caller.outcome(alert(trainings.model)) == "unknown_model"
    assert f"no deployment train/{trainings.model}" in caplog.text
    assert caller.outcome(alert("../../admin\nx")) == "unknown_model"


def test_a_training_under_way_counts_whoever_started_it(caller: Caller, trainings: Trainings) -> None:
    run = trainings.start(trainings.deploy())
    assert caller.outcome(alert(trainings.model)) == "running"
    trainings.end(run, "COMPLETED")
    assert caller.outcome(alert(trainings.model)) == "started"
    assert caller.outcome(alert(trainings.model)) == "running"
    assert len(trainings.runs()) == 2


def test_runs_of_the_schedule_that_lie_ahead_do_not_count(caller: Caller, trainings: Trainings) -> None:
    trainings.start(trainings.deploy(), at=datetime.now(UTC) + timedelta(days=5))
    assert caller.outcome(alert(trainings.model)) == "started"


def test_the_cooldown_doubles_while_retrainings_fail_and_says_when_the_next_may_be(
    caller: Caller, trainings: Trainings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlops.retrainer")
    trainings.deploy()
    caller.retrainer.policy = Policy(3600, 3600 * 5, 100)
    for number, hours in enumerate((2, 4, 5, 5), start=1):
        assert caller.outcome(alert(trainings.model)) == "started"
        assert len(trainings.runs()) == number
        trainings.end(trainings.runs()[0].id, "CRASHED")
        caller.ahead = timedelta()
        caplog.clear()
        assert caller.outcome(alert(trainings.model)) == "cooldown"
        assert "as crashed" in caplog.text
        assert f"cooldown of {hours * 3600} s; next: 20" in caplog.text
        assert caller.metric("mlops_retrain_cooldown_seconds", model=trainings.model) == hours * 3600
        caller.ahead = timedelta(hours=hours)


def test_the_daily_cap(caller: Caller, trainings: Trainings) -> None:
    trainings.deploy()
    caller.retrainer.policy = Policy(0, 0, 3)
    for _ in range(3):
        assert caller.outcome(alert(trainings.model)) == "started"
        trainings.end(trainings.runs()[0].id, "COMPLETED")
    answer = caller.send(alert(trainings.model)).json()["decisions"][0]
    assert answer["outcome"] == "capped"
    assert "the cap is 3" in answer["reason"]
    caller.ahead = timedelta(hours=25)
    assert caller.outcome(alert(trainings.model)) == "started"


def test_a_dry_run_counts_and_starts_nothing(trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_RETRAINER_DRY_RUN", "true")
    trainings.deploy()
    with TestClient(create_app()) as client:
        caller = Caller(client)
        assert [caller.outcome(alert(trainings.model)) for _ in range(2)] == ["dry_run", "dry_run"]
        assert caller.metric("mlops_retrain_total", model=trainings.model, outcome="dry_run") == 2
    assert trainings.runs() == []


def test_a_storm_on_two_replicas_is_one_run(trainings: Trainings, tmp_path: Path) -> None:
    trainings.deploy()
    urls, replicas = [], []
    try:
        for number in range(2):
            port = free_port()
            command = [sys.executable, "-m", "app.retrainer"]
            replicas.append(ChildProcess(f"retrainer-{number}", command, {"MLOPS_RETRAINER_PORT": str(port)}, tmp_path))
            urls.append(f"http://127.0.0.1:{port}")
        for url, replica in zip(urls, replicas, strict=True):
            assert wait_for_url(f"{url}/readyz", 60), replica.tail()
        body = notification(alert(trainings.model))

        def send(number: int) -> httpx.Response:
            return httpx.post(f"{urls[number % 2]}/alerts", json=body, headers=AUTHORIZED, timeout=60)

        with ThreadPoolExecutor(STORM) as pool:
            answers = list(pool.map(send, range(STORM)))
        assert {answer.status_code for answer in answers} == {200}
        outcomes = [answer.json()["decisions"][0]["outcome"] for answer in answers]
        assert (outcomes.count("started"), outcomes.count("running")) == (1, STORM - 1)
        assert len(trainings.runs()) == 1
    finally:
        for replica in replicas:
            replica.stop()


class Losing(FaultyProxy):
    """Prefect, whose answer to the first `create_flow_run` is lost on the way."""

    lost = False

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes] | None:
        said = super().answer(method, path, body, headers)
        if path.endswith("/create_flow_run") and not self.lost:
            self.lost = True
            return 502, "text/plain", b"bad gateway"
        return said


def test_a_lost_answer_is_asked_for_again_and_is_one_run(
    trainings: Trainings, prefect_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings.deploy()
    with serving(Losing(behind=prefect_server.uri)) as peer:
        monkeypatch.setenv("PREFECT_API_URL", peer.url)
        with TestClient(create_app()) as client:
            caller = Caller(client)
            assert caller.send(alert(trainings.model)).status_code == 503
            assert caller.outcome(alert(trainings.model)) == "running"
    assert len(trainings.runs()) == 1


def test_prefect_away_is_a_503_and_nothing_is_lost(
    trainings: Trainings, prefect_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    trainings.deploy()
    with TestClient(create_app()) as client:
        caller = Caller(client)
        prefect_server.stop()
        answer = caller.send(alert(trainings.model))
        assert answer.status_code == 503
        assert "does not answer" in answer.json()["detail"]
        assert answer.headers["retry-after"]
        assert caller.metric("mlops_retrain_total", model=trainings.model, outcome="failed") == 1
        assert f"{trainings.model}: failed: Prefect at" in caplog.text
        assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
        prefect_server.start()
        assert caller.outcome(alert(trainings.model)) == "started"
    assert len(trainings.runs()) == 1


def test_mlflow_away_is_a_503_where_the_ledger_is_needed(trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = trainings.deploy()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with TestClient(create_app()) as client:
        caller = Caller(client)
        assert caller.outcome(alert(trainings.model)) == "started"
        trainings.end(trainings.runs()[0].id, "COMPLETED")
        answer = caller.send(alert(trainings.model))
        assert answer.status_code == 503
        assert "MLflow" in answer.json()["detail"]
    assert deployment


def test_one_model_that_cannot_be_asked_about_does_not_keep_the_others_waiting(
    trainings: Trainings, prefect_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings.deploy()
    with serving(FaultyProxy(behind=prefect_server.uri, answers={"/deployments/name/train/aaa": (500, "no")})) as peer:
        monkeypatch.setenv("PREFECT_API_URL", peer.url)
        with TestClient(create_app()) as client:
            assert Caller(client).send(alert("aaa"), alert(trainings.model)).status_code == 503
    assert len(trainings.runs()) == 1


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer  {TOKEN}", "Bearer ü"],
)
def test_without_the_token_nothing_is_even_read(caller: Caller, trainings: Trainings, header: str | None) -> None:
    trainings.deploy()
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    for body in (b"{", b" " * (MAX_BODY + 1)):
        answer = caller.client.post("/alerts", content=body, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.text
    assert trainings.runs() == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": "3"}, ["body", "version"]),
        ({"status": "odd"}, ["body", "status"]),
        ({"alerts": None}, ["body", "alerts"]),
        ({"alerts": [{}]}, ["body", "alerts", 0, "labels"]),
        ({"alerts": [alert("iris", status="pending")]}, ["body", "alerts", 0, "status"]),
        ({"alerts": [{**alert("iris"), "startsAt": "yesterday"}]}, ["body", "alerts", 0, "startsAt"]),
        ({"alerts": [{**alert("iris"), "startsAt": "2026-01-01T00:00:00"}]}, ["body", "alerts", 0, "startsAt"]),
        ({"alerts": [{**alert("iris"), "labels": {"model": 7}}]}, ["body", "alerts", 0, "labels", "model"]),
        ({"alerts": [{**alert("iris"), "labels": {"model": "x" * 2001}}]}, ["body", "alerts", 0, "labels", "model"]),
    ],
)
def test_a_bad_payload_is_refused_by_field(caller: Caller, change: dict[str, Any], field: list[Any]) -> None:
    answer = caller.client.post("/alerts", json={**notification(), **change}, headers=AUTHORIZED)
    assert answer.status_code == 422
    assert field in [problem["loc"] for problem in answer.json()["detail"]]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"text"'])
def test_what_is_no_payload_is_refused(caller: Caller, body: bytes) -> None:
    assert caller.client.post("/alerts", content=body, headers=AUTHORIZED).status_code == 422


def test_a_body_over_a_mebibyte_is_refused_whether_it_says_so_or_not(caller: Caller) -> None:
    assert caller.client.post("/alerts", content=b" " * (MAX_BODY + 1), headers=AUTHORIZED).status_code == 413
    chunks = (b" " * 65536 for _ in range(17))
    assert caller.client.post("/alerts", content=chunks, headers=AUTHORIZED).status_code == 413


def test_line_breaks_in_labels_do_not_make_lines_in_the_log(
    caller: Caller, trainings: Trainings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlops.retrainer")
    trainings.deploy()
    caller.send(alert(trainings.model, "petal\nINFO forged"), alert("no\nsuch"))
    assert len(caplog.messages) == 2
    assert not [line for line in caplog.messages if "\n" in line]


def test_the_exporter_tells_of_runs_by_deployment(trainings: Trainings, prefect_server: Server) -> None:
    deployment, label = trainings.deploy(), f"train/{trainings.model}"
    for state in ("COMPLETED", "FAILED", "CRASHED", "COMPLETED"):
        trainings.end(trainings.start(deployment), state)
    trainings.start(deployment)
    app = create_app()
    with TestClient(app) as client:
        caller = Caller(client)
        assert wait_until(lambda: caller.metric("mlops_retrainer_prefect_up") == 1)
        for state, count in (("completed", 2), ("failed", 1), ("crashed", 1), ("scheduled", 1)):
            assert caller.metric("mlops_flow_runs", deployment=label, state=state) == count, state
        success = caller.metric("mlops_deployment_last_success_timestamp_seconds", deployment=label)
        failure = caller.metric("mlops_deployment_last_failure_timestamp_seconds", deployment=label)
        assert success
        assert failure
        assert 0 <= datetime.now(UTC).timestamp() - failure < 60
        assert failure < success
        assert caller.metric("mlops_flow_run_duration_seconds", deployment=label) is not None


def test_the_exporter_says_that_prefect_is_away_and_keeps_the_last_figures(
    trainings: Trainings, prefect_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings.end(trainings.start(trainings.deploy()), "COMPLETED")
    monkeypatch.setattr("app.retrainer.main.EXPORT_SECONDS", 0.2)
    label = f"train/{trainings.model}"
    with serving(FaultyProxy(behind=prefect_server.uri)) as peer:
        monkeypatch.setenv("PREFECT_API_URL", peer.url)
        with TestClient(create_app()) as client:
            caller = Caller(client)
            assert wait_until(lambda: caller.metric("mlops_retrainer_prefect_up") == 1)
            peer.answers["/"] = (503, "no")
            assert wait_until(lambda: caller.metric("mlops_retrainer_prefect_up") == 0)
            assert caller.metric("mlops_flow_runs", deployment=label, state="completed") == 1
            del peer.answers["/"]
            assert wait_until(lambda: caller.metric("mlops_retrainer_prefect_up") == 1)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TOKEN", "", "at least 16 characters"),
        ("TOKEN", "short", "at least 16 characters"),
        ("COOLDOWN_SECONDS", "-1", "greater than or equal to 0"),
        ("COOLDOWN_MAX_SECONDS", "60", "less than cooldown_seconds, which is 3600"),
        ("DAILY_CAP", "0", "greater than or equal to 1"),
        ("DRY_RUN", "perhaps", "MLOPS_RETRAINER_DRY_RUN"),
    ],
)
def test_bad_settings_stop_it_with_a_sentence(tmp_path: Path, name: str, value: str, said: str) -> None:
    environment = {"MLOPS_RETRAINER_TOKEN": TOKEN, f"MLOPS_RETRAINER_{name}": value}
    process = ChildProcess("retrainer", [sys.executable, "-m", "app.retrainer"], environment, tmp_path)
    assert process.process.wait(60) == 2
    assert said in process.tail()
    assert "Traceback" not in process.tail()
    assert TOKEN not in process.tail()


def test_the_token_is_not_shown_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_RETRAINER_TOKEN", TOKEN)
    assert TOKEN not in repr(RetrainerSettings())  # type: ignore[call-arg]
