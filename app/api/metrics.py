"""Metrics of the models: counted in plain lists on the path of a prediction, put into Prometheus' form when asked."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

from fastapi import FastAPI
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info

from app.registry.bundle import Bundle
from app.registry.reference import Bucketer, bucket_labels
from app.vocabulary import ColumnReference

# seconds
BUCKETS = (
    0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5,
)  # fmt: skip
KEPT_VERSIONS = 5  # per model
# Counted from 0 on: Prometheus does not see the first request in a series that begins with it.
STATUSES = (200, 413, 422, 500)
Tally = list[list[int]]


def requests_counter(registry: CollectorRegistry) -> Callable[[Info], None]:
    """What counts one request for the instrumentator, in metrics of its usual names.

    Its own function looks up the labels of five metrics with each request; these two remember theirs.
    """
    total = Counter(
        "http_requests",
        "HTTP requests by method, status and route.",
        ["method", "status", "handler"],
        registry=registry,
    )
    seconds = Histogram(
        "http_request_duration_seconds",
        "Duration of HTTP requests in seconds.",
        ["method", "handler"],
        buckets=BUCKETS,
        registry=registry,
    )

    @lru_cache(1024)  # methods x statuses x routes; a client can send any method
    def children(method: str, status: str, handler: str) -> tuple[Counter, Histogram]:
        return total.labels(method, status, handler), seconds.labels(method, handler)

    def count(info: Info) -> None:
        requests, durations = children(info.method, info.modified_status, info.modified_handler)
        requests.inc()
        durations.observe(info.modified_duration)

    return count


class RequestCounts:
    """Answered requests of prediction routes: statuses and durations."""

    __slots__ = ("durations", "seconds", "statuses")

    def __init__(self, statuses: Sequence[int] = ()) -> None:
        self.statuses = dict.fromkeys(statuses, 0)
        self.durations = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def add(self, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.durations[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


class Meter:
    """The counts of one model version. Only the event loop's thread changes them."""

    def __init__(self, model: str, version: str, bundle: Bundle | None) -> None:
        self.model, self.version = model, version
        self.sha256 = bundle.sha256 if bundle else ""
        self.task: str = bundle.task if bundle else ""
        self.classes = bundle.classes if bundle else ()
        self.gate = bundle.gate if bundle else None
        self.requests = RequestCounts(STATUSES)
        self.correct = {True: 0, False: 0}
        self.error_sum, self.error_count = 0.0, 0
        self.references: list[tuple[str, ColumnReference]] = []
        if bundle:
            self.references = [(f.name, bundle.reference.features[f.name]) for f in bundle.features]
            self.references.append(("", bundle.reference.prediction))
        self._bucketers = [Bucketer(reference) for _, reference in self.references]
        # one list of counts per feature, and a last one for the predictions
        self.counts: Tally = self._empty()

    def _empty(self) -> Tally:
        return [[0] * bucketer.size for bucketer in self._bucketers]

    def count(self, rows: Sequence[Sequence[Any]], labels: Sequence[Any]) -> None:
        """Count rows of feature values and their predictions."""
        self._count(self.counts, rows, labels)

    def tally(self, rows: Sequence[Sequence[Any]], labels: Sequence[Any]) -> Tally:
        """The same counts on their own, for `add`: another thread may do that."""
        counts = self._empty()
        self._count(counts, rows, labels)
        return counts

    def _count(self, counts: Tally, rows: Sequence[Sequence[Any]], labels: Sequence[Any]) -> None:
        for row, label in zip(rows, labels, strict=True):
            for bucketer, value, column in zip(self._bucketers, (*row, label), counts, strict=True):
                column[bucketer(value)] += 1

    def add(self, tally: Tally) -> None:
        for column, more in zip(self.counts, tally, strict=True):
            column[:] = [a + b for a, b in zip(column, more, strict=True)]

    def feedback(self, prediction: Any, label: Any, task: str) -> None:
        """Count one label that is stored."""
        self.task = self.task or task
        if task == "classification":
            self.correct[prediction == label] += 1
        else:
            self.error_sum += abs(prediction - label)
            self.error_count += 1


