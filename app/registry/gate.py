"""The promotion gate: what a version is measured by before it may go into production.

The checks compare what they are given and nothing else. `judge` gets it for them: the bundles, loaded as the API loads
them, and the rows that training held out. What a version must reach is in its model file as it is deployed, and not in
the version, all of which is written by whoever registers it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from app.clients.mlflow import MlflowClient, ModelVersion, NotFound
from app.registry.bundle import FEEDBACK, HELD_OUT, Bundle, BundleError, fetch_bundle, read_gate_file
from app.registry.cache import prune
from app.registry.challenger import why_not_comparable
from app.registry.gate_metrics import LOWER_IS_BETTER, at_least_as_good, better, evaluate
from app.registry.predictor import Predictor, load_predictor, plain_rows
from app.registry.shadow_record import ShadowCounts
from app.registry.shadow_record import read as read_shadow
from app.vocabulary import Check, Definition, Gate

Metrics = dict[str, float]
MIN_FEEDBACK = 10  # rows; by fewer nobody can tell which version is better


class Refused(Exception):
    """A check refused the version. `check` is its name, the message has the values of both sides."""

    def __init__(self, check: Check, reason: str) -> None:
        super().__init__(reason)
        self.check = check


class TooFewRows(Refused):
    """The version has not got enough rows in the shadow yet, and nothing else speaks against it."""

    def __init__(self, reason: str) -> None:
        super().__init__("shadow", reason)


@dataclass(frozen=True)
class Verdict:
    """What the gate makes of a version.

    check: the one that refused it, "" when it passed all; reason: with the values of both sides.
    metrics: those of the candidate and of production, as far as they were measured, such as candidate_accuracy.
    needs_rows: it passed all but `shadow`, and that for want of rows.
    """

    check: Check | Literal[""]
    reason: str
    metrics: Metrics = field(default_factory=dict)
    needs_rows: bool = False


@dataclass(frozen=True)
class LoadedVersion:
    """A version that passed the checks `bundle` and `golden`."""

    version: str
    bundle: Bundle
    predictor: Predictor

    def measure(self, rows: pd.DataFrame) -> Metrics:
        """Every metric of the model's task on these rows, which hold the features and the target."""
        features = rows[[feature.name for feature in self.bundle.features]]
        predictions = self.predictor.predict(plain_rows(features))
        return evaluate(self.bundle.task, rows[self.bundle.target].tolist(), predictions.labels)


# -- the checks ----------------------------------------------------------------------------------------------------


def check_definition(candidate: Bundle, definition: Definition) -> None:
    """Whether the candidate is what the model file describes.

    Raises:
        Refused: it predicts another target, or for another task.
    """
    if (candidate.task, candidate.target) != (definition.task, definition.target):
        raise Refused(
            "definition",
            f"it predicts {candidate.target!r} ({candidate.task}), the model file says {definition.target!r} "
            f"({definition.task}): train it with the model file as it is now",
        )


def signature_differences(candidate: Bundle, production: Bundle) -> list[str]:
    """What is different between the features of two versions, in the words of the check `signature`."""
    new = {feature.name: feature.dtype for feature in candidate.features}
    old = {feature.name: feature.dtype for feature in production.features}
    needed = {feature.name for feature in candidate.features if not feature.nullable}
    return (
        [
            f"{name} is {new.get(name, 'missing')} here and {old.get(name, 'missing')} there"
            for name in sorted(new.keys() | old.keys())
            if new.get(name) != old.get(name)
        ]
        + [
            f"{feature.name} may be without a value there and not here (nullable in the model file)"
            for feature in production.features
            if feature.nullable and feature.name in needed
        ]
        + list(_refused_categories(candidate, production))
    )


def _refused_categories(candidate: Bundle, production: Bundle) -> Iterator[str]:
    """Which values the candidate refuses that production answers."""
    old = {feature.name: feature.categories for feature in production.features}
    for feature in candidate.features:
        if not feature.categories or feature.name not in old:
            continue
        if not old[feature.name]:
            yield f"{feature.name} may be any text there and not here (categories in the model file)"
        elif gone := [value for value in old[feature.name] if value not in feature.categories]:
            yield f"{feature.name} may be {', '.join(gone[:3])} there and not here (none of the rows trained on)"


def check_signature(candidate: Bundle, production: Bundle, version: str) -> None:
    """Whether requests that production answers can be answered by the candidate.

    Args:
        version: the one in production, for the reason.

    Raises:
        Refused: features, their types or the task differ.
    """
    differences = signature_differences(candidate, production)
    if candidate.task != production.task:
        differences.append(f"the task is {candidate.task} here and {production.task} there")
    if differences:
        raise Refused(
            "signature",
            f"requests that version {version} answers would fail: {'; '.join(differences)}. "
            "Promote with --allow-signature-change once every caller is ready",
        )


