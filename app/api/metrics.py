"""All metrics of the API: what `app.api.meter` counts is put into Prometheus' form when /metrics is read."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from starlette.types import Scope

from app.api.errors import Refusal
from app.api.meter import Meter
from app.api.request_counts import DURATION_BUCKETS, Counts, RequestCounts
from app.api.router import Answer, Get, Route
from app.api.shadow import Shadow
from app.registry.bundle import Bundle
from app.registry.reference import bucket_labels, bucket_shares

if TYPE_CHECKING:
    from app.api.canary import Canary

KEPT_VERSIONS = 5  # per model
FORWARDED = {b"x-forwarded-for", b"forwarded"}
# Counted from 0 on: Prometheus does not see the first request in a series that begins with it.
STATUSES = (200, 413, 422, 500)


class Metrics(Collector):
    """All of the API's own metrics, in a Prometheus registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.swaps = PrometheusCounter(
            "mlops_swaps", "Number of versions that went into service.", ["model"], registry=self.registry
        )
        self.failures = PrometheusCounter(
            "mlops_swap_failures",
            "Number of times a version could not be loaded and stayed out of service, by reason.",
            ["model", "version", "reason"],
            registry=self.registry,
        )
        self.challenger_failures = PrometheusCounter(
            "mlops_challenger_load_failures",
            "Number of times a challenger could not be loaded or compared and stayed out.",
            ["model", "version"],
            registry=self.registry,
        )
        self.registry_up = Gauge(
            "mlops_registry_up", "Whether MLflow answered at the last look: 1 yes, 0 no.", registry=self.registry
        )
        self.refusals = PrometheusCounter(
            "mlops_key_refusals",
            'Number of requests that were refused for their key, by client ("" where none is known) and reason.',
            ["client", "reason"],
            registry=self.registry,
        )
        self.info: dict[str, tuple[str, str, str]] = {}  # model -> version, run id, serving
        self.shadows: dict[str, Shadow] = {}  # by model; those that are loaded
        self.canaries: dict[str, Canary] = {}  # by model; those that could not be loaded, too
        self.requests = RequestCounts()
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
            canary = self.canaries.get(model)
            served = {self.info.get(model, ("",))[0], canary.version if canary else ""}
            oldest = [k for k in meters if k[0] == model][:-KEPT_VERSIONS]
            for key in oldest:
                if key[1] not in served:
                    del meters[key]
                    self.requests.forget(*key)
            self._meters = meters
        return meter

    def collect(self) -> Iterator[Metric]:
        """Everything that was counted, as Prometheus asks for it."""
        families = _Families()
        predictions = self.requests.of_predictions()
        families.add_predictions("", "", predictions.get(("", ""), Counts()))
        for (method, handler), counts in self.requests.by_handler().items():
            families.add_requests(method, handler, counts)
        in_service = dict(self.info)
        for model, (version, run_id, serving) in in_service.items():
            families.info.add_metric([model, version, run_id, serving], 1)
        for meter in self._meters.values():
            counts = Counts(STATUSES)
            counts.merge(predictions.get((meter.model, meter.version), Counts()))
            families.add_predictions(meter.model, meter.version, counts)
            families.add_meter(meter, in_service.get(meter.model, ("",))[0] == meter.version)
        for shadow in self.shadows.values():
            families.add_shadow(shadow)
        for canary in self.canaries.values():
            families.add_canary(canary)
        yield from families.all()


