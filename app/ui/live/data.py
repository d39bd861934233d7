"""The figures of the page Live. The page knows only these; api_source.py and prometheus_source.py provide them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from app.ui.live.drift import MIN_ROWS, Drift, judge
from app.ui.live.exposition import MetricSeries
from app.ui.live.histogram import quantile

WINDOW = 60.0  # seconds that "now" stands for
FAST = 0.1  # seconds; a bound of the API's histogram


@dataclass(frozen=True)
class RequestWindow:
    """The requests of a model, all versions, in a period of time.

    seconds: how long it was; statuses: requests by HTTP status; durations: requests that took up to so many seconds,
    by these seconds, as in a Prometheus histogram.
    """

    seconds: float
    statuses: dict[str, float]
    durations: dict[float, float]

    @property
    def count(self) -> float:
        """How many requests there were."""
        return sum(self.statuses.values())

    def per_minute(self, count: float) -> float:
        """The rate of so many requests in this period, in requests per minute."""
        return count / self.seconds * 60 if self.seconds > 0 else 0.0

    @property
    def failed_share(self) -> float | None:
        """Share of the requests that were answered with a status of 400 or above; None without requests."""
        failed = sum(count for status, count in self.statuses.items() if status >= "400")
        return failed / self.count if self.count > 0 else None

    @property
    def fast_share(self) -> float | None:
        """Share of the requests that took up to 100 ms; None without requests."""
        total = self.durations.get(math.inf, 0.0)
        return min(1.0, self.durations[FAST] / total) if total > 0 and FAST in self.durations else None

    def latency(self, q: float) -> float | None:
        """A quantile (0 to 1) of the durations, in seconds; None without requests."""
        bounds = sorted(self.durations)
        return quantile(q, bounds, [self.durations[bound] for bound in bounds])


def combine(windows: Iterable[RequestWindow]) -> RequestWindow:
    """One window of several that follow each other."""
    seconds = 0.0
    statuses: dict[str, float] = defaultdict(float)
    durations: dict[float, float] = defaultdict(float)
    for window in windows:
        seconds += window.seconds
        for status, count in window.statuses.items():
            statuses[status] += count
        for bound, count in window.durations.items():
            durations[bound] += count
    return RequestWindow(seconds, dict(statuses), dict(durations))


@dataclass(frozen=True)
class Traffic:
    """The requests of a model over time.

    points: pairs of a time (seconds since 1970) and the requests in the period that ends there; last_minute: None
    before it is known; whole: all requests since counting began.
    """

    points: list[tuple[float, RequestWindow]]
    last_minute: RequestWindow | None
    whole: RequestWindow


@dataclass(frozen=True)
class PredictionShare:
    """How often a label (or a range of values) was predicted. reference: its share in training; rows: live ones."""

    label: str
    reference: float
    rows: float


@dataclass(frozen=True)
class FeatureBuckets:
    """Live rows per bucket of a feature, the shares of the training rows in the same buckets, and the drift."""

    feature: str
    reference: list[float]
    rows: list[float]
    drift: Drift


@dataclass(frozen=True)
class FeedbackSummary:
    """How good the predictions were for which a true label came.

    labels: how many; right: of a classification, how many were predicted right; error: of a regression, the mean
    absolute error.
    """

    labels: int
    right: int | None = None
    error: float | None = None

    @property
    def accuracy(self) -> float | None:
        """Share of the labels that were predicted right; None for a regression, or without labels."""
        return None if self.right is None or not self.labels else self.right / self.labels


@dataclass(frozen=True)
class ChallengerSummary:
    """What a challenger made of copies of production's rows, in the shadow.

    agree, disagree: rows that it answered as production did, or otherwise; failed: rows that it could not answer;
    dropped: rows that it did not get, because too many waited; durations: batches that took up to so many seconds, by
    these seconds; feedback, production_feedback: how good both were on the same rows, None where no label ever came.
    """

    version: str
    agree: float
    disagree: float
    failed: float
    dropped: float
    durations: dict[float, float]
    feedback: FeedbackSummary | None = None
    production_feedback: FeedbackSummary | None = None

    @property
    def rows(self) -> float:
        """How many rows were compared."""
        return self.agree + self.disagree

    @property
    def agreement(self) -> float | None:
        """Share of the compared rows that it answered as production did; None without any."""
        return self.agree / self.rows if self.rows > 0 else None

    def latency(self, q: float) -> float | None:
        """A quantile (0 to 1) of the durations, in seconds; None without any."""
        bounds = sorted(self.durations)
        return quantile(q, bounds, [self.durations[bound] for bound in bounds])


@dataclass(frozen=True)
class CanarySummary:
    """What came of the requests that fell to a canary.

    failures: those that it did not answer, and production did; returned: how many replicas of the API took it out.
    """

    version: str
    requests: float
    failures: float
    returned: int

    @property
    def failed_share(self) -> float | None:
        """Share of its requests that it did not answer; None without any."""
        return self.failures / self.requests if self.requests > 0 else None


@dataclass(frozen=True)
class FiringAlert:
    """A firing alert.

    severity: critical or warning; summary: what is wrong; since: seconds since 1970; runbook: where to read what to do.
    """

    name: str
    severity: str
    summary: str
    since: float
    runbook: str


@dataclass(frozen=True)
class Snapshot:
    """All figures at one moment.

    series: of the model API, under their names there; traffic: by model; since: when counting began, in seconds since
    1970, or None where it is the last `window` (such as 1h) that is counted; min_rows: from how many rows on drift is
    judged.
    """

    time: float
    series: MetricSeries
    traffic: dict[str, Traffic]
    since: float | None = None
    window: str = ""
    min_rows: int = MIN_ROWS

    @cached_property
    def models(self) -> dict[str, str]:
        """The version of each model in service: the one that most replicas serve, and of two such the newer."""
        best: dict[str, tuple[float, tuple[int, str]]] = {}
        for labels, replicas in self.series.select("mlops_model_info"):
            if replicas:
                candidate = (replicas, _version_order(labels["version"]))
                best[labels["model"]] = max(best.get(labels["model"], candidate), candidate)
        return {model: version for model, (_, (_, version)) in best.items()}

    def versions(self, model: str) -> list[str]:
        """The versions of a model that have figures, newest first."""
        series = self.series.select("mlops_feature_reference_share", model=model)
        return sorted({labels["version"] for labels, _ in series}, key=_version_order, reverse=True)

    def prediction_shares(self, model: str, version: str) -> list[PredictionShare]:
        """How often the version predicted each label, and how often it stood in the training data."""
        of = {"model": model, "version": version}
        rows = self._by_label("mlops_predictions_total", of)
        reference = self._by_label("mlops_prediction_reference_share", of)
        return [
            PredictionShare(label, reference.get(label, 0.0), rows.get(label, 0.0)) for label in {**reference, **rows}
        ]

    def feature_buckets(self, model: str, version: str) -> list[FeatureBuckets]:
        """The version's rows per bucket and the drift, for each feature."""
        of = {"model": model, "version": version}
        references = self._by_bucket("mlops_feature_reference_share", of)
        counts = self._by_bucket("mlops_feature_bucket_total", of)
        recorded = {labels["feature"]: value for labels, value in self.series.select("mlops:feature_psi", **of)}
        features = []
        for feature, by_bucket in references.items():
            order = sorted(by_bucket)
            shares, rows = [by_bucket[i] for i in order], [counts.get(feature, {}).get(i, 0.0) for i in order]
            drift = judge(feature, shares, rows, recorded.get(feature), self.min_rows)
            features.append(FeatureBuckets(feature, shares, rows, drift))
        return features

    def feedback(self, model: str, version: str) -> FeedbackSummary | None:
        """How good the version's predictions were; None where no label ever came."""
        of = {"model": model, "version": version}
        series = self.series.select("mlops_feedback_total", **of)
        if series:
            counts = {labels["correct"]: round(value) for labels, value in series}
            return FeedbackSummary(sum(counts.values()), right=counts.get("true", 0))
        if self.series.select("mlops_feedback_absolute_error_count", **of):
            labels = self.series.total("mlops_feedback_absolute_error_count", **of)
            errors = self.series.total("mlops_feedback_absolute_error_sum", **of)
            return FeedbackSummary(round(labels), error=errors / labels if labels else None)
        return None

    def challenger(self, model: str) -> ChallengerSummary | None:
        """What the model's newest challenger did; None where there is none."""
        series = self.series.select("mlops_challenger_rows_total", model=model)
        if not series:
            return None
        of = {"model": model, "version": max((labels["version"] for labels, _ in series), key=_version_order)}
        durations = self.series.select("mlops_challenger_duration_seconds_bucket", **of)
        own, productions = (self._challenger_feedback(of, who) for who in ("challenger", "production"))
        return ChallengerSummary(
            of["version"],
            agree=self.series.total("mlops_challenger_rows_total", **of, agreement="agree"),
            disagree=self.series.total("mlops_challenger_rows_total", **of, agreement="disagree"),
            failed=self.series.total("mlops_challenger_failed_rows_total", **of),
            dropped=self.series.total("mlops_challenger_dropped_rows_total", **of),
            durations={float(labels["le"]): value for labels, value in durations},
            feedback=own,
            production_feedback=productions,
        )

    def canary(self, model: str) -> CanarySummary | None:
        """What the model's newest canary did; None where there is none."""
        series = self.series.select("mlops_canary_returned", model=model)
        if not series:
            return None
        of = {"model": model, "version": max((labels["version"] for labels, _ in series), key=_version_order)}
        return CanarySummary(
            of["version"],
            requests=self.series.total("mlops_canary_requests_total", **of),
            failures=self.series.total("mlops_canary_failures_total", **of),
            returned=round(self.series.total("mlops_canary_returned", **of)),
        )

    def _challenger_feedback(self, of: dict[str, str], who: str) -> FeedbackSummary | None:
        """How good the challenger, or production, was on the rows that both answered and whose true label came."""
        right = {
            labels["right"]: round(value)
            for labels, value in self.series.select("mlops_challenger_feedback_total", **of)
        }
        if sum(right.values()):
            return FeedbackSummary(sum(right.values()), right=right.get("both", 0) + right.get(who, 0))
        name = "mlops_challenger_feedback_absolute_error"
        labels = self.series.total(f"{name}_count", **of, by=who)
        if labels:
            return FeedbackSummary(round(labels), error=self.series.total(f"{name}_sum", **of, by=who) / labels)
        return None

    def _by_label(self, name: str, of: dict[str, str]) -> dict[str, float]:
        return {labels["label"]: value for labels, value in self.series.select(name, **of)}

    def _by_bucket(self, name: str, of: dict[str, str]) -> dict[str, dict[int, float]]:
        """Feature -> number of the bucket -> value."""
        features: dict[str, dict[int, float]] = {}
        for labels, value in self.series.select(name, **of):
            features.setdefault(labels["feature"], {})[int(labels["bucket"])] = value
        return features


def _version_order(version: str) -> tuple[int, str]:
    """Sorts numbers as numbers."""
    return len(version), version


class LiveSource(Protocol):
    """Where the figures come from.

    interval: seconds between two refreshes; description: of the source, for visitors; snapshot: the last one, None
    before there is one; alerts: those that were firing then, None where this source knows of none.
    """

    interval: float
    description: str
    snapshot: Snapshot | None
    alerts: list[FiringAlert] | None

    def refresh(self) -> None:
        """Read the figures anew. Raises ServiceError; whatever could not be read keeps its last value."""
