"""The promotion ledger: every decision about a model, and the order of those that moved `production`.

Each decision, refused ones included, is a run of the MLflow experiment `promotions`. Which of them moved the alias, and
in which order, is said by one more run per model, its *sequence*: the parameter `move.000001` names the first decision
that won, and so on. MLflow lets nobody change a parameter, so of any number of clients that try to write the same move
exactly one succeeds, without a lock that a killed client could leave behind. The alias follows the sequence: whoever
finds it behind moves it on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from app.clients.mlflow import (
    PRODUCTION,
    PROMOTIONS_EXPERIMENT,
    SEQUENCE_TAG,
    Conflict,
    MlflowClient,
    MlflowError,
    NotFound,
)

MAX_TEXT = 4000  # a tag's value may have 5,000 characters


@dataclass(frozen=True)
class Move:
    """One entry of the sequence: production went from `previous` to `version`."""

    number: int
    decision: str  # run id
    action: str  # promote, rollback, or outside: the alias was moved by hand
    version: str
    previous: str | None
    applied: bool  # the alias was seen at `version` since


@dataclass(frozen=True)
class Decision:
    """What was decided about a version, and why."""

    model: str
    version: str
    previous: str | None  # what was in production
    action: str  # promote, rollback, outside
    outcome: str  # promoted, refused, unchanged
    check: str  # the check that refused; "" when promoted
    reason: str
    metrics: dict[str, float] = field(default_factory=dict)
    who: str = ""
    why: str = ""
    cause: str = ""  # what started it: a flow run, an alert
    time: float = 0.0  # seconds since the epoch
    run_id: str = ""

    @property
    def refused(self) -> bool:
        return self.outcome == "refused"


class Ledger:
    """The ledger of one registered model.

    Raises:
        NotFound: the model is not registered.
        MlflowError: it was registered by other means and has no sequence yet.
    """

    def __init__(self, registry: MlflowClient, model: str) -> None:
        self.registry, self.model = registry, model
        try:
            tags = registry.model(model).tags
        except NotFound as error:
            raise NotFound(f"no model {model!r} is registered; run `mlops train {model}`", error.code) from error
        if SEQUENCE_TAG not in tags:
            raise MlflowError(
                f"the model {model!r} was not registered by `mlops train`: it has no tag {SEQUENCE_TAG}. "
                f"Train it once with `mlops train {model}`"
            )
        self.sequence = tags[SEQUENCE_TAG]

    def moves(self) -> list[Move]:
        """Every move of production, oldest first."""
        params = self.registry.run(self.sequence).params
        found: list[Move] = []
        while (raw := params.get(_key(len(found) + 1))) is not None:
            number = len(found) + 1
            found.append(Move(number=number, applied=f"{_key(number)}.applied" in params, **json.loads(raw)))
        return found

    def claim(self, number: int, decision: str, action: str, version: str, previous: str | None) -> Move | None:
        """Write move `number`; None when another client's decision has that number."""
        body = {"decision": decision, "action": action, "version": version, "previous": previous}
        try:
            self.registry.write_once(self.sequence, _key(number), json.dumps(body))
        except Conflict:
            return None
        return Move(number, decision, action, version, previous, applied=False)

    def apply(self, move: Move) -> None:
        """Move the alias to where the sequence says it is.

        A client that was slow may set the alias after a later move did, so each looks once more afterwards and sets
        what is then the last move.
        """
        while True:
            self.registry.set_alias(self.model, PRODUCTION, move.version)
            last = self.moves()[-1]
            if last.number == move.number:
                break
            move = last
        self.registry.write_once(self.sequence, f"{_key(move.number)}.applied", "true")

    def settle(self) -> tuple[list[Move], str | None]:
        """Bring sequence and alias together; returns the moves and the version in production.

        A move that was won but not applied (its client was killed) is applied now. An alias that was moved by hand is
        taken over as a move of its own.
        """
        while True:
            moves = self.moves()
            production = self.registry.version_by_alias(self.model, PRODUCTION)
            current = production.version if production else None
            if moves and not moves[-1].applied:
                self.apply(moves[-1])
                continue
            if current == (moves[-1].version if moves else None):
                return moves, current
            if current is None:
                # the alias was deleted by hand: nothing is served, and the next promotion starts from there
                return moves, None
            previous = moves[-1].version if moves else None
            decision = self.record(
                Decision(
                    model=self.model,
                    version=current,
                    previous=previous,
                    action="outside",
                    outcome="promoted",
                    check="",
                    reason="the alias was moved outside of `mlops promote`",
                )
            )
            move = self.claim(len(moves) + 1, decision, "outside", current, previous)
            if move:
                self.registry.write_once(self.sequence, f"{_key(move.number)}.applied", "true")

    def record(self, decision: Decision) -> str:
        """Append the decision as a run of the experiment `promotions`; returns the run's id."""
        texts = {key: str(value or "") for key, value in asdict(decision).items() if key not in _NOT_TAGS}
        tags = {f"mlops.{key}": value[:MAX_TEXT] for key, value in texts.items()}
        name = f"{decision.model} {decision.action} {decision.version}"
        experiment = self.registry.ensure_experiment(PROMOTIONS_EXPERIMENT)
        run_id = self.registry.create_run(experiment, name, {"mlops.kind": "decision", **tags})
        if decision.metrics:
            self.registry.log(run_id, metrics=decision.metrics)
        self.registry.finish_run(run_id)
        return run_id

    def amend(self, run_id: str, outcome: str, check: str, reason: str) -> None:
        """Say how a recorded decision ended."""
        tags = {"mlops.outcome": outcome, "mlops.check": check, "mlops.reason": reason[:MAX_TEXT]}
        self.registry.log(run_id, tags=tags)

    def history(self, limit: int = 1000) -> list[Decision]:
        """Decisions, newest first. What moved production is told from the sequence, not from what a run says."""
        won = {move.decision for move in self.moves()}
        runs = self.registry.search_runs(
            PROMOTIONS_EXPERIMENT, {"mlops.kind": "decision", "mlops.model": self.model}, limit
        )
        found = []
        for run in runs:
            values: dict[str, Any] = {key: run.tags.get(f"mlops.{key}", "") for key in _TEXTS}
            if run.run_id in won:
                values["outcome"] = "promoted"
            elif values["outcome"] == "promoted":
                values |= {"outcome": "refused", "check": "concurrent", "reason": "it ended before it was decided"}
            values["previous"] = values["previous"] or None
            found.append(Decision(**values, metrics=run.metrics, time=run.started, run_id=run.run_id))
        return found


def _key(number: int) -> str:
    return f"move.{number:06d}"


_NOT_TAGS = {"metrics", "time", "run_id"}
_TEXTS = [name for name in Decision.__dataclass_fields__ if name not in _NOT_TAGS]
