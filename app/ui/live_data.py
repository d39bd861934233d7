"""The figures of the Live page. The page knows only these; api_source.py and prometheus_source.py read them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from app.ui.drift import MIN_ROWS, Drift, judge
from app.ui.exposition import Sample, quantile

WINDOW = 60.0  # seconds that "now" stands for
FAST = 0.1  # seconds; a bound of the API's histogram


@dataclass(frozen=True)
class RequestWindow:
    """The requests of a model, all versions, in a stretch of time.

    seconds: how long it was; statuses: requests by status; durations: requests that took up to so many seconds, as in
    a Prometheus histogram.
    """

    seconds: float
    statuses: dict[str, float]
    durations: dict[float, float]

    @property
    def asked(self) -> float:
        return sum(self.statuses.values())

    def per_minute(self, count: float) -> float:
        """What so many requests are in a minute."""
        return count / self.seconds * 60 if self.seconds > 0 else 0.0

    @property
    def failed(self) -> float | None:
        """Share of the requests that were answered with a status of 400 or above."""
        bad = sum(count for status, count in self.statuses.items() if status >= "400")
        return bad / self.asked if self.asked > 0 else None

    @property
    def fast(self) -> float | None:
        """Share of the requests that took up to 100 ms."""
        total = self.durations.get(math.inf, 0.0)
        return min(1.0, self.durations[FAST] / total) if total > 0 and FAST in self.durations else None

    def latency(self, q: float) -> float | None:
        """A quantile of the durations, in seconds."""
        bounds = sorted(self.durations)
        return quantile(q, bounds, [self.durations[bound] for bound in bounds])


def together(parts: Iterable[RequestWindow]) -> RequestWindow:
    """The requests of several stretches of time, one after the other."""
    seconds = 0.0
    statuses: dict[str, float] = defaultdict(float)
    durations: dict[float, float] = defaultdict(float)
    for part in parts:
        seconds += part.seconds
        for status, count in part.statuses.items():
            statuses[status] += count
        for bound, count in part.durations.items():
            durations[bound] += count
    return RequestWindow(seconds, dict(statuses), dict(durations))


@dataclass(frozen=True)
class Traffic:
    """points: pairs of a time (seconds since 1970) and the requests up to it; now: of the last minute, None before
    there is one; whole: since counting began."""

    points: list[tuple[float, RequestWindow]]
    now: RequestWindow | None
    whole: RequestWindow


@dataclass(frozen=True)
class Mix:
    """How often something was predicted. reference: its share in training."""

    label: str
    reference: float
    rows: float


@dataclass(frozen=True)
class Buckets:
    """Rows per bucket of a feature against the shares of the training rows, and the drift."""

    feature: str
    reference: list[float]
    rows: list[float]
    drift: Drift


@dataclass(frozen=True)
class Feedback:
    """Labels that were fed back: how many, and how many were predicted right, or the mean absolute error."""

    labels: int
    right: int | None = None
    error: float | None = None

    @property
    def accuracy(self) -> float | None:
        return None if self.right is None or not self.labels else self.right / self.labels


@dataclass(frozen=True)
class FiringAlert:
    """A firing alert.

    severity: critical or warning; summary: what is the matter; since: seconds since 1970; runbook: where it is told
    what to do.
    """

    name: str
    severity: str
    summary: str
    since: float
    runbook: str


@dataclass(frozen=True)
class Reading:
    """Everything that was read at one moment.

    time: seconds since 1970; sample: the series of the model API, under their names there; traffic: by model;
    since: when counting began, seconds since 1970, or None where it is `window` (such as 1h) that is counted;
    min_rows: before that drift is not judged.
    """

    time: float
    sample: Sample
    traffic: dict[str, Traffic]
    since: float | None = None
    window: str = ""
    min_rows: int = MIN_ROWS

    @cached_property
    def models(self) -> dict[str, str]:
        """The models in service and the version of each: of most replicas, then the newer."""
        found: dict[str, tuple[float, tuple[int, str]]] = {}
        for labels, replicas in self.sample.of("mlops_model_info"):
            if replicas:
                here = (replicas, _order(labels["version"]))
                found[labels["model"]] = max(found.get(labels["model"], here), here)
        return {model: version for model, (_, (_, version)) in found.items()}

    def versions(self, model: str) -> list[str]:
        """The versions with figures, newest first."""
        found = {labels["version"] for labels, _ in self.sample.of("mlops_feature_reference_share", model=model)}
        return sorted(found, key=_order, reverse=True)

    def mix(self, model: str, version: str) -> list[Mix]:
        of = {"model": model, "version": version}
        rows = {labels["label"]: value for labels, value in self.sample.of("mlops_predictions_total", **of)}
        reference = {
            labels["label"]: value for labels, value in self.sample.of("mlops_prediction_reference_share", **of)
        }
        return [Mix(label, reference.get(label, 0.0), rows.get(label, 0.0)) for label in {**reference, **rows}]

    def buckets(self, model: str, version: str) -> list[Buckets]:
        of = {"model": model, "version": version}
        reference = self._by_bucket("mlops_feature_reference_share", of)
        counted = self._by_bucket("mlops_feature_bucket_total", of)
        recorded = {labels["feature"]: value for labels, value in self.sample.of("mlops:feature_psi", **of)}
        found = []
        for feature, by_bucket in reference.items():
            order = sorted(by_bucket)
            shares, rows = [by_bucket[i] for i in order], [counted.get(feature, {}).get(i, 0.0) for i in order]
            drift = judge(feature, shares, rows, recorded.get(feature), self.min_rows)
            found.append(Buckets(feature, shares, rows, drift))
        return found

    def feedback(self, model: str, version: str) -> Feedback | None:
        of = {"model": model, "version": version}
        counts = {labels["correct"]: round(value) for labels, value in self.sample.of("mlops_feedback_total", **of)}
        if counts:
            return Feedback(sum(counts.values()), right=counts.get("true", 0))
        if self.sample.of("mlops_feedback_absolute_error_count", **of):
            total = self.sample.value("mlops_feedback_absolute_error_count", **of)
            summed = self.sample.value("mlops_feedback_absolute_error_sum", **of)
            return Feedback(round(total), error=summed / total if total else None)
        return None

    def _by_bucket(self, name: str, of: dict[str, str]) -> dict[str, dict[int, float]]:
        """Feature -> number of the bucket -> value."""
        found: dict[str, dict[int, float]] = {}
        for labels, value in self.sample.of(name, **of):
            found.setdefault(labels["feature"], {})[int(labels["bucket"])] = value
        return found


def _order(version: str) -> tuple[int, str]:
    """Sorts numbers as numbers."""
    return len(version), version


class Source(Protocol):
    """Where readings come from.

    every: seconds between two; about: what it is, for people; reading: the last one, None before there is one;
    alerts: that were firing then, None where this source knows of none.
    """

    every: float
    about: str
    reading: Reading | None
    alerts: list[FiringAlert] | None

    def refresh(self) -> None:
        """Read anew. Raises Problem when that fails; what was not read then stays what it was."""
