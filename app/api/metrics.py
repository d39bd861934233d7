"""All metrics of the API: what `app.api.meter` counts is put into Prometheus' form when /metrics is read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import accumulate

from fastapi import Depends, FastAPI, HTTPException, Request
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

from app.api.meter import DURATION_BUCKETS, Meter, RequestCounts
from app.registry.bundle import Bundle
from app.registry.reference import bucket_labels

KEPT_VERSIONS = 5  # per model


def requests_counter(registry: CollectorRegistry) -> Callable[[Info], None]:
    """Make a function that counts one request for the instrumentator, in metrics of its usual names.

    Its own function looks up the labels of five metrics with each request; these two remember theirs.
    """
    total = Counter(
        "http_requests",
        "Number of HTTP requests by method, status and route.",
        ["method", "status", "handler"],
        registry=registry,
    )
    seconds = Histogram(
        "http_request_duration_seconds",
        "Duration of HTTP requests in seconds.",
        ["method", "handler"],
        buckets=DURATION_BUCKETS,
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


class Metrics(Collector):
    """All of the API's own metrics, in a Prometheus registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.swaps = Counter(
            "mlops_swaps", "Number of versions that went into service.", ["model"], registry=self.registry
        )
        self.failures = Counter(
            "mlops_swap_failures",
            "Number of times a version could not be loaded and stayed out of service, by reason.",
            ["model", "version", "reason"],
            registry=self.registry,
        )
        self.registry_up = Gauge(
            "mlops_registry_up", "Whether MLflow answered at the last look: 1 yes, 0 no.", registry=self.registry
        )
        self.refusals = Counter(
            "mlops_key_refusals",
            'Number of requests that were refused for their key, by client ("" where none is known) and reason.',
            ["client", "reason"],
            registry=self.registry,
        )
        self.info: dict[str, tuple[str, str, str]] = {}  # model -> version, run id, serving
        self.unserved = RequestCounts()  # requests for models that are not in service
        self._meters: dict[tuple[str, str], Meter] = {}
        self._lock = threading.Lock()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(self)

    def find(self, model: str, version: str) -> Meter | None:
        """The version's meter, where there is one."""
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
            served = self.info.get(model, ("",))[0]
            oldest = [k for k in meters if k[0] == model][:-KEPT_VERSIONS]
            for key in oldest:
                if key[1] != served:
                    del meters[key]
            self._meters = meters
        return meter

    def instrument(self, app: FastAPI) -> Callable[[Info], None]:
        """Count every request of the app, and expose /metrics; returns what counts one request."""
        count = requests_counter(self.registry)
        instrumentator = Instrumentator(registry=self.registry).add(count).instrument(app)
        instrumentator.expose(app, include_in_schema=False, dependencies=[Depends(_not_through_a_proxy)])
        return count

    def collect(self) -> Iterator[Metric]:
        """Everything that was counted, as Prometheus asks for it."""
        families = _Families()
        families.add_requests(["", ""], self.unserved)
        in_service = dict(self.info)
        for model, (version, run_id, serving) in in_service.items():
            families.info.add_metric([model, version, run_id, serving], 1)
        for meter in self._meters.values():
            families.add_meter(meter, in_service.get(meter.model, ("",))[0] == meter.version)
        yield from families.all()


def _not_through_a_proxy(request: Request) -> None:
    """Refuse what an ingress passes on, whichever it is: metrics are for the inside."""
    if {"x-forwarded-for", "forwarded"} & set(request.headers):
        raise HTTPException(404, "metrics are not for the outside: ask a pod itself, such as by kubectl port-forward")


class _Families:
    """The metric families of one answer to Prometheus."""

    def __init__(self) -> None:
        version = ["model", "version"]
        feature = [*version, "feature", "bucket"]
        self.info = GaugeMetricFamily(
            "mlops_model_info",
            "The versions in service, with run id and serving format; the value is always 1.",
            labels=[*version, "run_id", "serving"],
        )
        self.gates = GaugeMetricFamily(
            "mlops_gate_threshold",
            "Threshold of the promotion gate of the versions in service, in the gate's metric.",
            labels=[*version, "metric"],
        )
        self.requests = CounterMetricFamily(
            "mlops_requests", "Number of prediction requests by status.", labels=[*version, "status"]
        )
        self.durations = HistogramMetricFamily(
            "mlops_request_duration_seconds",
            "Duration of prediction requests in seconds, with the time to read the body.",
            labels=version,
        )
        self.predictions = CounterMetricFamily(
            "mlops_predictions",
            "Number of predicted rows by predicted class or range of values.",
            labels=[*version, "label"],
        )
        self.prediction_shares = GaugeMetricFamily(
            "mlops_prediction_reference_share",
            "Share of the training rows with each class or range of values.",
            labels=[*version, "label"],
        )
        self.buckets = CounterMetricFamily(
            "mlops_feature_bucket", "Number of predicted rows in each bucket of a feature.", labels=feature
        )
        self.bucket_shares = GaugeMetricFamily(
            "mlops_feature_reference_share", "Share of the training rows in each bucket of a feature.", labels=feature
        )
        self.feedback = CounterMetricFamily(
            "mlops_feedback",
            "Number of true labels that were sent for predictions, by whether the prediction was correct.",
            labels=[*version, "correct"],
        )
        self.errors = SummaryMetricFamily(
            "mlops_feedback_absolute_error",
            "Absolute error of the predictions of a regression for which the true value was sent.",
            labels=version,
        )

    def all(self) -> list[Metric]:
        return [
            *(self.info, self.gates, self.requests, self.durations, self.predictions, self.prediction_shares),
            *(self.buckets, self.bucket_shares, self.feedback, self.errors),
        ]

    def add_meter(self, meter: Meter, in_service: bool) -> None:
        labels = [meter.model, meter.version]
        if meter.gate and in_service:
            self.gates.add_metric([*labels, meter.gate.metric], meter.gate.threshold)
        self.add_requests(labels, meter.requests)
        for (feature, reference), counts in zip(meter.references, meter.counts, strict=True):
            if feature:
                totals, shares, names = self.buckets, self.bucket_shares, [str(i) for i in range(len(counts))]
            else:
                totals, shares, names = self.predictions, self.prediction_shares, bucket_labels(reference)
            for name, count, share in zip(names, counts, reference.shares, strict=True):
                bucket = [*labels, feature, name] if feature else [*labels, name]
                totals.add_metric(bucket, count)
                shares.add_metric(bucket, share)
        if meter.task == "classification":
            self.feedback.add_metric([*labels, "true"], meter.correct[True])
            self.feedback.add_metric([*labels, "false"], meter.correct[False])
        elif meter.task:
            self.errors.add_metric(labels, count_value=meter.error_count, sum_value=meter.error_sum)

    def add_requests(self, labels: list[str], requests: RequestCounts) -> None:
        for status, count in list(requests.statuses.items()):
            self.requests.add_metric([*labels, str(status)], count)
        totals = list(accumulate(requests.durations))
        edges = [*(str(edge) for edge in DURATION_BUCKETS), "+Inf"]
        self.durations.add_metric(labels, buckets=list(zip(edges, totals, strict=True)), sum_value=requests.seconds)
