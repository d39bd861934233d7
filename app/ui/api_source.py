"""Figures from one API process' /metrics, with the last minutes kept here: for the demo, which has no Prometheus."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from app.clients.model_api import ModelApiClient
from app.ui.exposition import Sample, read
from app.ui.live_data import WINDOW, FiringAlert, Reading, RequestWindow, Traffic, together

EVERY = 2.0  # seconds
KEPT = 150  # samples: 5 minutes
Key = TypeVar("Key")


@dataclass(frozen=True)
class _Totals:
    """The counters of one model's requests at one moment, since the API was started."""

    time: float
    requests: RequestWindow


class ApiSource:
    """The figures of one visitor.

    Only the sums that rates need are kept of older samples: a wide model has thousands of series.
    """

    every = EVERY
    about = f"What the model API sees, read every {EVERY:g} seconds while this page is open."

    def __init__(self, api: ModelApiClient, clock: Callable[[], float] = time.time) -> None:
        self.api, self.clock = api, clock
        self.reading: Reading | None = None
        self.alerts: list[FiringAlert] | None = None
        self._history: dict[str, deque[_Totals]] = {}

    def refresh(self) -> None:
        text = self.api.metrics()
        try:
            sample = read(text, self.clock())
            since = sample.value("process_start_time_seconds") or None
            reading = Reading(sample.time, sample, {}, since)
            totals = {model: _totals(sample, model, since) for model in reading.models}
        except (ValueError, LookupError) as error:
            raise self.api.foreign(f"/metrics: {error}") from error
        for model, now in totals.items():
            history = self._history.setdefault(model, deque(maxlen=KEPT))
            history.append(now)
            reading.traffic[model] = _traffic(list(history))
        self.reading = reading


def _totals(sample: Sample, model: str, since: float | None) -> _Totals:
    statuses: dict[str, float] = defaultdict(float)
    for labels, value in sample.of("mlops_requests_total", model=model):
        statuses[labels["status"]] += value
    durations: dict[float, float] = defaultdict(float)
    for labels, value in sample.of("mlops_request_duration_seconds_bucket", model=model):
        durations[float(labels["le"])] += value
    return _Totals(sample.time, RequestWindow(sample.time - (since or 0.0), dict(statuses), dict(durations)))


def _traffic(history: list[_Totals]) -> Traffic:
    last = history[-1]
    steps = [(b.time, _added(a, b)) for a, b in pairwise(history) if b.time > a.time]
    recent = [requests for at, requests in steps if at > last.time - WINDOW]
    return Traffic(steps, together(recent) if recent else None, last.requests)


def _added(before: _Totals, now: _Totals) -> RequestWindow:
    """The requests between two moments."""
    # one verdict for all: after a restart a small counter may by chance stand where it stood
    restarted = now.requests.asked < before.requests.asked
    return RequestWindow(
        now.time - before.time,
        _increases({} if restarted else before.requests.statuses, now.requests.statuses),
        _increases({} if restarted else before.requests.durations, now.requests.durations),
    )


def _increases(before: dict[Key, float], now: dict[Key, float]) -> dict[Key, float]:
    """How far counters went. One that is lower than before began again at 0."""
    return {key: value - before.get(key, 0.0) if value >= before.get(key, 0.0) else value for key, value in now.items()}
