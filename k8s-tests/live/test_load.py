"""Nobody who asks the API notices a promotion, a new release, a pod that goes or MLflow being away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kubernetes import client
from kubernetes.stream import stream
from load import Load
from namespace import wait_for
from release import Platform
from runs import production, put_back, registry_of, restart, runs_of, scale, settled

from app.registry.canary import canary_of
from app.registry.canary import end as end_canary
from app.registry.challenger import challenge, end_challenge, shadow_of
from app.registry.promotion import promote
from flows.catalog import load_model

TAKE_UP = 30  # seconds within which every replica has a new version
AWAY = 60  # seconds without MLflow
CALM = 5  # seconds of load before and after
# What the API in a pod says of the versions beside production: canary, challenger, rows compared.
BESIDE = """
import json, urllib.request
model = json.load(urllib.request.urlopen('http://127.0.0.1:8086/models/iris'))
canary, challenger = model['canary'] or {}, model['challenger'] or {}
compared = challenger.get('agree', 0) + challenger.get('disagree', 0)
print(canary.get('version', '-'), challenger.get('version', '-'), compared)
"""
READY = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8086/readyz').read().decode())"


@pytest.fixture(autouse=True)
def api_settled(platform: Platform) -> Iterator[None]:
    """The API's pods are as they should be, before and after."""
    wait_for(lambda: settled(platform, "model-api"), "the API's pods", 120)
    yield
    wait_for(lambda: settled(platform, "model-api"), "the API's pods", 120)


def _load() -> Load:
    return Load("api.localhost:8080")


def _calm() -> None:
    time.sleep(CALM)  # the load itself is what is waited for


@pytest.fixture
def newcomer(platform: Platform, spare_version: str, tmp_path: Path) -> str:
    """A version that is not in production; nothing is being trained."""
    with runs_of(platform, tmp_path) as runs:
        wait_for(lambda: not runs.under_way(), "the end of runs that were started before this test", 300)
    return spare_version


def _run_in_pods(platform: Platform, code: str) -> dict[str, str]:
    """What Python code prints in each pod of the API."""
    core, command = client.CoreV1Api(platform.api), ["python", "-c", code]
    answers = {}
    for pod in platform.pods("model-api"):
        name = pod.metadata.name
        answers[name] = stream(
            core.connect_get_namespaced_pod_exec, name, platform.namespace, command=command, stdout=True, stderr=True
        )
    return answers


def _versions_of_pods(platform: Platform) -> dict[str, str]:
    """What /readyz of each pod of the API answers, asked in the pod."""
    return _run_in_pods(platform, READY)


class Beside(NamedTuple):
    """What a pod of the API has beside production, "-" for nothing. compared: rows that the challenger got, too."""

    canary: str
    challenger: str
    compared: int


def _beside(platform: Platform) -> list[Beside]:
    """Of each pod of the API."""
    fields = [text.split() for text in _run_in_pods(platform, BESIDE).values()]
    return [Beside(canary, challenger, int(compared)) for canary, challenger, compared in fields]


def _canaries(platform: Platform) -> set[str]:
    return {pod.canary for pod in _beside(platform)}


def _challengers(platform: Platform) -> set[str]:
    return {pod.challenger for pod in _beside(platform)}


def _served(answers: dict[str, str], version: str) -> bool:
    return all(f'"iris":"{version}"' in text.replace(" ", "").replace("'", '"') for text in answers.values())


