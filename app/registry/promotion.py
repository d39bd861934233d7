"""Promotion and rollback: the one way the alias `production` moves, for the flow, the command line and the pages."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from pydantic import TypeAdapter, ValidationError

from app.clients.mlflow import MlflowClient, MlflowError, ModelVersion, NotFound, RegisteredModel
from app.registry import canary as canaries
from app.registry.challenger import challenge, shadow_of, take_alias
from app.registry.gate import Refused, judge, load_version
from app.registry.gate_metrics import BY_TASK
from app.registry.ledger import Decision, Ledger, Move, adopt_model
from app.vocabulary import Definition

DEFINITION_TAG = "mlops.definition"  # of the registered model: by what its last candidate was judged, for the pages
_DEFINITION = TypeAdapter(Definition)


def promote(
    registry: MlflowClient,
    model: str,
    version: str | None = None,
    *,
    definition: Definition,
    who: str,
    why: str = "",
    cause: str = "",
    allow_signature_change: bool = False,
    only_if_better: bool = False,
    canary: float | None = None,
) -> Decision:
    """Put a version into production if it passes the gate, or beside it as a canary.

    Checks, in this order: `bundle` (files and checksums), `golden` (the serving loader answers as the estimator did),
    `definition` (task and target are the model file's), `signature` (same features and types as production),
    `threshold` (the metric on the held-out rows), `regression` (against production on the same rows; with
    only_if_better it is `better`), `shadow` (enough rows as the challenger, answered enough alike, where the gate asks
    for it), `concurrent` (production was moved meanwhile). A version that lacks nothing but rows in the shadow becomes
    the challenger.

    Args:
        version: by default the newest.
        definition: what the model file says, as it is deployed; it is noted in MLflow, for who has no model files.
        who, why, cause: for the ledger.
        only_if_better: the metric must be better than production's; as good, or a little worse, is refused.
        canary: a share of the requests, above 0 and below 1: production stays, and the version answers so many of them
            beside it. Without one the version is to answer all, and the canary that there may be ends.

    Returns:
        the decision: promoted or (as a canary) started, refused (with check and reason), or unchanged when the version
        is in production already.

    Raises:
        ValueError: the canary's share is none, or it may change the signature.
        NotFound: no such model or version.
        MlflowError: a canary is to be the version in production, or nothing is there; or MLflow does not answer.
    """
    _note(registry, adopt_model(registry, model), definition)
    ledger = Ledger(registry, model)
    candidate = _version(registry, model, version)
    moves, current = ledger.settle()
    decision = Decision(
        model=model,
        version=candidate.version,
        previous=current,
        action="promote" if canary is None else "canary",
        outcome="promoted" if canary is None else "started",
        check="",
        reason="",
        who=who,
        why=why,
        cause=cause,
    )
    if canary is not None:
        if allow_signature_change:
            raise ValueError("a canary answers the requests that production does: no other signature can be allowed")
        canaries.check_canary(model, candidate.version, canary, current)
    elif current == candidate.version:
        return replace(decision, outcome="unchanged", reason=f"version {current} is in production already")
    take_alias(registry, model, candidate.version)
    verdict = judge(registry, candidate, current, definition, allow_signature_change, only_if_better)
    decision = replace(decision, check=verdict.check, reason=verdict.reason, metrics=verdict.metrics)
    if verdict.needs_rows:
        decision = replace(decision, reason=f"{verdict.reason}; {_let_challenge(registry, decision)}")
    if verdict.check:
        return ledger.record(replace(decision, outcome="refused"))
    if canary is not None:
        decision = replace(decision, reason=f"it answers {canary:g} of the requests; {verdict.reason}")
        return canaries.start(ledger, moves, decision, canary)
    return _move(ledger, moves, decision)


def _let_challenge(registry: MlflowClient, decision: Decision) -> str:
    """Make the version of the decision the challenger, if it is not; says so, and how to go on."""
    model, version = decision.model, decision.version
    shadow = shadow_of(registry.model(model))
    runs = shadow is not None and shadow[0] == version
    if not runs:
        why = "it lacks nothing but rows in the shadow to be promoted"
        challenge(registry, model, version, 1.0, who=decision.who, why=why, cause=decision.cause)
    return (
        f"it is the challenger{'' if runs else ' now'}; promote it when it has seen them: "
        f"mlops promote {model} --version {version}"
    )


def rollback(registry: MlflowClient, model: str, *, who: str, why: str = "", cause: str = "") -> Decision:
    """Return production to the version before, as the ledger has it; again, to the one before that.

    The version must still pass `bundle` and `golden`; it is not measured against the one it replaces.

    Args:
        who, why, cause: for the ledger.

    Returns:
        the decision: promoted or refused.

    Raises:
        NotFound: no such model.
        MlflowError: MLflow does not answer.
    """
    ledger = Ledger(registry, model)
    moves, current = ledger.settle()
    before = _version_before(moves)
    decision = Decision(
        model=model,
        version=before or "",
        previous=current,
        action="rollback",
        outcome="promoted",
        check="",
        reason=f"returned from version {current} to version {before}",
        who=who,
        why=why,
        cause=cause,
    )
    try:
        if before is None:
            raise Refused("history", f"there is no version before {current or 'the first promotion'}")
        try:
            load_version(registry, _version(registry, model, before))
        except NotFound as error:
            raise Refused("bundle", f"version {before} was deleted: {error}") from error
    except Refused as refusal:
        return ledger.record(replace(decision, outcome="refused", check=refusal.check, reason=str(refusal)))
    return _move(ledger, moves, decision)


def history(registry: MlflowClient, model: str, limit: int = 1000) -> list[Decision]:
    """The decisions about a model, newest first; none for a model that is not registered.

    Raises:
        MlflowError: MLflow does not answer.
    """
    try:
        return Ledger(registry, model).history(limit)
    except NotFound:
        return []


def noted_definition(model: RegisteredModel) -> Definition | None:
    """By what the model's last candidate was judged, for who has no model files; None where none was yet.

    Training Jobs cannot write it.

    Raises:
        MlflowError: what MLflow has is none.
    """
    text = model.tags.get(DEFINITION_TAG)
    if text is None:
        return None
    try:
        definition = _DEFINITION.validate_json(text)
    except ValidationError as error:
        raise MlflowError(f"the tag {DEFINITION_TAG} of {model.name} is damaged: {error.errors()[0]['msg']}") from error
    if definition.gate.metric not in BY_TASK[definition.task]:
        raise MlflowError(f"the tag {DEFINITION_TAG} of {model.name} has an unknown metric: {definition.gate.metric!r}")
    return definition


def _note(registry: MlflowClient, model: RegisteredModel, definition: Definition) -> None:
    text = json.dumps(asdict(definition))
    if model.tags.get(DEFINITION_TAG) != text:
        registry.set_model_tag(model.name, DEFINITION_TAG, text)


def _move(ledger: Ledger, moves: list[Move], decision: Decision) -> Decision:
    """Move production as decided, which ends a canary: it was measured against the version before."""
    decision = ledger.move(moves, decision)
    if not decision.refused:
        canaries.forget(ledger.registry, ledger.model)
    return decision


def _version_before(moves: list[Move]) -> str | None:
    """The version a rollback goes to: moves are a stack, on which a rollback takes one off."""
    stack: list[str] = []
    for move in moves:
        if move.action == "rollback" and len(stack) > 1:
            stack.pop()
        elif not stack or stack[-1] != move.version:
            stack.append(move.version)
    return stack[-2] if len(stack) > 1 else None


def _version(registry: MlflowClient, model: str, version: str | None) -> ModelVersion:
    """The version of this number, by default the newest; the error says which there are."""
    if version:
        try:
            return registry.version(model, version)
        except NotFound as error:
            numbers = ", ".join(v.version for v in registry.versions(model)) or "none"
            raise NotFound(f"{model} has no version {version!r}; it has: {numbers}", error.code) from error
    versions = registry.versions(model)
    if not versions:
        raise NotFound(f"{model} has no versions; run `mlops train {model}`")
    return versions[0]
