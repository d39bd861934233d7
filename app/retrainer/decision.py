"""Whether an alert starts a retraining now: rules without state, and without a request to anybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Literal

DAY = timedelta(days=1)

RetrainOutcome = Literal["started", "running", "cooldown", "capped", "dry_run", "unknown_model", "failed"]


@dataclass(frozen=True)
class Policy:
    """How often a model may be retrained.

    cooldown: seconds between the end of a retraining and the next; doubles with each fruitless one in a row.
    cooldown_max: seconds that it grows to.
    daily_cap: retrainings of a model in 24 hours.
    dry_run: say what would be started, start nothing.
    """

    cooldown: float
    cooldown_max: float
    daily_cap: int
    dry_run: bool = False


@dataclass(frozen=True)
class Retraining:
    """A flow run that the retrainer started.

    created, ended: in UTC; ended is None while it is waited for or runs.
    result: "promoted", or what became of it instead, such as "refused" or "crashed".
    """

    run_id: str
    created: datetime
    ended: datetime | None
    result: str

    @property
    def fruitless(self) -> bool:
        """Whether no new version came of it, or will yet."""
        return self.result != "promoted"


@dataclass(frozen=True)
class Verdict:
    """What is to be done, and why.

    next: when the next retraining may be, in words; "" where one is started.
    cooldown: seconds to wait after the last retraining; 0 where there was none.
    """

    outcome: RetrainOutcome
    reason: str
    next: str
    cooldown: float


def decide(now: datetime, policy: Policy, training: str, past: Sequence[Retraining]) -> Verdict:
    """Whether to start a retraining of a model.

    Args:
        now: in UTC.
        training: the training of this model that is scheduled or running, in words; "" for none.
        past: the model's retrainings, newest first, at least those of the last 24 hours.
    """
    cooldown = cooldown_after(policy, past)
    if training or (past and past[0].ended is None):
        what = training or f"flow run {past[0].run_id} has not ended"
        return Verdict("running", f"one training at a time: {what}", "when it has ended and its cooldown", cooldown)
    if past and past[0].ended:
        over = past[0].ended + timedelta(seconds=cooldown)
        if now < over:
            fruitless = _fruitless_in_a_row(past)
            why = f", {fruitless} fruitless in a row" if fruitless > 1 else ""
            reason = f"the last retraining ended {timestamp(past[0].ended)} as {past[0].result}{why}"
            return Verdict("cooldown", f"{reason}: cooldown of {cooldown:.0f} s", timestamp(over), cooldown)
    today = [run.created for run in past if run.created > now - DAY]
    if len(today) >= policy.daily_cap:
        reason = f"{len(today)} retrainings in 24 hours, the cap is {policy.daily_cap}"
        again = sorted(today, reverse=True)[policy.daily_cap - 1] + DAY
        return Verdict("capped", reason, timestamp(again), cooldown)
    if policy.dry_run:
        return Verdict("dry_run", "would be started, but this is a dry run", "when the dry run is off", cooldown)
    return Verdict("started", "no training is under way, and no cooldown or cap holds", "", cooldown)


def cooldown_after(policy: Policy, past: Sequence[Retraining]) -> float:
    """Seconds to wait after the end of the last retraining; they double with each fruitless one in a row.

    Args:
        past: the model's retrainings, newest first.
    """
    if not past:
        return 0.0
    doublings = min(_fruitless_in_a_row(past), 32)  # 2 ** 32 s are longer than any maximum
    return min(policy.cooldown * 2.0**doublings, policy.cooldown_max)


def _fruitless_in_a_row(past: Sequence[Retraining]) -> int:
    return sum(1 for _ in takewhile(lambda run: run.ended and run.fruitless, past))


def idempotency_key(model: str, past: Sequence[Retraining]) -> str:
    """The key of the next retraining, made of the last one: two who know the same last one start one next one.

    Args:
        past: the model's retrainings, newest first.
    """
    return f"retrain-{model}-after-{past[0].run_id if past else 'none'}"


def timestamp(moment: datetime) -> str:
    """A time in UTC as ISO 8601 with seconds, such as 2026-01-01T00:00:00Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
