"""`mlops loop`, which `helm test` runs: the whole loop once, on the platform as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx

from app.cli.drift import send, shifted
from app.clients.mlflow import PRODUCTION, MlflowClient
from app.clients.prefect import PrefectClient
from app.registry.bundle import fetch_bundle
from app.registry.ledger import Decision, Ledger
from app.registry.predictor import example_difference
from app.runtime.settings import PlatformSettings
from flows.catalog import load_model

T = TypeVar("T")
ROWS, SHIFT = 400, 1.5  # of drift; standard deviations
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class LoopError(Exception):
    """A stage did not come to its end; the message says why."""


@dataclass(frozen=True)
class Stage:
    """A stage that is done: what came of it, and how long it took."""

    name: str
    detail: str
    seconds: float


class Loop:
    """One round of a model.

    Args:
        model: its name.
        seconds: how long a training may take, from the request to its end.
        retrain: whether to make the model's inputs drift, for an alert that starts a retraining. No labels are fed
            back, so what comes of it is refused unless it is better by chance. Needs Prometheus and the retrainer.
    """

    def __init__(self, settings: PlatformSettings, model: str, seconds: float, retrain: bool = False) -> None:
        self.settings, self.model, self.seconds, self.retrain = settings, model, seconds, retrain
        self.registry = MlflowClient(retry_for=30)
        self.api = httpx.Client(base_url=settings.api_url, timeout=settings.timeout)
        self.prefect = PrefectClient(timeout=settings.timeout).http
        self.prometheus = httpx.Client(base_url=settings.prometheus_url, timeout=settings.timeout)

    def run(self) -> Iterator[Stage]:
        """The stages, each as it is done.

        Raises:
            LoopError: a stage failed.
        """
        stages: list[tuple[str, Callable[[], str]]] = [
            ("train", self._train),
            ("gate", self._gate),
            ("promote", self._promote),
            ("predict", self._predict),
            ("scrape", self._scrape if self.settings.prometheus_url else self._expose),
        ]
        if self.retrain:
            stages += [("drift", self._drift), ("retrain", self._retrain)]
        for name, stage in stages:
            begun = time.monotonic()
            try:
                detail = stage()
            except (httpx.HTTPError, KeyError, ValueError) as error:
                raise LoopError(f"{name}: {type(error).__name__}: {error}") from error
            yield Stage(name, detail, time.monotonic() - begun)

    def _train(self) -> str:
        # right after an install the worker may not have told Prefect yet
        missing = (
            f"Prefect has no deployment train/{self.model}; is the model's file in flows/models of the worker's image?"
        )
        deployment = self._await(self._deployment, 120, lambda: missing)
        body = {
            "parameters": {"model": self.model, "who": "mlops loop", "cause": "mlops loop"},
            "state": {"type": "SCHEDULED", "name": "Scheduled"},
        }
        answer = self.prefect.post(f"/deployments/{deployment['id']}/create_flow_run", json=body)
        self.flow_run = answer.raise_for_status().json()["id"]

        def ended() -> dict[str, Any] | None:
            run = self._get(f"/flow_runs/{self.flow_run}")
            return run if run["state"]["type"] in ENDED else None

        run = self._await(ended, self.seconds, lambda: "the flow run has not ended; see Prefect's page")
        state = run["state"]
        if state["type"] != "COMPLETED":
            raise LoopError(f"the flow run {run['name']} ended as {state['name']}: {state.get('message')}")
        return f"flow run {run['name']}, {run['total_run_time']:.0f} s of it in the flow"

    def _gate(self) -> str:
        made = [v for v in self.registry.versions(self.model) if v.tags.get("flow_run_id") == self.flow_run]
        if not made:
            raise LoopError("the flow run registered no version")
        self.version = made[0].version

        def decided() -> Decision | None:
            recent = Ledger(self.registry, self.model).history(20)
            return next((d for d in recent if d.version == self.version), None)

        decision = self._await(decided, 30, lambda: f"the promotion ledger says nothing of version {self.version}")
        if decision.refused:
            raise LoopError(f"version {decision.version} was refused by {decision.check}: {decision.reason}")
        return f"version {self.version}: {decision.reason}"

    def _promote(self) -> str:
        alias = next(m for m in self.registry.models() if m.name == self.model).aliases.get(PRODUCTION)
        if alias != self.version:
            raise LoopError(f"the alias {PRODUCTION} is at version {alias}, promoted was {self.version}")
        return f"{PRODUCTION} is version {alias}"

    def _predict(self) -> str:
        def taken_up() -> dict[str, Any] | None:
            answer = self.api.get(f"/models/{self.model}")
            info = answer.json() if answer.is_success else {}
            return info if info.get("version") == self.version else None

        self._await(taken_up, 60, lambda: f"the API does not serve version {self.version}; see its log")
        with TemporaryDirectory() as folder:
            bundle = fetch_bundle(self.registry, self.registry.version(self.model, self.version), Path(folder))

        def predicted() -> dict[str, Any] | None:
            answer = self.api.post(f"/models/{self.model}/predict", json=bundle.example).raise_for_status().json()
            return answer if answer["version"] == self.version else None  # another replica may be a poll behind

        said = self._await(predicted, 30, lambda: f"a replica does not take up version {self.version}")["prediction"]
        difference = example_difference(bundle, said)
        if difference:
            raise LoopError(f"the API's answer is not the estimator's: {difference}")
        return f"{said}, as the estimator says"

    def _scrape(self) -> str:
        def down() -> list[str]:
            return sorted({series["metric"]["job"] for series in self._query('up{job=~".+"} == 0')})

        def scraped() -> int | None:
            # by all replicas: Prometheus counts from what it saw of a version first
            of_model = f'mlops_model_info{{model="{self.model}"'
            served = self._query(f'count({of_model},version="{self.version}"}}) == count({of_model}}})')
            return None if down() or not served else len(self._query("up"))

        problem = f"Prometheus does not see version {self.version} in service everywhere"
        number = self._await(scraped, 120, lambda: f"no metrics from {', '.join(down())}" if down() else problem)
        return f"Prometheus gets metrics from all {number} targets"

    def _drift(self) -> str:
        definition = load_model(self.model)
        for _ in send(self.api, definition, shifted(definition, ROWS, SHIFT, (), seed=0), feedback=False):
            pass
        alert = f'ALERTS{{alertname=~"FeatureDrift|PredictionDrift",alertstate="firing",model="{self.model}"}}'
        index = f'max(mlops:feature_psi{{model="{self.model}",version="{self.version}"}})'

        def problem() -> str:
            found = self._query(index)
            return f"no alert fires; the largest index is {found[0]['value'][1] if found else 'not there'}"

        firing = self._await(lambda: self._query(alert) or None, 300, problem)
        names = sorted(series["metric"].get("feature", "predictions") for series in firing)
        return f"{ROWS} rows shifted by {SHIFT} standard deviations: alerts about {', '.join(names)}"

    def _retrain(self) -> str:
        """A run that the retrainer has started, to its end; or why it starts none."""
        outcomes = f'mlops_retrain_total{{model="{self.model}"}}'
        before = {series["metric"]["outcome"]: float(series["value"][1]) for series in self._query(outcomes)}
        begun = datetime.now(UTC)

        def started() -> tuple[dict[str, Any], str] | None:
            """The run, or what the retrainer did instead."""
            chosen = {
                "tags": {"all_": ["retrainer", f"model:{self.model}"]},
                "expected_start_time": {"after_": (begun - timedelta(minutes=2)).isoformat()},
            }
            answer = self.prefect.post("/flow_runs/filter", json={"flow_runs": chosen}).raise_for_status().json()
            if answer:
                return answer[0], ""
            for series in self._query(outcomes):
                outcome = series["metric"]["outcome"]
                if outcome not in ("started", "failed") and float(series["value"][1]) > before.get(outcome, 0):
                    return {}, outcome
            return None

        run, instead = self._await(started, 180, lambda: "the retrainer started nothing; see its log")
        if instead:
            return f"none, and the retrainer says why: {instead}"

        def ended() -> dict[str, Any] | None:
            found = self._get(f"/flow_runs/{run['id']}")
            return found if found["state"]["type"] in ENDED else None

        state = self._await(ended, self.seconds, lambda: "the retraining has not ended; see Prefect's page")["state"]
        if state["type"] != "COMPLETED":
            raise LoopError(f"the retraining {run['name']} ended as {state['name']}: {state.get('message')}")
        made = [v.version for v in self.registry.versions(self.model) if v.tags.get("flow_run_id") == run["id"]]
        decision = next(d for d in Ledger(self.registry, self.model).history(20) if d.version in made)
        return f"{run['name']}: version {decision.version} {decision.outcome}: {decision.reason}"

    def _query(self, expression: str) -> list[dict[str, Any]]:
        answer = self.prometheus.get("/api/v1/query", params={"query": expression}).raise_for_status().json()
        return list(answer["data"]["result"])

    def _expose(self) -> str:
        needed = (f'mlops_model_info{{model="{self.model}"', "mlops_requests_total{", "http_requests_total{")
        text = self.api.get("/metrics").raise_for_status().text
        missing = [name for name in needed if name not in text]
        if missing:
            raise LoopError(f"/metrics of the API has no {', '.join(missing)}")
        return f"{sum(not line.startswith('#') for line in text.splitlines())} series from the API"

    def _deployment(self) -> dict[str, Any] | None:
        answer = self.prefect.get(f"/deployments/name/train/{self.model}")
        return None if answer.status_code == 404 else dict(answer.raise_for_status().json())

    def _get(self, path: str) -> dict[str, Any]:
        return dict(self.prefect.get(path).raise_for_status().json())

    def _await(self, look: Callable[[], T | None], seconds: float, problem: Callable[[], str]) -> T:
        deadline = time.monotonic() + seconds
        while (found := look()) is None:
            if time.monotonic() > deadline:
                raise LoopError(f"after {seconds:.0f} s: {problem()}")
            time.sleep(0.5)
        return found
