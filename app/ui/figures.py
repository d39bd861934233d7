"""The figures of the Live page. The page knows only `Source`; where they come from is decided here."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from app.ui.api_client import ModelApi
from app.ui.drift import Drift, judge
from app.ui.exposition import Sample, increase, quantile, read

KEPT = 150  # samples: 5 minutes at one every 2 s
WINDOW = 60.0  # seconds that "now" stands for


@dataclass(frozen=True)
class Point:
    """Between two samples. time: seconds since 1970; rate: requests per second; p50, p99: seconds."""

    time: float
    rate: float
    p50: float | None
    p99: float | None


@dataclass(frozen=True)
class Traffic:
    """Of a model, all versions. `rate` and `failed` (share of requests) are of the last minute, None before there is
    one; p50 and p99 are of the last minute, or since the start (`recent` False) when nobody asked in it."""

    points: list[Point]
    requests: int  # since the start
    rate: float | None
    failed: float | None
    p50: float | None
    p99: float | None
    recent: bool


@dataclass(frozen=True)
class Mix:
    """How often something was predicted. reference: its share in training; rows: since the version was loaded."""

    label: str
    reference: float
    rows: float


@dataclass(frozen=True)
class Buckets:
    """Rows per bucket of a feature against the shares of the training rows."""

    feature: str
    reference: list[float]
    rows: list[float]

    @property
    def drift(self) -> Drift:
        return judge(self.feature, self.reference, self.rows)


@dataclass(frozen=True)
class Feedback:
    """Labels that were fed back: how many were predicted right, or the mean absolute error."""

    labels: int
    accuracy: float | None
    error: float | None


class Source(Protocol):
    """Where live figures come from."""

    def refresh(self) -> None:
        """Read anew. Raises Problem when that fails; the figures then stay what they were."""

    @property
    def read_at(self) -> float | None:
        """When it was read last, seconds since 1970."""

    @property
    def since(self) -> float | None:
        """When counting began, seconds since 1970."""

    def models(self) -> dict[str, str]:
        """The models in service and the version of each."""

    def versions(self, model: str) -> list[str]:
        """The versions with figures, newest first."""

    def traffic(self, model: str) -> Traffic: ...

    def mix(self, model: str, version: str) -> list[Mix]: ...

    def buckets(self, model: str, version: str) -> list[Buckets]: ...

    def feedback(self, model: str, version: str) -> Feedback | None: ...


@dataclass(frozen=True)
class _Totals:
    """The counters of one model's requests at one moment."""

    time: float
    requests: float
    failed: float
    buckets: list[float]


