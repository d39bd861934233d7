"""Prefect's flow runs as Prometheus metrics, which Prefect itself does not offer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.clients.errors import ServiceError
from app.clients.prefect import Deployment, FlowRun, PrefectClient

WEEK = timedelta(days=7)

log = logging.getLogger("mlops.exporter")


@dataclass
class Snapshot:
    """What Prefect answered last, by deployment.

    counts: runs of the last week by the type of their state, in lower case.
    successes, failures: the run that ended last so.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    successes: dict[str, FlowRun] = field(default_factory=dict)
    failures: dict[str, FlowRun] = field(default_factory=dict)


class Exporter(Collector):
    """Reads Prefect in a thread of its own: three small requests per deployment and two more, none without a bound.

    While Prefect is away the last figures stay, and mlops_retrainer_prefect_up is 0.

    Args:
        metrics: where it registers itself.
        seconds: pause between two readings.
    """

    def __init__(self, prefect: PrefectClient, metrics: CollectorRegistry, seconds: float) -> None:
        self.prefect, self.seconds = prefect, seconds
        self.snapshot = Snapshot()
        self.prefect_is_up: bool | None = None  # None: not asked yet
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exporter", daemon=True)
        metrics.register(self)

    def start(self) -> None:
        """Begin to read, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, once a reading that is under way is done."""
        self._stopping.set()
        self._thread.join(self.seconds)

    def _run(self) -> None:
        while True:
            self.read()
            if self._stopping.wait(self.seconds):
                return

    def read(self) -> None:
        """Take a new snapshot, if Prefect answers."""
        try:
            snapshot = Snapshot()
            for name, deployment in self.prefect.deployments().items():
                self._read_deployment(name, deployment, snapshot)
        except Exception as error:  # whatever it is, the thread goes on, and the metric tells
            if self.prefect_is_up is not False:
                log.warning("no metrics of flow runs: %s", error, exc_info=not isinstance(error, ServiceError))
            self.prefect_is_up = False
        else:
            if not self.prefect_is_up:
                log.info("metrics of the flow runs of %d deployments", len(snapshot.counts))
            self.snapshot, self.prefect_is_up = snapshot, True

    def _read_deployment(self, name: str, deployment: Deployment, snapshot: Snapshot) -> None:
        now = datetime.now(UTC)
        counts = self.prefect.counts(deployment.id, now - WEEK, now)
        snapshot.counts[name] = {state.lower(): count for state, count in counts.items()}
        for states, latest in ((["COMPLETED"], snapshot.successes), (["FAILED", "CRASHED"], snapshot.failures)):
            for run in self.prefect.runs(deployment_id=deployment.id, states=states, sort="END_TIME_DESC", limit=1):
                latest[name] = run

    def collect(self) -> Iterator[Metric]:
        """The metrics of the last snapshot."""
        snapshot = self.snapshot
        yield GaugeMetricFamily(
            "mlops_retrainer_prefect_up",
            "Whether Prefect answered the last time that its flow runs were read.",
            value=int(bool(self.prefect_is_up)),
        )
        runs = GaugeMetricFamily(
            "mlops_flow_runs",
            "Number of flow runs of the last 7 days, by the type of their state.",
            labels=["deployment", "state"],
        )
        for name, counts in snapshot.counts.items():
            for state, count in counts.items():
                runs.add_metric([name, state], count)
        yield runs
        yield _by_deployment(
            "mlops_flow_run_duration_seconds",
            "Duration of the last completed run in seconds.",
            {name: run.seconds for name, run in snapshot.successes.items()},
        )
        yield _by_deployment(
            "mlops_deployment_last_success_timestamp_seconds",
            "End of the last completed run, in seconds since 1970.",
            _ends(snapshot.successes),
        )
        yield _by_deployment(
            "mlops_deployment_last_failure_timestamp_seconds",
            "End of the last failed or crashed run, in seconds since 1970.",
            _ends(snapshot.failures),
        )


def _by_deployment(metric: str, text: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric, text, labels=["deployment"])
    for deployment, value in values.items():
        family.add_metric([deployment], value)
    return family


def _ends(runs: Mapping[str, FlowRun]) -> dict[str, float]:
    return {name: run.ended.timestamp() for name, run in runs.items() if run.ended}