class Metrics(Collector):
    """All of the API's own metrics, in a Prometheus registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.swaps = Counter("mlops_swaps", "Versions that went into service.", ["model"], registry=self.registry)
        self.failures = Counter(
            "mlops_swap_failures",
            "Versions that stayed out: download, checksum, load or golden.",
            ["model", "version", "reason"],
            registry=self.registry,
        )
        self.registry_up = Gauge(
            "mlops_registry_up", "Whether MLflow answered the last time it was asked.", registry=self.registry
        )
        self.info: dict[str, tuple[str, str, str]] = {}  # model -> version, run id, serving
        self.unserved = RequestCounts()  # of models that are not there
        self._meters: dict[tuple[str, str], Meter] = {}
        self._lock = threading.Lock()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(self)

    def find(self, model: str, version: str) -> Meter | None:
        return self._meters.get((model, version))

    def meter(self, model: str, version: str, bundle: Bundle | None = None) -> Meter:
        """The version's meter; it goes on counting when a version comes back."""
        key = (model, version)
        with self._lock:
            meters = dict(self._meters)
            meter = meters.pop(key, None)
            if meter is None or (bundle and meter.sha256 != bundle.sha256):
                before, meter = meter, Meter(model, version, bundle)
                if before and not before.sha256:  # feedback came before the version was loaded
                    meter.correct, meter.error_sum, meter.error_count = (
                        before.correct, before.error_sum, before.error_count,
                    )  # fmt: skip
            meters[key] = meter
            mine = [k for k in meters if k[0] == model]
            served = self.info.get(model, ("",))[0]
            for old in mine[:-KEPT_VERSIONS]:
                if old[1] != served:
                    del meters[old]
            self._meters = meters
        return meter

    def instrument(self, app: FastAPI) -> Callable[[Info], None]:
        """Count every request of the app, and expose /metrics; returns what counts one request."""
        count = requests_counter(self.registry)
        Instrumentator(registry=self.registry).add(count).instrument(app).expose(app, include_in_schema=False)
        return count

    def collect(self) -> Iterator[Metric]:
        version = ["model", "version"]
        info = GaugeMetricFamily("mlops_model_info", "The versions in service.", labels=[*version, "run_id", "serving"])
        for model, (number, run_id, serving) in dict(self.info).items():
            info.add_metric([model, number, run_id, serving], 1)
        gates = GaugeMetricFamily(
            "mlops_gate_threshold",
            "What the gate of the versions in service asked of them.",
            labels=[*version, "metric"],
        )
        requests = CounterMetricFamily("mlops_requests", "Prediction requests.", labels=[*version, "status"])
        durations = HistogramMetricFamily(
            "mlops_request_duration_seconds", "Of prediction requests, body included.", labels=version
        )
        predictions = CounterMetricFamily("mlops_predictions", "Predicted rows.", labels=[*version, "label"])
        expected = GaugeMetricFamily(
            "mlops_prediction_reference_share", "Share of the training rows.", labels=[*version, "label"]
        )
        feature = [*version, "feature", "bucket"]
        buckets = CounterMetricFamily("mlops_feature_bucket", "Rows per bucket of a feature.", labels=feature)
        shares = GaugeMetricFamily("mlops_feature_reference_share", "Share of the training rows.", labels=feature)
        feedback = CounterMetricFamily("mlops_feedback", "Labels that were fed back.", labels=[*version, "correct"])
        errors = SummaryMetricFamily("mlops_feedback_absolute_error", "Of predictions fed back on.", labels=version)
        self._requests(requests, durations, ["", ""], self.unserved)
        for meter in self._meters.values():
            labels = [meter.model, meter.version]
            if meter.gate and self.info.get(meter.model, ("",))[0] == meter.version:
                gates.add_metric([*labels, meter.gate.metric], meter.gate.threshold)
            self._requests(requests, durations, labels, meter.requests)
            for (name, reference), counts in zip(meter.references, meter.counts, strict=True):
                names = [str(i) for i in range(len(counts))] if name else bucket_labels(reference)
                where = [*labels, name] if name else labels
                for bucket, count, share in zip(names, counts, reference.shares, strict=True):
                    (buckets if name else predictions).add_metric([*where, bucket], count)
                    (shares if name else expected).add_metric([*where, bucket], share)
            if meter.task == "classification":
                feedback.add_metric([*labels, "true"], meter.correct[True])
                feedback.add_metric([*labels, "false"], meter.correct[False])
            elif meter.task:
                errors.add_metric(labels, count_value=meter.error_count, sum_value=meter.error_sum)
        yield from (info, gates, requests, durations, predictions, expected, buckets, shares, feedback, errors)

    @staticmethod
    def _requests(
        requests: CounterMetricFamily, durations: HistogramMetricFamily, labels: list[str], counted: RequestCounts
    ) -> None:
        for status, count in list(counted.statuses.items()):
            requests.add_metric([*labels, str(status)], count)
        totals = list(accumulate(counted.durations))
        edges = [*(str(edge) for edge in BUCKETS), "+Inf"]
        durations.add_metric(labels, buckets=list(zip(edges, totals, strict=True)), sum_value=counted.seconds)