class ApiSource:
    """Figures from one API process' /metrics, with the last minutes kept here.

    Only the sums that rates need are kept of older samples: a wide model has thousands of series.
    """

    def __init__(self, api: ModelApi, clock: Callable[[], float] = time.time) -> None:
        self.api, self.clock = api, clock
        self.sample: Sample | None = None
        self._bounds: list[float] = []
        self._history: dict[str, deque[_Totals]] = {}

    def refresh(self) -> None:
        text = self.api.metrics()
        try:
            sample = read(text, self.clock())
        except (ValueError, LookupError) as error:
            raise self.api.foreign(f"/metrics: {error}") from error
        self.sample = sample
        bounds = {float(labels["le"]) for labels, _ in sample.of("mlops_request_duration_seconds_bucket")}
        if bounds:
            self._bounds = sorted(bounds)
        for model in self.models():
            self._history.setdefault(model, deque(maxlen=KEPT)).append(self._totals(sample, model))

    @property
    def read_at(self) -> float | None:
        return self.sample.time if self.sample else None

    @property
    def since(self) -> float | None:
        return (self.sample.value("process_start_time_seconds") or None) if self.sample else None

    def models(self) -> dict[str, str]:
        info = self._of("mlops_model_info")
        return {labels["model"]: labels["version"] for labels, value in info if value}

    def versions(self, model: str) -> list[str]:
        found = {labels["version"] for labels, _ in self._of("mlops_feature_reference_share", model=model)}
        return sorted(found, key=lambda version: (len(version), version), reverse=True)

    def traffic(self, model: str) -> Traffic:
        history = list(self._history.get(model, ()))
        points = [_point(self._bounds, a, b) for a, b in pairwise(history) if b.time > a.time]
        if not history:
            return Traffic([], 0, None, None, None, None, False)
        last = history[-1]
        recent = [totals for totals in history if totals.time >= last.time - WINDOW]
        span = last.time - recent[0].time
        asked, failed, buckets = _increase(recent)
        rate = asked / span if span > 0 else None
        shown = buckets if asked else last.buckets
        return Traffic(
            points=points,
            requests=round(last.requests),
            rate=rate,
            failed=failed / asked if asked else None,
            p50=quantile(0.5, self._bounds, shown),
            p99=quantile(0.99, self._bounds, shown),
            recent=bool(asked),
        )

    def mix(self, model: str, version: str) -> list[Mix]:
        of = {"model": model, "version": version}
        rows = {labels["label"]: value for labels, value in self._of("mlops_predictions_total", **of)}
        reference = {labels["label"]: value for labels, value in self._of("mlops_prediction_reference_share", **of)}
        return [Mix(label, reference.get(label, 0.0), rows.get(label, 0.0)) for label in {**reference, **rows}]

    def buckets(self, model: str, version: str) -> list[Buckets]:
        of = {"model": model, "version": version}
        reference: dict[str, dict[int, float]] = {}
        for labels, value in self._of("mlops_feature_reference_share", **of):
            reference.setdefault(labels["feature"], {})[int(labels["bucket"])] = value
        rows: dict[str, dict[int, float]] = {}
        for labels, value in self._of("mlops_feature_bucket_total", **of):
            rows.setdefault(labels["feature"], {})[int(labels["bucket"])] = value
        return [
            Buckets(name, [shares[i] for i in sorted(shares)], [rows.get(name, {}).get(i, 0.0) for i in sorted(shares)])
            for name, shares in reference.items()
        ]

    def feedback(self, model: str, version: str) -> Feedback | None:
        of = {"model": model, "version": version}
        counts = {labels["correct"]: value for labels, value in self._of("mlops_feedback_total", **of)}
        if counts:
            total = sum(counts.values())
            return Feedback(round(total), counts.get("true", 0.0) / total if total else None, None)
        errors = self._of("mlops_feedback_absolute_error_count", **of)
        if errors and self.sample:
            total = errors[0][1]
            summed = self.sample.value("mlops_feedback_absolute_error_sum", **of)
            return Feedback(round(total), None, summed / total if total else None)
        return None

    def _of(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        return self.sample.of(name, **labels) if self.sample else []

    def _totals(self, sample: Sample, model: str) -> _Totals:
        requests = sample.of("mlops_requests_total", model=model)
        failed = sum(value for labels, value in requests if labels.get("status", "") >= "400")
        buckets = dict.fromkeys(self._bounds, 0.0)
        for labels, value in sample.of("mlops_request_duration_seconds_bucket", model=model):
            buckets[float(labels["le"])] += value
        return _Totals(sample.time, sum(value for _, value in requests), failed, list(buckets.values()))


def _increase(history: list[_Totals]) -> tuple[float, float, list[float]]:
    """Requests, failed requests and requests per bucket between the first and the last."""
    asked, failed, buckets = 0.0, 0.0, [0.0] * len(history[-1].buckets)
    for a, b in pairwise(history):
        asked += increase(a.requests, b.requests)
        # one verdict for all: after a restart a small counter may by chance stand where it stood
        restarted = b.requests < a.requests
        failed += b.failed if restarted else increase(a.failed, b.failed)
        before = [0.0] * len(b.buckets) if restarted or len(a.buckets) != len(b.buckets) else a.buckets
        buckets = [sum_ + increase(x, y) for sum_, x, y in zip(buckets, before, b.buckets, strict=True)]
    return asked, failed, buckets


def _point(bounds: list[float], a: _Totals, b: _Totals) -> Point:
    asked, _, buckets = _increase([a, b])
    fitting = len(buckets) == len(bounds) and math.isfinite(asked)
    p50, p99 = (quantile(q, bounds, buckets) if fitting else None for q in (0.5, 0.99))
    return Point(b.time, asked / (b.time - a.time), p50, p99)
