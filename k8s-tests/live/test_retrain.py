"""The closed loop: drift fires an alert, the alert starts one training, the alert resolves; and nothing else does."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from namespace import wait_for
from release import ROOT, Platform, run
from runs import Runs, new_version, port_forward, registry_of, scale

from app.clients.mlflow import PRODUCTION, MlflowClient
from app.clients.prefect import FlowRun
from app.clients.prometheus import PrometheusClient
from app.registry.promotion import history
from app.testing.docs import shell_commands
from app.vocabulary import RETRAINER

STORM = 50
FIRING = 'ALERTS{{alertname="FeatureDrift",model="{model}",alertstate="firing"}}'
OTHER = "diabetes"  # which nobody sends requests, so that no real alert comes in between


def value(prometheus: PrometheusClient, expression: str) -> float | None:
    """The first value of a query; None where there is none."""
    return next((series.number for series in prometheus.query(expression)), None)


@contextmanager
def retrainer(platform: Platform, token: str) -> Iterator[httpx.Client]:
    """A client of the retrainer, through a port-forward; "": without a token."""
    with port_forward(platform, "retrainer", 8090) as port:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            yield client


def retrainings(runs: Runs, model: str) -> list[FlowRun]:
    """The runs that the retrainer started."""
    return runs.prefect.runs(tags=[RETRAINER, f"model:{model}"])


def forget(runs: Runs, model: str) -> None:
    """As on a new platform: no cooldown and no cap, which the retrainer reads off its former runs."""
    for old in retrainings(runs, model):
        if not old.is_over:
            runs.cancel(old.id)
        runs.prefect.request("DELETE", f"/flow_runs/{old.id}")


def notification(model: str) -> dict[str, Any]:
    """What Alertmanager sends when FeatureDrift fires now."""
    labels = {"alertname": "FeatureDrift", "action": "retrain", "model": model, "feature": "bmi"}
    now = datetime.now(UTC).isoformat()
    return {"version": "4", "status": "firing", "alerts": [{"status": "firing", "labels": labels, "startsAt": now}]}


class Stages:
    """Prints the time of each stage."""

    def __init__(self) -> None:
        self.begin = self.last = time.monotonic()

    def done(self, name: str, detail: str) -> None:
        """The stage has ended now."""
        now = time.monotonic()
        print(f"{name:10} {now - self.last:6.1f} s  {detail}")
        self.last = now


def fresh_version(platform: Platform, runs: Runs, prometheus: PrometheusClient, registry: MlflowClient) -> str:
    """A version of iris that has answered no request, in service everywhere; older feedback is deleted.

    Drift is that of the version in service, so what other tests sent does not count.
    """
    for old in registry.search_runs("feedback", {"mlops.kind": "feedback", "mlops.model": "iris"}):
        registry._post("runs/delete", {"run_id": old.run_id})
    version = new_version(platform, runs)
    registry.set_alias("iris", PRODUCTION, version)  # by hand: the gate would ask what production makes of it

    def missing() -> list[str]:
        """The pods for which Prometheus has another version; for minutes it may have pods, too, that are gone."""
        series = prometheus.query(f'mlops_model_info{{model="iris",version="{version}"}}')
        serving = {one.metric["pod"] for one in series}
        return [pod.metadata.name for pod in platform.pods("model-api") if pod.metadata.name not in serving]

    wait_for(lambda: not missing(), lambda: f"version {version} in service everywhere; not in {missing()}", 120)
    wait_for(lambda: not prometheus.query(FIRING.format(model="iris")), "alerts of the version before resolved", 300)
    return version


@pytest.mark.drill
def test_injected_drift_retrains_without_a_human_and_the_alert_resolves(
    platform: Platform, runs: Runs, prometheus: PrometheusClient
) -> None:
    (command,) = [line for line in shell_commands(ROOT / "docs" / "operations.md", "bash") if " mlops drift " in line]
    with registry_of(platform) as registry:
        before = fresh_version(platform, runs, prometheus, registry)
        forget(runs, "iris")
        stages = Stages()

        printed = run(shlex.split(command))
        assert f"answered by version {before} of iris" in printed, printed
        stages.done("inject", printed.splitlines()[-1])

        firing = wait_for(lambda: prometheus.query(FIRING.format(model="iris")), "FeatureDrift firing", 300)
        features = sorted(series.metric["feature"] for series in firing)
        stages.done("alert", f"FeatureDrift fires for {', '.join(features)}")

        (started,) = wait_for(lambda: retrainings(runs, "iris"), "the retrainer's run", 180)
        assert started.parameters["cause"].startswith("FeatureDrift ")
        assert started.parameters["who"] == "retrainer"
        stages.done("start", f"flow run {started.name}")

        jobs: set[str] = set()

        def ended() -> str:
            jobs.update(job.metadata.name for job in runs.jobs(started.id))
            current = runs.run(started.id)
            return str(current.state) if current.is_over else ""

        assert wait_for(ended, "the training's end", 300) == "COMPLETED", runs.logs(started.id)
        assert len(jobs) == 1, jobs
        stages.done("train", f"Job {jobs.pop()}")

        decision = next(d for d in history(registry, "iris", 20) if d.who == "retrainer")
        assert decision.cause == started.parameters["cause"]
        assert decision.outcome == "promoted", decision.reason  # it has the labels of what drifted
        stages.done("promote", f"version {decision.version}: {decision.reason}")

        resolved = f"version {decision.version} in service and the alert resolved"
        wait_for(lambda: not prometheus.query(FIRING.format(model="iris")), resolved, 300)
        stages.done("resolve", resolved)
    assert [run.id for run in retrainings(runs, "iris")] == [started.id], "one drift, one training"
    print(f"in all     {time.monotonic() - stages.begin:6.1f} s")


def test_a_storm_of_notifications_is_one_run(platform: Platform, runs: Runs) -> None:
    forget(runs, OTHER)
    with retrainer(platform, platform.credentials["retrainer-token"]) as client, ThreadPoolExecutor(STORM) as pool:
        answers = list(pool.map(lambda _: client.post("/alerts", json=notification(OTHER)), range(STORM)))
    (started,) = retrainings(runs, OTHER)
    runs.started.append(started.id)
    assert {answer.status_code for answer in answers} == {200}
    outcomes = [answer.json()["decisions"][0]["outcome"] for answer in answers]
    assert outcomes.count("started") == 1, outcomes


def test_an_alert_that_fires_while_the_retrainer_is_away_is_not_lost(platform: Platform, runs: Runs) -> None:
    forget(runs, OTHER)
    with (
        port_forward(platform, "alertmanager", 9093) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as http,
    ):

        def failed() -> float:
            lines = http.get("/metrics").text.splitlines()
            name, label = "alertmanager_notification_requests_failed_total", 'integration="webhook"'
            return sum(float(line.split()[-1]) for line in lines if line.startswith(name) and label in line)

        def fire(until: datetime) -> None:
            labels = {
                **notification(OTHER)["alerts"][0]["labels"],
                "namespace": platform.namespace,
                "severity": "warning",
            }
            body = [{"labels": labels, "startsAt": begin.isoformat(), "endsAt": until.isoformat()}]
            http.post("/api/v2/alerts", json=body).raise_for_status()

        begin, before = datetime.now(UTC), failed()
        scale(platform, "retrainer", 0)
        try:
            fire(begin + timedelta(minutes=30))
            wait_for(lambda: failed() > before, "a notification that did not arrive", 120)
            assert retrainings(runs, OTHER) == []
        finally:
            scale(platform, "retrainer", 1)
        try:
            (started,) = wait_for(lambda: retrainings(runs, OTHER), "the run of the alert that fired meanwhile", 240)
            runs.started.append(started.id)
        finally:
            fire(datetime.now(UTC))  # over
    assert started.parameters["cause"].startswith("FeatureDrift bmi since ")


@pytest.mark.parametrize("token", ["", "wrong", "retrainer-token"])
def test_a_wrong_token_is_refused_and_starts_nothing(platform: Platform, runs: Runs, token: str) -> None:
    before = retrainings(runs, OTHER)
    with retrainer(platform, token) as client:
        assert client.post("/alerts", json=notification(OTHER)).status_code == 401
    assert retrainings(runs, OTHER) == before


def test_prometheus_has_the_flow_runs_by_deployment(runs: Runs, prometheus: PrometheusClient) -> None:
    wait_for(lambda: value(prometheus, "mlops_retrainer_prefect_up") == 1, "the exporter's metrics in Prometheus", 60)
    last_success = 'mlops_deployment_last_success_timestamp_seconds{deployment="train/iris"}'
    deployment = runs.prefect.deployment("train", "iris")
    assert deployment
    (last,) = runs.prefect.runs(deployment_id=deployment.id, states=["COMPLETED"], sort="END_TIME_DESC", limit=1)
    assert last.ended
    ended = last.ended.timestamp()
    wait_for(lambda: abs((value(prometheus, last_success) or 0) - ended) < 1, f"{last_success} = {ended}", 90)
    assert value(prometheus, 'sum(mlops_flow_runs{deployment="train/iris",state="completed"})')
