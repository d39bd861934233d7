"""Figures from Prometheus: of all replicas of the API, across their restarts, with the last minutes at once."""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock

from app.clients.errors import ServiceError
from app.clients.prometheus import ActiveAlert, PrometheusClient
from app.ui.live.data import WINDOW, FiringAlert, RequestWindow, Snapshot, Traffic, combine
from app.ui.live.drift import MIN_ROWS
from app.ui.live.exposition import Labels, MetricSeries

INTERVAL = 5.0  # seconds: a third of the usual scrape interval, so that what was scraped is soon seen
HISTORY = 15 * 60.0  # seconds
STEP = 15.0  # seconds
PART_OF = "mlops"  # the annotation by which the platform's alerts are told from others in the same Prometheus

REQUESTS, DURATIONS = "mlops_requests_total", "mlops_request_duration_seconds_bucket"
# The metrics by name, and the labels by which the series of all replicas are added up.
PER_MINUTE = {REQUESTS: "model, status", DURATIONS: "model, le"}
PER_WINDOW = {
    "mlops_feature_bucket_total": "model, version, feature, bucket",
    "mlops_predictions_total": "model, version, label",
    "mlops_feedback_total": "model, version, correct",
    "mlops_feedback_absolute_error_count": "model, version",
    "mlops_feedback_absolute_error_sum": "model, version",
    "mlops_challenger_rows_total": "model, version, agreement",
    "mlops_challenger_failed_rows_total": "model, version",
    "mlops_challenger_dropped_rows_total": "model, version",
    "mlops_challenger_duration_seconds_bucket": "model, version, le",
    "mlops_canary_requests_total": "model, version",
    "mlops_canary_failures_total": "model, version",
    "mlops_challenger_feedback_total": "model, version, right",
    "mlops_challenger_feedback_absolute_error_count": "model, version, by",
    "mlops_challenger_feedback_absolute_error_sum": "model, version, by",
}
# 1 for each replica of which it is so: their sum says how many there are
REPLICAS = {"mlops_model_info": "model, version", "mlops_canary_returned": "model, version"}
EQUAL_IN_REPLICAS = {
    "mlops_registry_up": "",
    "mlops_feature_reference_share": "model, version, feature, bucket",
    "mlops_prediction_reference_share": "model, version, label",
    "mlops:feature_psi": "model, version, feature",
    "mlops:drift_settings": "window, min_rows",
}
REQUIRED_LABELS = {
    name: set(by.split(", ")) - {""} for name, by in (PER_MINUTE | PER_WINDOW | REPLICAS | EQUAL_IN_REPLICAS).items()
}


def increases(names: dict[str, str], window: str) -> dict[str, str]:
    """PromQL for how far counters went up in a window, by name.

    Args:
        names: the counters, and the labels by which they are added up.
        window: in Prometheus' notation, such as 1h.
    """
    return {name: f"sum by ({by}) (increase({name}[{window}]))" for name, by in names.items()}


def one_query(queries: dict[str, str]) -> str:
    """One PromQL expression for many, whose series have the name of their query in the label `series`."""
    return " or ".join(f'label_replace({query}, "series", "{name}", "", "")' for name, query in queries.items())


TRAFFIC = increases(PER_MINUTE, f"{WINDOW:g}s")


@dataclass(frozen=True)
class DriftRules:
    """What the recording rules of drift look back on, in Prometheus' notation, and from how many rows they judge."""

    window: str = "1h"
    min_rows: int = MIN_ROWS


