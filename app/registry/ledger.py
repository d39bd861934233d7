"""The promotion ledger: every decision about a model, and the order of those that moved `production`.

Each decision, refused ones included, is a run of the MLflow experiment `promotions`. Which of them moved the alias, and
in which order, is written in one more run per model, its *sequence*: the parameter `move.000001` names the first
decision that won, and so on. MLflow lets nobody change a parameter, so of any number of clients that try to write the
same move exactly one succeeds, without a lock that a killed client could leave behind. The alias follows the sequence:
whoever finds it behind moves it on. Before a client sets the alias it says so in the sequence
(`move.000001.setting.*`), and afterwards that it has (`move.000001.set.*`): an alias that a slow client turned back can
be told from one that was moved by hand.
"""

from __future__ import annotations

import json
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from app.clients.mlflow import (
    CHALLENGER,
    PRODUCTION,
    Conflict,
    MlflowClient,
    MlflowError,
    NotFound,
    RegisteredModel,
    Run,
)
from app.vocabulary import Action, Check, Outcome

PROMOTIONS_EXPERIMENT = "promotions"
SEQUENCE_TAG = "mlops.promotion_sequence"  # of the registered model: the id of its sequence run
SLOWEST = 3600.0  # seconds: a client that set out to move the alias longer ago has ended
MAX_TEXT = 4000  # a tag's value may have 5,000 characters


@dataclass(frozen=True)
class Move:
    """One entry of the sequence: production went from `previous` to `version`."""

    number: int
    decision: str  # run id
    action: Action
    version: str
    previous: str | None
    applied: bool  # the alias was seen at `version` since


@dataclass(frozen=True)
class Decision:
    """What was decided about a version, and why."""

    model: str
    version: str  # "" for a rollback that has no version to go to
    previous: str | None  # the version that was in production
    action: Action
    outcome: Outcome
    check: Check | Literal[""]  # the check that refused the version; "" when none did
    reason: str
    metrics: dict[str, float] = field(default_factory=dict)
    who: str = ""
    why: str = ""
    cause: str = ""  # what started it: a flow run, an alert
    time: float = 0.0  # seconds since the epoch
    run_id: str = ""

    @property
    def refused(self) -> bool:
        """Whether production stays as it is because a check refused the version."""
        return self.outcome == "refused"


def ensure_model(registry: MlflowClient, name: str) -> RegisteredModel:
    """The registered model with its sequence, both created where they are missing.

    The model is born with its sequence: the name is unique in MLflow, so however many clients race, one sequence is
    chosen, and those of the others stay empty. The account of trainings may begin a sequence and write nothing in it.
    """
    try:
        model = registry.model(name)
    except NotFound:
        sequence = _new_sequence(registry, name)
        with suppress(Conflict):
            registry.create_model(name, {SEQUENCE_TAG: sequence})
        model = registry.model(name)
    return model


def adopt_model(registry: MlflowClient, name: str) -> RegisteredModel:
    """The registered model; one that was registered by hand, outside the platform, gets its sequence now.

    Raises:
        NotFound: the model is not registered.
    """
    try:
        model = registry.model(name)
    except NotFound as error:
        raise NotFound(f"no model {name!r} is registered; run `mlops train {name}`", error.code) from error
    if SEQUENCE_TAG not in model.tags:
        registry.set_model_tag(name, SEQUENCE_TAG, _new_sequence(registry, name))
        model = registry.model(name)
    return model


def _new_sequence(registry: MlflowClient, name: str) -> str:
    experiment = registry.ensure_experiment(PROMOTIONS_EXPERIMENT)
    return registry.create_run(experiment, f"{name} sequence", {"mlops.kind": "sequence", "mlops.model": name})