def test_a_promotion(platform: Platform, newcomer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLOPS_CACHE_DIR", str(tmp_path))
    with registry_of(platform) as registry:
        before = production(registry)
        wait_for(lambda: _served(_versions_of_pods(platform), before), f"version {before} in every pod", TAKE_UP)
        try:
            with _load() as load:
                _calm()
                promoting = time.monotonic()
                decision = promote(
                    registry,
                    "iris",
                    newcomer,
                    definition=load_model("iris").definition,
                    who="live test",
                    why="promotion under load",
                )
                moved = time.monotonic()
                assert decision.outcome == "promoted", decision
                time.sleep(TAKE_UP)
                _calm()
            pods = _versions_of_pods(platform)
        finally:
            put_back(registry, before)
    load.check()
    answers = sorted(load.answers, key=lambda answer: answer.at)
    assert {answer.version for answer in answers if answer.at < promoting} == {before}
    assert {answer.version for answer in answers if answer.sent > moved + TAKE_UP} == {newcomer}
    assert {answer.version for answer in answers} == {before, newcomer}
    last = max(answer.at for answer in answers if answer.version == before)
    print(f"the last answer of version {before} came {last - moved:.1f} s after the alias was moved")
    assert len(pods) >= 2
    assert _served(pods, newcomer), pods


def test_a_canary_and_then_a_challenger(
    platform: Platform, newcomer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLOPS_CACHE_DIR", str(tmp_path))
    by = {"who": "live test", "why": "beside production"}
    with registry_of(platform) as registry:
        before = production(registry)
        wait_for(lambda: _served(_versions_of_pods(platform), before), f"version {before} in every pod", TAKE_UP)
        try:
            with _load() as load:
                definition = load_model("iris").definition
                decision = promote(registry, "iris", newcomer, definition=definition, canary=0.3, **by)
                assert decision.outcome == "started", decision
                wait_for(lambda: _canaries(platform) == {newcomer}, "a canary in every pod", TAKE_UP)
                both = time.monotonic()
                _calm()
                ending = time.monotonic()
                assert end_canary(registry, "iris", **by).outcome == "ended"
                wait_for(lambda: _canaries(platform) == {"-"}, "no canary in any pod", TAKE_UP)
                ended = time.monotonic()
                challenge(registry, "iris", newcomer, 1.0, **by)
                wait_for(
                    lambda: all(pod.challenger == newcomer and pod.compared >= 100 for pod in _beside(platform)),
                    "100 rows compared in every pod",
                    TAKE_UP,
                )
                end_challenge(registry, "iris", **by)
                wait_for(lambda: _challengers(platform) == {"-"}, "no challenger in any pod", TAKE_UP)
        finally:
            model = registry.model("iris")
            if canary_of(model):
                end_canary(registry, "iris", **by)
            if shadow_of(model):
                end_challenge(registry, "iris", **by)
        assert production(registry) == before
    load.check()
    meanwhile = [answer.version for answer in load.answers if both < answer.sent and answer.at < ending]
    assert 0.2 < meanwhile.count(newcomer) / len(meanwhile) < 0.4
    assert {answer.version for answer in load.answers if answer.sent > ended} == {before}


def test_a_rolling_update(platform: Platform) -> None:
    before = {pod.metadata.uid for pod in platform.pods("model-api")}
    with _load() as load:
        _calm()
        restart(platform, "model-api")
        _calm()
    load.check()
    assert not before & {pod.metadata.uid for pod in platform.pods("model-api")}


def test_a_pod_that_is_deleted(platform: Platform) -> None:
    core = client.CoreV1Api(platform.api)
    leaving = platform.pods("model-api")[0].metadata
    with _load() as load:
        _calm()
        core.delete_namespaced_pod(leaving.name, platform.namespace)

        def replaced() -> bool:
            gone = all(pod.metadata.uid != leaving.uid for pod in platform.pods("model-api"))
            return gone and settled(platform, "model-api")

        wait_for(replaced, "the pod replaced", 120)
        _calm()
    load.check()


@pytest.mark.drill
def test_mlflow_is_away_for_a_minute(platform: Platform) -> None:
    with platform.client("api") as api:
        try:
            with _load() as load:
                scale(platform, "mlflow", 0)
                away = time.monotonic()
                wait_for(lambda: not api.get("/models").json()["registry"]["ok"], "the API missing MLflow", 60)
                time.sleep(max(0.0, AWAY - (time.monotonic() - away)))
                assert all(_ready(pod) for pod in platform.pods("model-api"))
        finally:
            scale(platform, "mlflow", 1)
        load.check()
        wait_for(lambda: api.get("/models").json()["registry"]["ok"], "the API finding MLflow again", 60)


def _ready(pod: Any) -> bool:
    return any(condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions)