class PrometheusSource:
    """The figures of all visitors: however many there are, Prometheus gets three requests in each interval.

    Args:
        prometheus: a client.
        interval: seconds between two refreshes.
        clock: gives the time, in seconds since 1970, of which the figures are.
    """

    description = f"What Prometheus knows of all replicas of the model API, read every {INTERVAL:g} seconds."

    def __init__(
        self,
        prometheus: PrometheusClient,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.prometheus, self.interval, self.clock = prometheus, interval, clock
        self.snapshot: Snapshot | None = None
        self.alerts: list[FiringAlert] | None = None
        self._error: ServiceError | None = None
        self._refreshed = -math.inf
        self._lock = Lock()
        self._rules = DriftRules()

    def refresh(self) -> None:
        """Read the figures anew unless another visitor just did. Raises ServiceError; the last figures stay."""
        # while another visitor's page reads, this one shows the last snapshot, if there is one
        if self._lock.acquire(blocking=self.snapshot is None):
            try:
                self._refresh()
            finally:
                self._lock.release()
        if error := self._error:
            raise ServiceError(error.what, error.cure)

    def _refresh(self) -> None:
        # pages come once in an interval, give or take a little
        if time.monotonic() - self._refreshed < 0.8 * self.interval:
            return
        try:
            # alerts first: an API that is down has no figures, and an alert that says so
            self.alerts = self._firing()
            self.snapshot, self._error = self._read(), None
        except ServiceError as error:
            self._error = error
        self._refreshed = time.monotonic()

    def _read(self) -> Snapshot:
        now = self.clock()
        try:
            series = self._series(now)
            if (rules := _drift_rules(series)) != self._rules:
                self._rules = rules
                series = self._series(now)
            traffic = self._traffic(series)
        except (ValueError, LookupError) as error:
            raise self.prometheus.foreign(f"{type(error).__name__}: {error}") from error
        if "mlops_registry_up" not in series.by_name:
            raise ServiceError(
                f"Prometheus at {self.prometheus.url} has no figures of the model API.",
                "After an installation the first ones take half a minute. If this lasts, the API is down, or "
                "Prometheus cannot reach it: its page Status, Targets says why.",
            )
        return Snapshot(now, series, traffic, window=self._rules.window, min_rows=self._rules.min_rows)

    def _firing(self) -> list[FiringAlert]:
        """The firing alerts of the platform, critical ones first."""
        alerts = [_alert(alert) for alert in self.prometheus.alerts() if _is_firing(alert)]
        return sorted(alerts, key=lambda alert: (alert.severity, alert.name, alert.summary))

    def _series(self, now: float) -> MetricSeries:
        queries = {
            **{name: f"max by ({by}) ({name})" for name, by in EQUAL_IN_REPLICAS.items()},
            **{name: f"sum by ({by}) ({name})" for name, by in REPLICAS.items()},
            # in the window of the rules, so that the bars are those that their index is of
            **increases(PER_WINDOW, self._rules.window),
            **TRAFFIC,
        }
        result = MetricSeries(now)
        for series in self.prometheus.at(one_query(queries), now):
            labels = dict(series.metric)
            name = labels.pop("series")
            # somebody else's series of the same name may lack labels
            if math.isfinite(series.number) and REQUIRED_LABELS[name] <= set(labels):
                int(labels.get("bucket", 0))
                result.by_name.setdefault(name, []).append((labels, series.number))
        return result

    def _traffic(self, series: MetricSeries) -> dict[str, Traffic]:
        """The requests over time, by model."""
        end = series.time // STEP * STEP  # the same points every time: a curve that is read anew stays as it is
        begin = end - HISTORY + WINDOW  # a point stands for the minute before it
        counts: dict[str, dict[float, list[tuple[Labels, float]]]] = defaultdict(lambda: defaultdict(list))
        for history in self.prometheus.between(one_query(TRAFFIC), begin, end, STEP):
            if model := history.metric.get("model"):
                for at, value in history.values:
                    counts[model][at].append((history.metric, value))
        latest: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
        for name in (REQUESTS, DURATIONS):
            for labels, value in series.select(name):
                latest[labels["model"]].append((labels, value))
        traffic = {}
        for model in {**counts, **latest}:
            points = [(at, _window(of_moment)) for at, of_moment in sorted(counts[model].items())]
            last_minute = _window(latest[model]) if latest[model] else None
            apart = [requests for _, requests in points[:: -round(WINDOW / STEP)]]  # windows that do not overlap
            traffic[model] = Traffic(points, last_minute, combine(apart))
        return traffic


def _drift_rules(series: MetricSeries) -> DriftRules:
    """What the recording rules tell of themselves; the defaults where they tell nothing."""
    for labels, _ in series.select("mlops:drift_settings"):
        if not re.fullmatch(r"([0-9]+[smhdwy])+", labels["window"]):
            raise ValueError(f"mlops:drift_settings has the window {labels['window']!r}")
        return DriftRules(labels["window"], int(labels["min_rows"]))
    return DriftRules()


def _window(counts: Iterable[tuple[Labels, float]]) -> RequestWindow:
    """The requests of one minute from its series: by status, and by upper bound of the duration."""
    statuses: dict[str, float] = {}
    durations: dict[float, float] = {}
    for labels, value in counts:
        if not math.isfinite(value):
            continue
        if "le" in labels:
            durations[float(labels["le"])] = value
        elif "status" in labels:
            statuses[labels["status"]] = value
    highest = 0.0
    for bound in sorted(durations):  # what Prometheus estimates per series may fall by a hair from bound to bound
        highest = durations[bound] = max(highest, durations[bound])
    return RequestWindow(WINDOW, statuses, durations)


def _is_firing(alert: ActiveAlert) -> bool:
    return alert.state == "firing" and alert.annotations.get("part_of") == PART_OF


def _alert(alert: ActiveAlert) -> FiringAlert:
    name = alert.labels.get("alertname", "an alert")
    return FiringAlert(
        name,
        alert.labels.get("severity", "warning"),
        alert.annotations.get("summary", "").strip() or name,
        alert.activeAt.timestamp(),
        alert.annotations.get("runbook_url", ""),
    )