def check_threshold(gate: Gate, value: float) -> str:
    """Whether the gate's metric reaches its threshold.

    Returns:
        why it passes, such as "accuracy 0.9737 passes the threshold 0.8500".

    Raises:
        Refused: it does not.
    """
    if not at_least_as_good(gate.metric, value, gate.threshold):
        side = "above" if gate.metric in LOWER_IS_BETTER else "below"
        raise Refused("threshold", f"{gate.metric} {value:.4f} is {side} the threshold {gate.threshold:.4f}")
    return f"{gate.metric} {value:.4f} passes the threshold {gate.threshold:.4f}"


def check_regression(gate: Gate, value: float, production: float, version: str) -> str:
    """Whether the gate's metric is at most `gate.max_regression` worse than production's.

    Args:
        value, production: the metric of both on the same rows.
        version: the one in production, for the reason.

    Returns:
        what it passes, such as "production's (version 3) 0.9737, allowed margin 0.0200".

    Raises:
        Refused: it is worse.
    """
    margin = gate.max_regression if gate.metric in LOWER_IS_BETTER else -gate.max_regression
    comparison = f"production's (version {version}) {production:.4f}, allowed margin {gate.max_regression:.4f}"
    if not at_least_as_good(gate.metric, value, production + margin):
        raise Refused("regression", f"{gate.metric} {value:.4f} is worse than {comparison}")
    return comparison


def check_better(
    gate: Gate, value: float, production: float, version: str, on_feedback: tuple[float, float] | None = None
) -> str:
    """Whether there is something to gain: the gate's metric is better than production's, not merely as good.

    On the held-out rows; or on rows of feedback, where on the held-out rows it passes `regression`. So feedback can
    tell that a version learned something, and never that it is good enough.

    Args, returns and raises as `check_regression`.
        on_feedback: the metric of candidate and production on rows of feedback; None where there are too few.
    """
    comparison = f"production's (version {version}) {production:.4f} on the same held-out rows"
    if better(gate.metric, value, production):
        return f"is better than {comparison}"
    if on_feedback is None:
        raise Refused("better", f"{gate.metric} {value:.4f} is not better than {comparison}: there is nothing to gain")
    passed = check_regression(gate, value, production, version)
    fed_back = f"{on_feedback[0]:.4f} on feedback is %s than production's {on_feedback[1]:.4f}"
    if not better(gate.metric, *on_feedback):
        raise Refused(
            "better",
            f"{gate.metric} {value:.4f} is not better than {comparison}, and {fed_back % 'not better'}: "
            "there is nothing to gain",
        )
    return f"{passed}, and {fed_back % 'better'}"


def check_shadow(gate: Gate, counts: ShadowCounts, production: str) -> str:
    """Whether the candidate got enough of production's rows in the shadow, and answered enough of them alike.

    Args:
        counts: what came of these rows.
        production: the version in production, for the reason.

    Returns:
        what it passes, such as "it disagrees with version 3 on 1.50% of 2000 rows in the shadow, allowed are 5.00%".

    Raises:
        TooFewRows: it has not got enough.
        Refused: it disagrees on too many.
    """
    if counts.rows < gate.min_shadow_rows:
        raise TooFewRows(
            f"it has got {counts.rows} of the {gate.min_shadow_rows} rows of version {production} "
            "that the gate asks for in the shadow"
        )
    disagreement = counts.disagreement or 0.0
    comparison = (
        f"with version {production} on {disagreement:.2%} of {counts.rows} rows in the shadow"
        + (f" ({counts.failed} of which it failed on)" if counts.failed else "")
        + f", allowed are {gate.max_disagreement:.2%}"
    )
    if disagreement > gate.max_disagreement:
        raise Refused("shadow", f"it disagrees {comparison}")
    return f"it disagrees {comparison}"


# -- what they compare -----------------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """Where bundles are kept that were downloaded to be checked: MLOPS_CACHE_DIR, by default .mlops/cache."""
    return Path(os.environ.get("MLOPS_CACHE_DIR", ".mlops/cache")) / "gate"


def load_version(registry: MlflowClient, version: ModelVersion) -> LoadedVersion:
    """Download, verify and load a version, as the API does.

    Raises:
        Refused: its files are missing or altered (`bundle`), or it answers the golden rows otherwise (`golden`).
    """
    try:
        bundle = fetch_bundle(registry, version, cache_dir())
    except BundleError as error:
        raise Refused("bundle", str(error)) from error
    try:
        return LoadedVersion(version.version, bundle, load_predictor(bundle))
    except BundleError as error:
        raise Refused("golden", str(error)) from error
    finally:
        prune(cache_dir())


def load_production(registry: MlflowClient, model: str, version: str | None) -> LoadedVersion | None:
    """The version in production, or None where there is none that a candidate could be compared with."""
    if version is None:
        return None
    try:
        return load_version(registry, registry.version(model, version))
    except (Refused, NotFound):
        return None  # it is broken or gone: no reason to keep its successor out


