"""`mlops loop`, which `helm test` runs: the whole loop once, on the platform as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from app.cli.drift import send, shifted
from app.cli.errors import CommandError
from app.clients.errors import ServiceError
from app.clients.mlflow import PRODUCTION, MlflowClient, MlflowError
from app.clients.model_api import ModelApiClient
from app.clients.prefect import FlowRun, PrefectClient
from app.clients.prometheus import PrometheusClient
from app.contract.predictions import Prediction
from app.registry.bundle import fetch_bundle
from app.registry.ledger import Decision, Ledger
from app.registry.predictor import example_difference
from app.runtime.settings import PlatformSettings
from app.runtime.waiting import wait_until
from app.vocabulary import RETRAINER, TRAIN_FLOW
from flows.catalog import load_model

ROWS, SHIFT = 400, 1.5  # of drift; standard deviations
RECENT = 20  # how many of the ledger's newest decisions are read
PAUSE = 0.5  # seconds between two looks at what is waited for
CLOCKS = timedelta(minutes=2)  # how far Prefect's clock may be behind


@dataclass(frozen=True)
class Stage:
    """A stage that is done: what came of it, and how many seconds it took."""

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
        self.model, self.seconds, self.retrain = model, seconds, retrain
        self.registry = MlflowClient(retry_for=30)
        self.api = ModelApiClient(settings.api_url, settings.timeout, key=settings.api_key)
        self.prefect = PrefectClient(timeout=settings.timeout)
        self.has_prometheus = bool(settings.prometheus_url)
        self.prometheus = PrometheusClient(settings.prometheus_url, settings.timeout)

    def run(self) -> Iterator[Stage]:
        """The stages, each as it is done.

        Raises:
            CommandError: a stage failed, or did not end in time.
        """
        stages: list[tuple[str, Callable[[], str]]] = [
            ("train", self._train),
            ("gate", self._gate),
            ("promote", self._promote),
            ("predict", self._predict),
            ("scrape", self._scrape if self.has_prometheus else self._expose),
        ]
        if self.retrain:
            stages += [("drift", self._drift), ("retrain", self._retrain)]
        for name, stage in stages:
            begin = time.monotonic()
            try:
                detail = stage()
            except (TimeoutError, ServiceError, MlflowError, KeyError, ValueError) as error:
                raise CommandError(f"{name}: {error}") from error
            yield Stage(name, detail, time.monotonic() - begin)

    # -- a training, its version and its decision ------------------------------------------------------------------

    def _train(self) -> str:
        # right after an install the worker may not have told Prefect yet
        missing = (
            f"Prefect has no deployment {TRAIN_FLOW}/{self.model}; is the model's file in flows/models of the worker's "
            "image?"
        )
        deployment = wait_until(lambda: self.prefect.deployment(TRAIN_FLOW, self.model), 120, missing, PAUSE)
        parameters = {"model": self.model, "who": "mlops loop", "cause": "mlops loop"}
        self.training = self._ended(self.prefect.start(deployment.id, parameters), "flow run")
        return f"flow run {self.training.name}, {self.training.seconds:.0f} s of it in the flow"

    def _gate(self) -> str:
        versions = self._versions_of(self.training)
        if not versions:
            raise CommandError("the flow run registered no version")
        self.version = versions[0]
        decision = wait_until(
            lambda: self._decision([self.version]),
            30,
            f"the promotion ledger says nothing of version {self.version}",
            PAUSE,
        )
        if decision.refused:
            raise CommandError(f"version {decision.version} was refused by {decision.check}: {decision.reason}")
        return f"version {self.version}: {decision.reason}"

    def _promote(self) -> str:
        alias = next(model for model in self.registry.models() if model.name == self.model).aliases.get(PRODUCTION)
        if alias != self.version:
            raise CommandError(f"the alias {PRODUCTION} is at version {alias}, promoted was {self.version}")
        return f"{PRODUCTION} is version {alias}"

    def _ended(self, run: FlowRun, label: str) -> FlowRun:
        """Wait until the flow run has completed; CommandError when it ends otherwise."""

        def ended() -> FlowRun | None:
            current = self.prefect.run(run.id)
            return current if current.is_over else None

        last = wait_until(ended, self.seconds, f"the {label} has not ended; see Prefect's page", PAUSE)
        if last.state != "COMPLETED":
            raise CommandError(f"the {label} {last.name} ended as {last.state_name}: {last.message}")
        return last

    def _versions_of(self, run: FlowRun) -> list[str]:
        versions = self.registry.versions(self.model)
        return [version.version for version in versions if version.tags.get("flow_run_id") == run.id]

    def _decision(self, versions: list[str]) -> Decision | None:
        """The newest decision about one of the versions."""
        decisions = Ledger(self.registry, self.model).history(RECENT)
        return next((decision for decision in decisions if decision.version in versions), None)

    # -- the version in service ------------------------------------------------------------------------------------

    def _predict(self) -> str:
        wait_until(self._is_served, 60, f"the API does not serve version {self.version}; see its log", PAUSE)
        with TemporaryDirectory() as folder:
            bundle = fetch_bundle(self.registry, self.registry.version(self.model, self.version), Path(folder))

        def predicted() -> Prediction | None:
            answer = self.api.predict(self.model, bundle.example)
            return answer if answer.version == self.version else None  # another replica may be a poll behind

        answer = wait_until(predicted, 30, f"a replica does not take up version {self.version}", PAUSE)
        difference = example_difference(bundle, answer.prediction)
        if difference:
            raise CommandError(f"the API's answer is not the estimator's: {difference}")
        return f"{answer.prediction}, as the estimator says"

    def _is_served(self) -> bool:
        try:
            return self.api.model(self.model).version == self.version
        except ServiceError as error:
            if error.status is None:
                raise
            return False  # it has no version of the model yet

    def _expose(self) -> str:
        needed = (f'mlops_model_info{{model="{self.model}"', "mlops_requests_total{", "http_requests_total{")
        text = self.api.metrics()
        missing = [name for name in needed if name not in text]
        if missing:
            raise CommandError(f"/metrics of the API has no {', '.join(missing)}")
        return f"{sum(not line.startswith('#') for line in text.splitlines())} series from the API"

    def _scrape(self) -> str:
        def problem() -> str:
            down = self._targets_down()
            if down:
                return f"no metrics from {', '.join(down)}"
            return f"Prometheus does not see version {self.version} in service everywhere"

        number = wait_until(self._scraped_targets, 120, problem, PAUSE)
        return f"Prometheus gets metrics from all {number} targets"

    def _targets_down(self) -> list[str]:
        return sorted({series.metric["job"] for series in self.prometheus.query('up{job=~".+"} == 0')})

    def _scraped_targets(self) -> int:
        """How many targets are up; 0 while one is down, or the version is not in service everywhere."""
        # in all replicas: Prometheus counts from what it saw of a version first
        of_model = f'mlops_model_info{{model="{self.model}"'
        is_everywhere = self.prometheus.query(f'count({of_model},version="{self.version}"}}) == count({of_model}}})')
        return len(self.prometheus.query("up")) if is_everywhere and not self._targets_down() else 0

    # -- drift, and what the retrainer makes of it -----------------------------------------------------------------

    def _drift(self) -> str:
        definition = load_model(self.model)
        for _ in send(self.api, definition, shifted(definition, ROWS, SHIFT, (), seed=0), feedback=False):
            pass
        alert = f'ALERTS{{alertname=~"FeatureDrift|PredictionDrift",alertstate="firing",model="{self.model}"}}'
        index = f'max(mlops:feature_psi{{model="{self.model}",version="{self.version}"}})'

        def problem() -> str:
            largest = [f"{series.number:g}" for series in self.prometheus.query(index)]
            return f"no alert fires; the largest index is {largest[0] if largest else 'not in Prometheus'}"

        firing = wait_until(lambda: self.prometheus.query(alert), 300, problem, PAUSE)
        names = sorted(series.metric.get("feature", "predictions") for series in firing)
        return f"{ROWS} rows shifted by {SHIFT} standard deviations: alerts about {', '.join(names)}"

    def _retrain(self) -> str:
        """A run that the retrainer has started, to its end; or why it starts none."""
        begin, counts = datetime.now(UTC), self._retrainer_outcomes()

        def reaction() -> tuple[FlowRun | None, str] | None:
            """The run; or no run, and what the retrainer decided instead."""
            runs = self.prefect.runs(flow=TRAIN_FLOW, tags=[RETRAINER], due_after=begin - CLOCKS)
            run = next((run for run in runs if run.parameters.get("model") == self.model), None)
            if run:
                return run, "started"
            for outcome, count in self._retrainer_outcomes().items():
                if outcome not in ("started", "failed") and count > counts.get(outcome, 0):
                    return None, outcome
            return None

        started, outcome = wait_until(reaction, 180, "the retrainer started nothing; see its log", PAUSE)
        if started is None:
            return f"none, and the retrainer says why: {outcome}"
        run = self._ended(started, "retraining")
        decision = self._decision(self._versions_of(run))
        if decision is None:
            raise CommandError(f"the promotion ledger says nothing of the retraining {run.name}")
        return f"{run.name}: version {decision.version} {decision.outcome}: {decision.reason}"

    def _retrainer_outcomes(self) -> dict[str, float]:
        """How often the retrainer decided what about the model."""
        decisions = self.prometheus.query(f'mlops_retrain_total{{model="{self.model}"}}')
        return {series.metric["outcome"]: series.number for series in decisions}
