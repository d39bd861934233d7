"""Alert in, training run out. What there is to know is read from Prefect and the promotion ledger each time."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge

from app.clients.mlflow import MlflowClient, MlflowError, NotFound
from app.clients.prefect import TAG, FlowRun, PrefectClient, PrefectUnavailable
from app.registry.ledger import Ledger
from app.retrainer.decision import Outcome, Policy, Retraining, Verdict, decide, key, stamp

DECISIONS = 200  # the newest ones of the ledger that are looked at

log = logging.getLogger("mlops.retrainer")


class Unavailable(Exception):
    """Prefect or MLflow does not answer: ask again."""


@dataclass(frozen=True)
class Answer:
    """What was decided about a model."""

    model: str
    outcome: Outcome
    reason: str
    next: str


class Retrainer:
    """Keeps nothing: any number of them may be asked at the same time.

    Args:
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
        self.prefect, self.registry, self.policy, self.clock = prefect, registry, policy, clock
        self._deciding = Lock()  # one at a time: a storm of notifications would find Prefect's SQLite locked
        self.decisions = Counter(
            "mlops_retrain", "Decisions about alerts that want a retraining.", ["model", "outcome"], registry=metrics
        )
        self.cooldown = Gauge(
            "mlops_retrain_cooldown_seconds",
            "Between the end of the last retraining and the next, as of the last decision.",
            ["model"],
            registry=metrics,
        )

    def consider(self, model: str, cause: str) -> Answer:
        """Start the model's retraining, unless there is a reason not to. Logs and counts what was decided.

        Args:
            cause: the alerts, for the run's parameters and the promotion ledger.

        Raises:
            Unavailable: Prefect has not accepted the run, or cannot be asked; nothing is lost by asking again.
        """
        try:
            with self._deciding:
                answer = self._consider(model, cause)
        except (PrefectUnavailable, MlflowError) as error:
            self._tell(Answer(model, "failed", str(error), "when Alertmanager asks again"), cause)
            raise Unavailable(f"{model}: {error}; send the alert again") from error
        self._tell(answer, cause)
        return answer

    def _consider(self, model: str, cause: str) -> Answer:
        deployment = self.prefect.deployment(model)
        if deployment is None:
            reason = f"Prefect has no deployment train/{model}"
            return Answer(model, "unknown_model", reason, "when a worker's image has its model file")
        now = self.clock()
        past = self._past(model)
        training = self.prefect.under_way(model, now)
        verdict = decide(now, self.policy, _words(training), past)
        self.cooldown.labels(model).set(verdict.cooldown)
        if verdict.outcome != "started":
            return _answer(model, verdict)
        name = f"retrain-{model}-{secrets.token_hex(4)}"
        run = self.prefect.start(deployment, model, name, key(model, past), cause)
        if run.name != name:  # another notification came first, with the same key
            verdict = decide(now, self.policy, _words(run), past)
            return _answer(model, verdict)
        return Answer(model, "started", f"flow run {run.name} ({run.id})", "")

    def _past(self, model: str) -> list[Retraining]:
        """The model's retrainings, newest first, each with what became of it."""
        runs = self.prefect.retrainings(model)
        results = self._results(model) if any(run.state == "COMPLETED" for run in runs) else {}
        return [
            Retraining(
                run_id=run.id,
                created=run.created,
                ended=run.ended,
                result=results.get(run.id, "no decision") if run.state == "COMPLETED" else run.state_name.lower(),
            )
            for run in runs
        ]

    def _results(self, model: str) -> dict[str, str]:
        """Flow run -> outcome of the promotion that it asked for, as the ledger has it."""
        made = {version.version: version.tags.get("flow_run_id", "") for version in self.registry.versions(model)}
        try:
            decisions = Ledger(self.registry, model).history(DECISIONS)
        except NotFound:
            return {}
        return {made.get(d.version, ""): d.outcome for d in decisions if d.who == TAG and d.action == "promote"}

    def _tell(self, answer: Answer, cause: str) -> None:
        self.decisions.labels(answer.model, answer.outcome).inc()
        following = f"; next: {answer.next}" if answer.next else ""
        level = logging.WARNING if answer.outcome in ("failed", "unknown_model") else logging.INFO
        line = f"{answer.model}: {answer.outcome}: {answer.reason}{following}; alert: {cause}"
        log.log(level, "%s", " ".join(line.split()))  # labels may have line breaks


def _answer(model: str, verdict: Verdict) -> Answer:
    return Answer(model, verdict.outcome, verdict.reason, verdict.next)


def _words(run: FlowRun | None) -> str:
    return f"flow run {run.name} is {run.state_name.lower()} since {stamp(run.created)}" if run else ""
