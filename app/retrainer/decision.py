"""Whether an alert starts a retraining now. Nothing here asks anybody or keeps anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Literal

DAY = timedelta(days=1)

Outcome = Literal["started", "running", "cooldown", "capped", "dry_run", "unknown_model", "failed"]


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

    ended: None while it is waited for or runs.
    result: "promoted", or what became of it instead, such as "refused" or "crashed".
    """

    run_id: str
    created: datetime
    ended: datetime | None
    result: str

    @property
    def fruitless(self) -> bool:
        return self.result != "promoted"


@dataclass(frozen=True)
class Verdict:
    """What is to be done, and why.

    next: when the next retraining may be, in words; "" where one is started.
    cooldown: seconds that hold after the last retraining; 0 where there was none.
    """

    outcome: Outcome
    reason: str
    next: str
    cooldown: float


def decide(now: datetime, policy: Policy, training: str, past: Sequence[Retraining]) -> Verdict:
    """Whether to start a retraining of a model.

    Args:
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
            row = _fruitless_in_a_row(past)
            why = f", {row} fruitless in a row" if row > 1 else ""
            reason = f"the last retraining ended {stamp(past[0].ended)} as {past[0].result}{why}"
            return Verdict("cooldown", f"{reason}: cooldown of {cooldown:.0f} s", stamp(over), cooldown)
    today = [run.created for run in past if run.created > now - DAY]
    if len(today) >= policy.daily_cap:
        reason = f"{len(today)} retrainings in 24 hours, the cap is {policy.daily_cap}"
        again = sorted(today, reverse=True)[policy.daily_cap - 1] + DAY
        return Verdict("capped", reason, stamp(again), cooldown)
    if policy.dry_run:
        return Verdict("dry_run", "would be started, but this is a dry run", "when the dry run is off", cooldown)
    return Verdict("started", "no training is under way, and no cooldown or cap holds", "", cooldown)


def cooldown_after(policy: Policy, past: Sequence[Retraining]) -> float:
    """Seconds that hold after the end of the last retraining: doubled for each fruitless one in a row."""
    if not past:
        return 0.0
    doublings = min(_fruitless_in_a_row(past), 32)  # 2 ** 32 s are longer than any maximum
    return min(policy.cooldown * 2.0**doublings, policy.cooldown_max)


def _fruitless_in_a_row(past: Sequence[Retraining]) -> int:
    return sum(1 for _ in takewhile(lambda run: run.ended and run.fruitless, past))


def key(model: str, past: Sequence[Retraining]) -> str:
    """The idempotency key of the next retraining: whoever knows the same last one starts the same next one."""
    return f"retrain-{model}-after-{past[0].run_id if past else 'none'}"


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
