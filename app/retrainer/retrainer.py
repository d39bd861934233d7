"""Alert in, training run out. What there is to know is read from Prefect and the promotion ledger each time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge

from app.clients.errors import ServiceError, sentence
from app.clients.mlflow import MlflowClient, MlflowError, NotFound
from app.clients.prefect import FlowRun, PrefectClient
from app.registry.ledger import Ledger
from app.retrainer.decision import Policy, Retraining, RetrainOutcome, Verdict, decide, idempotency_key, timestamp
from app.retrainer.training_runs import TrainingRuns
from app.vocabulary import RETRAINER

DECISIONS = 200  # how many of the ledger's newest decisions are read

log = logging.getLogger("mlops.retrainer")


class UndecidedError(Exception):
    """Prefect or MLflow gave no usable answer, so nothing was decided: send the alert again."""


@dataclass(frozen=True)
class Answer:
    """What was decided about a model, and why. next: when the next retraining may be, "" where one was started."""

    model: str
    outcome: RetrainOutcome
    reason: str
    next: str


class Retrainer:
    """Decides about alerts and starts trainings. It keeps no state, so any number of them may run side by side.

    Args:
        policy: how often a model may be retrained.
        metrics: where decisions are counted.
        clock: gives the time, in UTC.
    """

    def __init__(
        self,
        prefect: PrefectClient,
        registry: MlflowClient,
        policy: Policy,
        metrics: CollectorRegistry,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.training_runs, self.registry, self.policy, self.clock = TrainingRuns(prefect), registry, policy, clock
        self._deciding = Lock()  # one at a time: a storm of notifications would find Prefect's SQLite locked
        self.decisions = Counter(
            "mlops_retrain", "Decisions about alerts that ask for a retraining.", ["model", "outcome"], registry=metrics
        )
        self.cooldown = Gauge(
            "mlops_retrain_cooldown_seconds",
            "Pause in seconds between the end of the last retraining and the next, as of the last decision.",
            ["model"],
            registry=metrics,
        )

    def consider(self, model: str, cause: str) -> Answer:
        """Start the model's retraining, unless there is a reason not to. Logs and counts what was decided.

        Args:
            cause: the alerts, for the run's parameters and the promotion ledger.

        Raises:
            UndecidedError: Prefect has not accepted the run, or Prefect or MLflow did not answer; sending the alert
                again starts no second run.
        """
        try:
            with self._deciding:
                answer = self._decide(model, cause)
        except (ServiceError, MlflowError) as error:
            self._report(Answer(model, "failed", str(error), "when Alertmanager sends it again"), cause)
            raise UndecidedError(f"{model}: {sentence(str(error))} Send the alert again.") from error
        self._report(answer, cause)
        return answer

    def _decide(self, model: str, cause: str) -> Answer:
        deployment = self.training_runs.deployment(model)
        if deployment is None:
            reason = f"Prefect has no deployment train/{model}"
            return Answer(model, "unknown_model", reason, "when a worker's image has its model file")
        now = self.clock()
        past = self._past(model)
        training = self.training_runs.under_way(model, now)
        verdict = decide(now, self.policy, _described(training), past)
        self.cooldown.labels(model).set(verdict.cooldown)
        if verdict.outcome != "started":
            return _answer(model, verdict)
        run, is_new = self.training_runs.start_retraining(deployment, model, idempotency_key(model, past), cause)
        if not is_new:  # another notification came first
            verdict = decide(now, self.policy, _described(run), past)
            return _answer(model, verdict)
        return Answer(model, "started", f"flow run {run.name} ({run.id})", "")

    def _past(self, model: str) -> list[Retraining]:
        """The model's retrainings, newest first, each with what became of it."""
        runs = self.training_runs.retrainings(model)
        results = self._results(model) if any(run.state == "COMPLETED" for run in runs) else {}
        return [
            Retraining(
                run_id=run.id,
                created=run.created,
                ended=run.ended,
                result=results.get(run.id, "no decision") if run.state == "COMPLETED" else _state(run),
            )
            for run in runs
        ]

    def _results(self, model: str) -> dict[str, str]:
        """The outcome of the promotion that a flow run asked for, by the run's id, as the ledger has it."""
        flow_runs = {version.version: version.tags.get("flow_run_id", "") for version in self.registry.versions(model)}
        try:
            decisions = Ledger(self.registry, model).history(DECISIONS)
        except NotFound:
            return {}
        return {
            flow_runs.get(decision.version, ""): decision.outcome
            for decision in decisions
            if decision.who == RETRAINER and decision.action == "promote"
        }

    def _report(self, answer: Answer, cause: str) -> None:
        self.decisions.labels(answer.model, answer.outcome).inc()
        following = f"; next: {answer.next}" if answer.next else ""
        level = logging.WARNING if answer.outcome in ("failed", "unknown_model") else logging.INFO
        line = f"{answer.model}: {answer.outcome}: {answer.reason}{following}; alert: {cause}"
        log.log(level, "%s", " ".join(line.split()))  # labels may have line breaks


def _answer(model: str, verdict: Verdict) -> Answer:
    return Answer(model, verdict.outcome, verdict.reason, verdict.next)


def _described(run: FlowRun | None) -> str:
    return f"flow run {run.name} is {_state(run)} since {timestamp(run.created)}" if run else ""


def _state(run: FlowRun) -> str:
    return (run.state_name or "unknown").lower()
