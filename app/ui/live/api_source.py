"""Figures from the /metrics of one API process, for the demo, which has no Prometheus; the history is kept here."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from app.clients.model_api import ModelApiClient
from app.ui.live.data import WINDOW, FiringAlert, RequestWindow, Snapshot, Traffic, combine
from app.ui.live.exposition import MetricSeries, parse_metrics

INTERVAL = 2.0  # seconds
KEPT = 150  # readings: 5 minutes
Key = TypeVar("Key")


@dataclass(frozen=True)
class _Totals:
    """The counters of one model's requests at one moment, since the API was started."""

    time: float
    requests: RequestWindow


class ApiSource:
    """The figures of one visitor.

    Of older readings only the sums are kept that rates need: a wide model has thousands of series.

    Args:
        api: a client.
        clock: gives the time in seconds since 1970.
    """

    interval = INTERVAL
    description = f"What the model API counts, read every {INTERVAL:g} seconds while this page is open."

    def __init__(self, api: ModelApiClient, clock: Callable[[], float] = time.time) -> None:
        self.api, self.clock = api, clock
        self.snapshot: Snapshot | None = None
        self.alerts: list[FiringAlert] | None = None
        self._history: dict[str, deque[_Totals]] = {}

    def refresh(self) -> None:
        """Read /metrics once more. Raises ServiceError, and then the last snapshot stays."""
        text = self.api.metrics()
        try:
            series = parse_metrics(text, self.clock())
            since = series.total("process_start_time_seconds") or None
            snapshot = Snapshot(series.time, series, {}, since)
            totals = {model: _totals(series, model, since) for model in snapshot.models}
        except (ValueError, LookupError) as error:
            raise self.api.foreign(f"/metrics: {error}") from error
        for model, latest in totals.items():
            history = self._history.setdefault(model, deque(maxlen=KEPT))
            history.append(latest)
            snapshot.traffic[model] = _traffic(list(history))
        self.snapshot = snapshot


def _totals(series: MetricSeries, model: str, since: float | None) -> _Totals:
    statuses: dict[str, float] = defaultdict(float)
    for labels, value in series.select("mlops_requests_total", model=model):
        statuses[labels["status"]] += value
    durations: dict[float, float] = defaultdict(float)
    for labels, value in series.select("mlops_request_duration_seconds_bucket", model=model):
        durations[float(labels["le"])] += value
    return _Totals(series.time, RequestWindow(series.time - (since or 0.0), dict(statuses), dict(durations)))


def _traffic(history: list[_Totals]) -> Traffic:
    latest = history[-1]
    points = [(b.time, _between(a, b)) for a, b in pairwise(history) if b.time > a.time]
    recent = [requests for at, requests in points if at > latest.time - WINDOW]
    return Traffic(points, combine(recent) if recent else None, latest.requests)


def _between(before: _Totals, after: _Totals) -> RequestWindow:
    """The requests between two moments."""
    # one verdict for all counters: after a restart a small one may by chance stand where it stood
    restarted = after.requests.count < before.requests.count
    return RequestWindow(
        after.time - before.time,
        _increases({} if restarted else before.requests.statuses, after.requests.statuses),
        _increases({} if restarted else before.requests.durations, after.requests.durations),
    )


def _increases(before: dict[Key, float], after: dict[Key, float]) -> dict[Key, float]:
    """How far counters went up. One that is lower than before began again at 0."""
    return {
        key: value - before.get(key, 0.0) if value >= before.get(key, 0.0) else value for key, value in after.items()
    }
