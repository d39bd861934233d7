"""Promotion and rollback: the one way the alias `production` moves, for the flow, the command line and the pages."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

from app.clients.mlflow import CHALLENGER, MlflowClient, ModelVersion, NotFound
from app.registry.bundle import Bundle, BundleError, fetch_bundle
from app.registry.gate_metrics import LOWER_IS_BETTER, at_least_as_good, better, evaluate
from app.registry.ledger import Decision, Ledger, Move
from app.registry.predictor import Predictor, load_predictor


class Refused(Exception):
    """A check of the gate said no. `check` is its name, the message has the figures of both sides."""

    def __init__(self, check: str, reason: str, metrics: dict[str, float] | None = None) -> None:
        super().__init__(reason)
        self.check, self.metrics = check, metrics or {}


def cache_dir() -> Path:
    """Where bundles are kept that were downloaded to be checked: MLOPS_CACHE_DIR, by default .mlops/cache."""
    return Path(os.environ.get("MLOPS_CACHE_DIR", ".mlops/cache")) / "gate"


def promote(
    registry: MlflowClient,
    model: str,
    version: str | None = None,
    *,
    who: str,
    why: str = "",
    cause: str = "",
    allow_signature_change: bool = False,
    only_if_better: bool = False,
) -> Decision:
    """Put a version into production if it passes the gate.

    Checks, in this order: `bundle` (files and checksums), `golden` (the serving loader answers as the estimator did),
    `signature` (same features and types as production), `threshold` (the metric on the held-out rows),
    `regression` (against production on the same rows; with only_if_better it is `better`), `concurrent` (production was
    moved meanwhile).

    Args:
        version: by default the newest.
        who, why, cause: for the ledger.
        only_if_better: the metric must be better than production's; as good, or a little worse, is refused.

    Returns:
        the decision: promoted, refused (with check and reason), or unchanged when the version is in production already.

    Raises:
        NotFound: no such model or version.
        MlflowError: MLflow does not answer.
    """
    ledger = Ledger(registry, model)
    candidate = _version(registry, model, version)
    moves, current = ledger.settle()
    draft = Decision(
        model=model,
        version=candidate.version,
        previous=current,
        action="promote",
        outcome="promoted",
        check="",
        reason="it passed every check",
        who=who,
        why=why,
        cause=cause,
    )
    if current == candidate.version:
        return replace(draft, outcome="unchanged", reason=f"version {current} is in production already")
    registry.set_alias(model, CHALLENGER, candidate.version)
    try:
        metrics, reason = _gate(registry, candidate, current, allow_signature_change, only_if_better)
    except Refused as refusal:
        return _refuse(ledger, draft, refusal)
    return _move(ledger, moves, replace(draft, metrics=metrics, reason=reason))


def rollback(registry: MlflowClient, model: str, *, who: str, why: str = "", cause: str = "") -> Decision:
    """Return production to the version before, as the ledger has it; again, to the one before that.

    The version must still pass `bundle` and `golden`; it is not measured against the one it replaces.

    Returns:
        the decision: promoted or refused.
    """
    ledger = Ledger(registry, model)
    moves, current = ledger.settle()
    before = _before(moves)
    draft = Decision(
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
            _load(registry, _version(registry, model, before))
        except NotFound as error:
            raise Refused("bundle", f"version {before} was deleted: {error}") from error
    except Refused as refusal:
        return _refuse(ledger, draft, refusal)
    return _move(ledger, moves, draft)


def history(registry: MlflowClient, model: str, limit: int = 1000) -> list[Decision]:
    """The decisions about a model, newest first; none for a model that is not registered."""
    try:
        return Ledger(registry, model).history(limit)
    except NotFound:
        return []


def _before(moves: list[Move]) -> str | None:
    """The version a rollback goes to: moves are a stack, on which a rollback takes one off."""
    stack: list[str] = []
    for move in moves:
        if move.action == "rollback" and len(stack) > 1:
            stack.pop()
        elif not stack or stack[-1] != move.version:
            stack.append(move.version)
    return stack[-2] if len(stack) > 1 else None


def _version(registry: MlflowClient, model: str, version: str | None) -> ModelVersion:
    if version:
        try:
            return registry.version(model, version)
        except NotFound as error:
            have = ", ".join(v.version for v in registry.versions(model)) or "none"
            raise NotFound(f"{model} has no version {version!r}; it has: {have}", error.code) from error
    found = registry.versions(model)
    if not found:
        raise NotFound(f"{model} has no versions; run `mlops train {model}`")
    return found[0]


def _load(registry: MlflowClient, version: ModelVersion) -> tuple[Bundle, Predictor]:
    try:
        bundle = fetch_bundle(registry, version, cache_dir())
    except BundleError as error:
        raise Refused("bundle", str(error)) from error
    try:
        return bundle, load_predictor(bundle)
    except BundleError as error:
        raise Refused("golden", str(error)) from error


def _held_out(registry: MlflowClient, version: ModelVersion) -> pd.DataFrame:
    path = registry.bundle_path(version).rsplit("/", 1)[0] + "/evaluation/held_out.parquet"
    try:
        return pd.read_parquet(io.BytesIO(registry.read_artifact(path)))
    except NotFound as error:
        raise Refused("bundle", f"the held-out rows of version {version.version} are missing ({path})") from error
    except (ValueError, OSError) as error:
        raise Refused("bundle", f"the held-out rows of version {version.version} are damaged: {error}") from error


def _measure(bundle: Bundle, predictor: Predictor, rows: pd.DataFrame) -> dict[str, float]:
    features = rows[[feature.name for feature in bundle.features]]
    served = predictor.predict(features.astype(object).to_numpy().tolist())
    return evaluate(bundle.task, rows[bundle.target].tolist(), served.labels)


def _gate(
    registry: MlflowClient,
    candidate: ModelVersion,
    current: str | None,
    allow_signature_change: bool,
    only_if_better: bool,
) -> tuple[dict[str, float], str]:
    """The metrics of both sides and the sentence that says why it passed."""
    bundle, predictor = _load(registry, candidate)
    name = bundle.gate.metric
    threshold, margin = bundle.gate.threshold, bundle.gate.max_regression
    in_production = _production(registry, candidate.name, current)
    if in_production and not allow_signature_change:
        _same_signature(bundle, in_production[0], str(current))

    rows = _held_out(registry, candidate)
    ours = _measure(bundle, predictor, rows)
    metrics = {f"candidate_{key}": value for key, value in ours.items()}
    said = f"{name} {ours[name]:.4f}"
    if not at_least_as_good(name, ours[name], threshold):
        limit = "above" if name in LOWER_IS_BETTER else "below"
        raise Refused("threshold", f"{said} is {limit} the threshold {threshold:.4f}", metrics)
    if not in_production or in_production[0].target != bundle.target or not _same_features(bundle, in_production[0]):
        return metrics, f"{said} passes the threshold {threshold:.4f}; nothing to compare it with is in production"

    theirs = _measure(*in_production, rows)
    metrics |= {f"production_{key}": value for key, value in theirs.items()}
    if only_if_better:
        against = f"production's (version {current}) {theirs[name]:.4f} on the same held-out rows"
        if not better(name, ours[name], theirs[name]):
            raise Refused("better", f"{said} is not better than {against}: there is nothing to gain", metrics)
        return metrics, f"{said} passes the threshold {threshold:.4f} and is better than {against}"
    bound = theirs[name] + margin if name in LOWER_IS_BETTER else theirs[name] - margin
    against = f"production's (version {current}) {theirs[name]:.4f}, allowed margin {margin:.4f}"
    if not at_least_as_good(name, ours[name], bound):
        raise Refused("regression", f"{said} is worse than {against}", metrics)
    return metrics, f"{said} passes the threshold {threshold:.4f} and {against}"


def _production(registry: MlflowClient, model: str, current: str | None) -> tuple[Bundle, Predictor] | None:
    """What serves now, or None where that is nothing that could be compared with."""
    if current is None:
        return None
    try:
        return _load(registry, registry.version(model, current))
    except (Refused, NotFound):
        return None  # production is broken or gone: no reason to keep its successor out


def _same_features(one: Bundle, other: Bundle) -> bool:
    return {f.name: f.dtype for f in one.features} == {f.name: f.dtype for f in other.features}


def _same_signature(candidate: Bundle, production: Bundle, current: str) -> None:
    ours = {feature.name: feature.dtype for feature in candidate.features}
    theirs = {feature.name: feature.dtype for feature in production.features}
    differences = [
        f"{name} is {ours.get(name, 'missing')} here and {theirs.get(name, 'missing')} there"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    if candidate.task != production.task:
        differences.append(f"the task is {candidate.task} here and {production.task} there")
    if differences:
        raise Refused(
            "signature",
            f"requests that version {current} answers would fail: {'; '.join(differences)}. "
            "Promote with --allow-signature-change once every caller is ready",
        )


def _refuse(ledger: Ledger, draft: Decision, refusal: Refused) -> Decision:
    decision = replace(
        draft, outcome="refused", check=refusal.check, reason=str(refusal), metrics=refusal.metrics or draft.metrics
    )
    return replace(decision, run_id=ledger.record(decision))


def _move(ledger: Ledger, moves: list[Move], draft: Decision) -> Decision:
    """Write the decision, then try to be the next move of the sequence."""
    decision = replace(draft, run_id=ledger.record(draft))
    move = ledger.claim(len(moves) + 1, decision.run_id, draft.action, draft.version, draft.previous)
    if move:
        ledger.apply(move)
        if ledger.registry.model(draft.model).aliases.get(CHALLENGER) == draft.version:
            ledger.registry.delete_alias(draft.model, CHALLENGER)
        return decision
    winner = ledger.moves()[len(moves)]
    reason = (
        f"production was moved from {draft.previous or 'nothing'} to version {winner.version} while this was checked; "
        "run it again to be measured against that"
    )
    ledger.amend(decision.run_id, "refused", "concurrent", reason)
    return replace(decision, outcome="refused", check="concurrent", reason=reason)
