"""Figures from Prometheus: of all replicas of the API, through their restarts, with the last minutes at once."""

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
from app.ui.drift import MIN_ROWS
from app.ui.exposition import Sample
from app.ui.live_data import WINDOW, FiringAlert, Reading, RequestWindow, Traffic, together

EVERY = 5.0  # seconds: a third of the usual scrape interval, so that what was scraped is soon seen
HISTORY = 15 * 60.0  # seconds
STEP = 15.0  # seconds
RUNBOOK = "docs/operations.md#"  # by which the platform's alerts are told from others in the same Prometheus

REQUESTS, DURATIONS = "mlops_requests_total", "mlops_request_duration_seconds_bucket"
# The series by name, and the labels by which those of all replicas are taken together.
OF_LAST_MINUTE = {REQUESTS: "model, status", DURATIONS: "model, le"}
OF_WINDOW = {
    "mlops_feature_bucket_total": "model, version, feature, bucket",
    "mlops_predictions_total": "model, version, label",
    "mlops_feedback_total": "model, version, correct",
    "mlops_feedback_absolute_error_count": "model, version",
    "mlops_feedback_absolute_error_sum": "model, version",
}
COUNTED = {"mlops_model_info": "model, version"}
SAME = {  # for every replica
    "mlops_registry_up": "",
    "mlops_feature_reference_share": "model, version, feature, bucket",
    "mlops_prediction_reference_share": "model, version, label",
    "mlops:feature_psi": "model, version, feature",
    "mlops:drift_settings": "window, min_rows",
}
LABELS = {name: set(by.split(", ")) - {""} for name, by in (OF_LAST_MINUTE | OF_WINDOW | COUNTED | SAME).items()}


def increases(names: dict[str, str], window: str) -> dict[str, str]:
    """Queries of how far counters went in a window, by name."""
    return {name: f"sum by ({by}) (increase({name}[{window}]))" for name, by in names.items()}


def one_query(queries: dict[str, str]) -> str:
    """All of them as one, whose series tell by the label `series` which they are of."""
    return " or ".join(f'label_replace({query}, "series", "{name}", "", "")' for name, query in queries.items())


TRAFFIC = increases(OF_LAST_MINUTE, f"{WINDOW:g}s")


@dataclass(frozen=True)
class Rules:
    """What the rules look back on, in Prometheus' notation, and from how many rows on they judge drift."""

    window: str = "1h"
    min_rows: int = MIN_ROWS


class PrometheusSource:
    """The figures of all visitors: however many there are, Prometheus is asked three times in `every` seconds.

    Args:
        prometheus: a client.
        every: seconds.
    """

    about = f"What Prometheus sees of all replicas of the model API, read every {EVERY:g} seconds."

    def __init__(
        self,
        prometheus: PrometheusClient,
        every: float = EVERY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.prometheus, self.every, self.clock = prometheus, every, clock
        self.reading: Reading | None = None
        self.alerts: list[FiringAlert] | None = None
        self._problem: ServiceError | None = None
        self._asked = -math.inf
        self._lock = Lock()
        self._rules = Rules()

    def refresh(self) -> None:
        # who comes while another visitor's page is asking sees what was read before, if anything was
        if self._lock.acquire(blocking=self.reading is None):
            try:
                self._refresh()
            finally:
                self._lock.release()
        if problem := self._problem:
            raise ServiceError(problem.what, problem.cure)

    def _refresh(self) -> None:
        # pages come every `every` seconds, give or take a little
        if time.monotonic() - self._asked < 0.8 * self.every:
            return
        try:
            # first: an API that is down has no figures, and an alert that says so
            self.alerts = self._firing()
            self.reading, self._problem = self._read(), None
        except ServiceError as problem:
            self._problem = problem
        self._asked = time.monotonic()

    def _read(self) -> Reading:
        now = self.clock()
        try:
            sample = self._sample(now)
            if (rules := _rules(sample)) != self._rules:
                self._rules = rules
                sample = self._sample(now)
            traffic = self._traffic(sample)
        except (ValueError, LookupError) as error:
            raise self.prometheus.foreign(f"{type(error).__name__}: {error}") from error
        if "mlops_registry_up" not in sample.series:
            raise ServiceError(
                f"Prometheus at {self.prometheus.url} has no figures of the model API.",
                "After an installation the first ones take half a minute. Where it stays like this, the API is down, "
                "or Prometheus cannot reach it: its page Status, Targets says why.",
            )
        return Reading(now, sample, traffic, window=self._rules.window, min_rows=self._rules.min_rows)

    def _firing(self) -> list[FiringAlert]:
        """The critical ones first."""
        found = [_alert(alert) for alert in self.prometheus.alerts() if _is_firing(alert)]
        return sorted(found, key=lambda alert: (alert.severity, alert.name, alert.summary))

    def _sample(self, now: float) -> Sample:
        queries = {
            **{name: f"max by ({by}) ({name})" for name, by in SAME.items()},
            **{name: f"sum by ({by}) ({name})" for name, by in COUNTED.items()},
            # in the window of the rules, so that the bars are those that their index is of
            **increases(OF_WINDOW, self._rules.window),
            **TRAFFIC,
        }
        sample = Sample(now)
        for series in self.prometheus.at(one_query(queries), now):
            labels = dict(series.metric)
            name = labels.pop("series")
            # a series of somebody else's with our name may lack labels
            if math.isfinite(series.value[1]) and LABELS[name] <= set(labels):
                int(labels.get("bucket", 0))
                sample.series.setdefault(name, []).append((labels, series.value[1]))
        return sample

    def _traffic(self, sample: Sample) -> dict[str, Traffic]:
        """By model."""
        end = sample.time // STEP * STEP  # the same points every time: a curve that is read anew stays as it is
        begin = end - HISTORY + WINDOW  # a point stands for the minute before it
        moments: dict[str, dict[float, list[tuple[dict[str, str], float]]]] = defaultdict(lambda: defaultdict(list))
        for history in self.prometheus.between(one_query(TRAFFIC), begin, end, STEP):
            if model := history.metric.get("model"):
                for moment, value in history.values:
                    moments[model][moment].append((history.metric, value))
        last: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for name in (REQUESTS, DURATIONS):
            for labels, value in sample.of(name):
                last[labels["model"]].append((labels, value))
        found = {}
        for model in {**moments, **last}:
            points = [(moment, _requests(counts)) for moment, counts in sorted(moments[model].items())]
            now = _requests(last[model]) if last[model] else None
            apart = [requests for _, requests in points[:: -round(WINDOW / STEP)]]  # windows that do not overlap
            found[model] = Traffic(points, now, together(apart))
        return found


def _rules(sample: Sample) -> Rules:
    """As the rules tell of themselves; the defaults where they do not."""
    for labels, _ in sample.of("mlops:drift_settings"):
        if not re.fullmatch(r"([0-9]+[smhdwy])+", labels["window"]):
            raise ValueError(f"mlops:drift_settings has the window {labels['window']!r}")
        return Rules(labels["window"], int(labels["min_rows"]))
    return Rules()


def _requests(counts: Iterable[tuple[dict[str, str], float]]) -> RequestWindow:
    """Of a window: by status, and by upper bound of the duration."""
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
    return alert.state == "firing" and RUNBOOK in alert.annotations.get("runbook_url", "")


def _alert(alert: ActiveAlert) -> FiringAlert:
    name = alert.labels.get("alertname", "an alert")
    return FiringAlert(
        name,
        alert.labels.get("severity", "warning"),
        alert.annotations.get("summary", "").strip() or name,
        alert.activeAt.timestamp(),
        alert.annotations["runbook_url"],
    )