class Ledger:
    """The ledger of one registered model.

    Raises:
        NotFound: the model is not registered.
        MlflowError: it was registered by other means and has no sequence yet; or, as by every method, MLflow does not
            answer.
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

    @cached_property
    def _experiment(self) -> str | None:
        return self.registry.find_experiment(PROMOTIONS_EXPERIMENT)

    def moves(self) -> list[Move]:
        """Every move of production, oldest first.

        Raises:
            MlflowError: the sequence is none of the ledger's: whoever registered the model could write it.
        """
        return self._moves(self._params())

    def _params(self) -> dict[str, str]:
        """What is written in the sequence."""
        run = self.registry.run(self.sequence)
        # the account of trainings names the sequence of a new model, and writes every experiment but the ledger's
        if run.experiment_id != self._experiment or run.tags.get("mlops.model") != self.model:
            raise MlflowError(
                f"the tag {SEQUENCE_TAG} of the model {self.model} names the run {self.sequence}, which is not its "
                f"sequence in the experiment {PROMOTIONS_EXPERIMENT}. Nothing was moved. Delete the tag on MLflow's "
                "page, as admin: the next promotion begins a new ledger"
            )
        return run.params

    @staticmethod
    def _moves(params: dict[str, str]) -> list[Move]:
        moves: list[Move] = []
        while (text := params.get(_key(len(moves) + 1))) is not None:
            number = len(moves) + 1
            moves.append(Move(number=number, applied=f"{_key(number)}.applied" in params, **json.loads(text)))
        return moves

    def claim(self, number: int, decision: Decision) -> Move | None:
        """Write the recorded decision as move `number`; None when another client's decision has that number."""
        body = {
            "decision": decision.run_id,
            "action": decision.action,
            "version": decision.version,
            "previous": decision.previous,
        }
        try:
            self.registry.write_once(self.sequence, _key(number), json.dumps(body))
        except Conflict:
            return None
        return Move(number, decision.run_id, decision.action, decision.version, decision.previous, applied=False)

    def apply(self, move: Move) -> None:
        """Move the alias to where the sequence says it is.

        A client that was slow may set the alias after a later move did, so each looks once more afterwards and sets
        what is then the last move.
        """
        me, tried = secrets.token_hex(4), []
        while True:
            self.registry.write_once(self.sequence, f"{_key(move.number)}.setting.{me}", str(time.time()))
            self.registry.set_alias(self.model, PRODUCTION, move.version)
            tried.append(move)
            last = self.moves()[-1]
            if last.number == move.number:
                break
            move = last
        self._mark_applied(move)
        for done in tried:
            self.registry.write_once(self.sequence, f"{_key(done.number)}.set.{me}", "true")

    def settle(self) -> tuple[list[Move], str | None]:
        """Bring sequence and alias together; returns the moves and the version in production.

        A move that was won but not applied (its client was killed) is applied now, and so is the last move where a slow
        client of an earlier one turned the alias back. An alias that was moved by hand is taken over as a move of its
        own.
        """
        while True:
            moves = self.moves()
            production = self.registry.version_by_alias(self.model, PRODUCTION)
            current = production.version if production else None
            params = self._params()
            if self._moves(params) != moves:  # production was moved between these lines
                continue
            if moves and (not moves[-1].applied or self._is_turned_back(moves, current, params)):
                self.apply(moves[-1])
                continue
            previous = moves[-1].version if moves else None
            # an alias that was deleted by hand: nothing is served, and the next promotion starts from there
            if current in (previous, None):
                return moves, current
            self._take_over(len(moves) + 1, str(current), previous)

    @staticmethod
    def _is_turned_back(moves: list[Move], current: str | None, params: dict[str, str]) -> bool:
        """Whether the alias is where a client that is still under way may have set it, against the last move."""
        if current == moves[-1].version:
            return False
        begun = tuple(f"{_key(move.number)}.setting." for move in moves[:-1] if move.version == current)
        return any(
            key.startswith(begun)
            and key.replace(".setting.", ".set.") not in params
            and time.time() - float(at) < SLOWEST
            for key, at in params.items()
        )

    def _take_over(self, number: int, version: str, previous: str | None) -> None:
        """Enter a move of the alias that was made by hand, unless another client did."""
        decision = self.record(
            Decision(
                model=self.model,
                version=version,
                previous=previous,
                action="outside",
                outcome="promoted",
                check="",
                reason="the alias was moved outside of `mlops promote`",
            )
        )
        move = self.claim(number, decision)
        if move:
            self._mark_applied(move)

    def move(self, moves: list[Move], decision: Decision) -> Decision:
        """Record the decision and move production as it says, unless another client moved it after `moves`.

        Args:
            moves: the sequence as it was when the decision was made.

        Returns:
            the decision with its run id; refused by the check `concurrent` when another client was faster.
        """
        decision = self.record(decision)
        move = self.claim(len(moves) + 1, decision)
        if move:
            self.apply(move)
            if self.registry.model(self.model).aliases.get(CHALLENGER) == decision.version:
                self.registry.delete_alias(self.model, CHALLENGER)
            return decision
        winner = self.moves()[len(moves)]
        reason = (
            f"production was moved from {decision.previous or 'nothing'} to version {winner.version} while this was "
            "checked; run it again to be measured against that"
        )
        return self.amend(replace(decision, outcome="refused", check="concurrent", reason=reason))

    def record(self, decision: Decision) -> Decision:
        """Append the decision as a run of the experiment `promotions`; returns it with the run's id."""
        texts = {key: str(value or "") for key, value in asdict(decision).items() if key not in _NOT_TAGS}
        tags = {f"mlops.{key}": value[:MAX_TEXT] for key, value in texts.items()}
        name = f"{decision.model} {decision.action} {decision.version}"
        experiment = self.registry.ensure_experiment(PROMOTIONS_EXPERIMENT)
        run_id = self.registry.create_run(experiment, name, {"mlops.kind": "decision", **tags})
        if decision.metrics:
            self.registry.log(run_id, metrics=decision.metrics)
        self.registry.finish_run(run_id)
        return replace(decision, run_id=run_id)

    def history(self, limit: int = 1000) -> list[Decision]:
        """Decisions, newest first. What moved production is read from the sequence, not from what a run says."""
        winners = {move.decision for move in self.moves()}
        tags = {"mlops.kind": "decision", "mlops.model": self.model}
        runs = self.registry.search_runs(PROMOTIONS_EXPERIMENT, tags, limit)
        return [_decision(run, run.run_id in winners) for run in runs]

    def amend(self, decision: Decision) -> Decision:
        """Write into the run of a recorded decision how it ended."""
        tags = {
            "mlops.outcome": decision.outcome,
            "mlops.check": decision.check,
            "mlops.reason": decision.reason[:MAX_TEXT],
        }
        self.registry.log(decision.run_id, tags=tags)
        return decision

    def _mark_applied(self, move: Move) -> None:
        self.registry.write_once(self.sequence, f"{_key(move.number)}.applied", "true")


def _key(number: int) -> str:
    return f"move.{number:06d}"


_NOT_TAGS = {"metrics", "time", "run_id"}
_TEXTS = [name for name in Decision.__dataclass_fields__ if name not in _NOT_TAGS]


def _decision(run: Run, won: bool) -> Decision:
    """The decision that a run records. won: it is in the sequence."""
    values: dict[str, Any] = {key: run.tags.get(f"mlops.{key}", "") for key in _TEXTS}
    values["previous"] = values["previous"] or None
    decision = Decision(**values, metrics=run.metrics, time=run.started, run_id=run.run_id)
    if won:
        return replace(decision, outcome="promoted")
    if decision.outcome == "promoted":
        return replace(decision, outcome="refused", check="concurrent", reason="it ended before it was decided")
    return decision