def metrics_route(metrics: Metrics) -> Route:
    """The route /metrics, which Prometheus reads."""

    async def exposition(scope: Scope) -> Answer:
        if FORWARDED & {name for name, _ in scope["headers"]}:  # through an ingress, whichever it is
            raise Refusal(404, "metrics are not for the outside: ask a pod itself, such as by kubectl port-forward")
        body = await asyncio.to_thread(generate_latest, metrics.registry)
        return Answer(200, body, {"Content-Type": CONTENT_TYPE_LATEST})

    return Get.route("/metrics", exposition)


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
        self.http_requests = CounterMetricFamily(
            "http_requests",
            "Number of HTTP requests by method, status and route.",
            labels=["method", "status", "handler"],
        )
        self.http_durations = HistogramMetricFamily(
            "http_request_duration_seconds", "Duration of HTTP requests in seconds.", labels=["method", "handler"]
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

        self.challenger_rows = CounterMetricFamily(
            "mlops_challenger_rows",
            "Number of rows that the challenger predicted in the shadow, by whether it agrees with production.",
            labels=[*version, "agreement"],
        )
        self.challenger_failed = CounterMetricFamily(
            "mlops_challenger_failed_rows", "Number of rows that the challenger failed on.", labels=version
        )
        self.challenger_dropped = CounterMetricFamily(
            "mlops_challenger_dropped_rows",
            "Number of rows that the challenger did not get because too many waited.",
            labels=version,
        )
        self.challenger_durations = HistogramMetricFamily(
            "mlops_challenger_duration_seconds",
            "Duration of the challenger's predictions in seconds, each of up to 256 rows of one batch.",
            labels=version,
        )
        self.challenger_feedback = CounterMetricFamily(
            "mlops_challenger_feedback",
            "Number of rows whose true label came, by whether the challenger, production, both or neither was right.",
            labels=[*version, "right"],
        )
        self.challenger_errors = SummaryMetricFamily(
            "mlops_challenger_feedback_absolute_error",
            "Absolute error of the challenger and of production on the same rows whose true value came.",
            labels=[*version, "by"],
        )
        self.canary_requests = CounterMetricFamily(
            "mlops_canary_requests", "Number of requests that fell to the canary.", labels=version
        )
        self.canary_failures = CounterMetricFamily(
            "mlops_canary_failures",
            "Number of requests that the canary did not answer, and production did.",
            labels=version,
        )
        self.canary_returned = GaugeMetricFamily(
            "mlops_canary_returned",
            "Whether production answers the canary's requests, as it failed or could not be loaded: 1 yes, 0 no.",
            labels=version,
        )

    def all(self) -> list[Metric]:
        return [
            *(self.http_requests, self.http_durations),
            *(self.info, self.gates, self.requests, self.durations, self.predictions, self.prediction_shares),
            *(self.buckets, self.bucket_shares, self.feedback, self.errors),
            *(self.challenger_rows, self.challenger_failed, self.challenger_dropped, self.challenger_durations),
            *(self.challenger_feedback, self.challenger_errors),
            *(self.canary_requests, self.canary_failures, self.canary_returned),
        ]

    def add_shadow(self, shadow: Shadow) -> None:
        labels, counts = [shadow.model, shadow.version], shadow.counts
        self.challenger_rows.add_metric([*labels, "agree"], counts.agree)
        self.challenger_rows.add_metric([*labels, "disagree"], counts.disagree)
        self.challenger_failed.add_metric(labels, counts.failed)
        self.challenger_dropped.add_metric(labels, counts.dropped)
        self.challenger_durations.add_metric(labels, buckets=shadow.buckets(), sum_value=shadow.seconds)
        if shadow.is_classifier:
            self.challenger_feedback.add_metric([*labels, "both"], counts.both_right)
            self.challenger_feedback.add_metric([*labels, "challenger"], counts.challenger_right)
            self.challenger_feedback.add_metric([*labels, "production"], counts.production_right)
            self.challenger_feedback.add_metric([*labels, "neither"], counts.neither_right)
        else:
            errors = {"challenger": counts.challenger_error, "production": counts.production_error}
            for by, total in errors.items():
                self.challenger_errors.add_metric([*labels, by], count_value=counts.labels, sum_value=total)

    def add_canary(self, canary: Canary) -> None:
        labels = [canary.model, canary.version]
        self.canary_requests.add_metric(labels, canary.requests)
        self.canary_failures.add_metric(labels, canary.failures)
        self.canary_returned.add_metric(labels, bool(canary.returned))

    def add_meter(self, meter: Meter, in_service: bool) -> None:
        labels = [meter.model, meter.version]
        if meter.gate and in_service:
            self.gates.add_metric([*labels, meter.gate.metric], meter.gate.threshold)
        for (feature, reference), counts in zip(meter.references, meter.counts(), strict=True):
            if feature:
                totals, shares, names = self.buckets, self.bucket_shares, [str(i) for i in range(len(counts))]
            else:
                totals, shares, names = self.predictions, self.prediction_shares, bucket_labels(reference)
            for name, count, share in zip(names, counts, bucket_shares(reference), strict=True):
                bucket = [*labels, feature, name] if feature else [*labels, name]
                totals.add_metric(bucket, count)
                shares.add_metric(bucket, share)
        if meter.task == "classification":
            self.feedback.add_metric([*labels, "true"], meter.correct[True])
            self.feedback.add_metric([*labels, "false"], meter.correct[False])
        elif meter.task:
            self.errors.add_metric(labels, count_value=meter.error_count, sum_value=meter.error_sum)

    def add_predictions(self, model: str, version: str, counts: Counts) -> None:
        labels = [model, version]
        for status, count in sorted(counts.statuses.items()):
            self.requests.add_metric([*labels, str(status)], count)
        _add_durations(self.durations, labels, counts)

    def add_requests(self, method: str, handler: str, counts: Counts) -> None:
        by_class = Counter[str]()
        for status, count in counts.statuses.items():
            by_class[f"{status // 100}xx"] += count
        for status_class, count in sorted(by_class.items()):
            self.http_requests.add_metric([method, status_class, handler], count)
        _add_durations(self.http_durations, [method, handler], counts)


def _add_durations(family: HistogramMetricFamily, labels: list[str], counts: Counts) -> None:
    totals = list(accumulate(counts.durations))
    edges = [*(str(edge) for edge in DURATION_BUCKETS), "+Inf"]
    family.add_metric(labels, buckets=list(zip(edges, totals, strict=True)), sum_value=counts.seconds)