def gate_rows(registry: MlflowClient, version: ModelVersion, bundle: Bundle, name: str) -> pd.DataFrame:
    """Rows that the version was not trained on, features and target: HELD_OUT or FEEDBACK.

    Raises:
        Refused: they are missing, altered or damaged (`bundle`).
    """
    try:
        rows = pd.read_parquet(io.BytesIO(read_gate_file(registry, version, bundle, name)))
    except BundleError as error:
        raise Refused("bundle", str(error)) from error
    except (ValueError, OSError) as error:
        raise Refused("bundle", f"{name} of version {version.version} is damaged: {error}") from error
    lacking = {feature.name for feature in bundle.features} | {bundle.target}
    lacking -= set(rows.columns)
    if lacking or rows.empty:
        what = f"no column {min(lacking)!r}" if lacking else "no rows"
        raise Refused("bundle", f"{name} of version {version.version} has {what}")
    return rows


def judge(
    registry: MlflowClient,
    candidate: ModelVersion,
    current: str | None,
    definition: Definition,
    allow_signature_change: bool = False,
    only_if_better: bool = False,
) -> Verdict:
    """Put a version through all checks, up to the one that refuses it.

    Args:
        current: the version in production, or None.
        definition: what the model file says that the version must be and reach.
        allow_signature_change: leave out `signature`.
        only_if_better: `better` in place of `regression`.

    Raises:
        MlflowError: MLflow does not answer.
    """
    metrics: Metrics = {}
    gate, note = definition.gate, ""
    try:
        loaded = load_version(registry, candidate)
        check_definition(loaded.bundle, definition)
        production = load_production(registry, candidate.name, current)
        if production and not allow_signature_change:
            check_signature(loaded.bundle, production.bundle, production.version)
        rows = gate_rows(registry, candidate, loaded.bundle, HELD_OUT)
        if loaded.bundle.gate != gate:
            own = loaded.bundle.gate
            note = (
                " (by the model file; the version brings another gate, which does not count: "
                f"{own.metric} {own.threshold:g}, margin {own.max_regression:g}, rows in the shadow "
                f"{own.min_shadow_rows}, disagreement {own.max_disagreement:g})"
            )
        measured = loaded.measure(rows)
        metrics |= {f"candidate_{name}": value for name, value in measured.items()}
        reason = check_threshold(gate, measured[gate.metric])
        if production is None or not _comparable(loaded.bundle, production.bundle):
            return Verdict("", f"{reason}; nothing to compare it with is in production{note}", metrics)
        in_production = production.measure(rows)
        metrics |= {f"production_{name}": value for name, value in in_production.items()}
        values = measured[gate.metric], in_production[gate.metric]
        if only_if_better:
            fed_back = _on_feedback(registry, candidate, loaded, production, metrics)
            on_feedback = (fed_back[0][gate.metric], fed_back[1][gate.metric]) if fed_back else None
            comparison = check_better(gate, *values, production.version, on_feedback)
        else:
            comparison = check_regression(gate, *values, production.version)
        comparison += _in_shadow(registry, candidate, loaded, production, gate, metrics)
    except Refused as refusal:
        return Verdict(refusal.check, f"{refusal}{note}", metrics, isinstance(refusal, TooFewRows))
    return Verdict("", f"{reason} and {comparison}{note}", metrics)


def _in_shadow(
    registry: MlflowClient,
    version: ModelVersion,
    candidate: LoadedVersion,
    production: LoadedVersion,
    gate: Gate,
    metrics: Metrics,
) -> str:
    """What is to be said of the candidate in production's shadow, whose counts are noted in `metrics`.

    Raises:
        Refused: `shadow`.
    """
    if not gate.min_shadow_rows:
        return ""
    different = why_not_comparable(candidate.bundle, production.bundle)
    if different:  # it could never get the rows
        return f"; it was not tried in the shadow: {different}"
    counts = read_shadow(registry, version.name, candidate.version, production.version)
    metrics |= counts.metrics
    return f"; {check_shadow(gate, counts, production.version)}"


def _on_feedback(
    registry: MlflowClient, version: ModelVersion, candidate: LoadedVersion, production: LoadedVersion, metrics: Metrics
) -> tuple[Metrics, Metrics] | None:
    """The metrics of both on the feedback that the candidate was not trained on, which are noted in `metrics`.

    None where there are too few rows.

    Raises:
        Refused: the rows are altered or damaged (`bundle`).
    """
    if FEEDBACK not in candidate.bundle.gate_files:
        return None
    rows = gate_rows(registry, version, candidate.bundle, FEEDBACK)
    if len(rows) < MIN_FEEDBACK:
        return None
    both = candidate.measure(rows), production.measure(rows)
    for who, values in zip(("candidate", "production"), both, strict=True):
        metrics |= {f"{who}_feedback_{name}": value for name, value in values.items()}
    return both


def _comparable(candidate: Bundle, production: Bundle) -> bool:
    """Whether both can be measured on the same rows."""
    return candidate.target == production.target and not signature_differences(candidate, production)
