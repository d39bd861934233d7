"""Prefect's flow runs as Prometheus metrics, which Prefect itself does not offer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.clients.prefect import FAILED, FlowRun, PrefectClient, PrefectUnavailable

log = logging.getLogger("mlops.exporter")


@dataclass
class Snapshot:
    """What Prefect said the last time that it answered, by deployment."""

    runs: dict[str, dict[str, int]] = field(default_factory=dict)
    success: dict[str, FlowRun | None] = field(default_factory=dict)
    failure: dict[str, FlowRun | None] = field(default_factory=dict)


class Exporter(Collector):
    """Reads Prefect in a thread of its own: three small requests per deployment and two more, none without a bound.

    While Prefect is away the last figures stay, and mlops_retrainer_prefect_up is 0.
    """

    def __init__(self, prefect: PrefectClient, metrics: CollectorRegistry, seconds: float) -> None:
        self.prefect, self.seconds = prefect, seconds
        self.snapshot = Snapshot()
        self.up: bool | None = None  # None: not asked yet
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exporter", daemon=True)
        metrics.register(self)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(self.seconds)

    def _run(self) -> None:
        while True:
            self.read()
            if self._over.wait(self.seconds):
                return

    def read(self) -> None:
        """Take a new snapshot, if Prefect answers."""
        try:
            now = datetime.now(UTC)
            fresh = Snapshot()
            for name, deployment in self.prefect.deployments().items():
                fresh.runs[name] = self.prefect.counts(deployment, now)
                fresh.success[name] = self.prefect.last(deployment, ["COMPLETED"])
                fresh.failure[name] = self.prefect.last(deployment, FAILED)
        except Exception as error:  # whatever it is, the thread goes on, and the metric tells
            if self.up is not False:
                log.warning("no metrics of flow runs: %s", error, exc_info=not isinstance(error, PrefectUnavailable))
            self.up = False
        else:
            if not self.up:
                log.info("metrics of the flow runs of %d deployments", len(fresh.runs))
            self.snapshot, self.up = fresh, True

    def collect(self) -> Iterator[Metric]:
        snapshot = self.snapshot
        yield GaugeMetricFamily(
            "mlops_retrainer_prefect_up",
            "Whether Prefect answered the exporter's last questions.",
            value=int(bool(self.up)),
        )
        runs = GaugeMetricFamily(
            "mlops_flow_runs",
            "Flow runs of the last 7 days, by the type of their state.",
            labels=["deployment", "state"],
        )
        for name, counts in snapshot.runs.items():
            for state, count in counts.items():
                runs.add_metric([name, state], count)
        duration = GaugeMetricFamily(
            "mlops_flow_run_duration_seconds", "Of the last completed run.", labels=["deployment"]
        )
        success = GaugeMetricFamily(
            "mlops_deployment_last_success_timestamp_seconds", "End of the last completed run.", labels=["deployment"]
        )
        failure = GaugeMetricFamily(
            "mlops_deployment_last_failure_timestamp_seconds",
            "End of the last failed or crashed run.",
            labels=["deployment"],
        )
        for family, found in ((success, snapshot.success), (failure, snapshot.failure)):
            for name, run in found.items():
                if run and run.ended:
                    family.add_metric([name], run.ended.timestamp())
        for name, run in snapshot.success.items():
            if run:
                duration.add_metric([name], run.seconds)
        yield from (runs, duration, success, failure)
