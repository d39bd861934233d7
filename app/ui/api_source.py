"""Figures from one API process' /metrics, with the last minutes kept here: for the demo, which has no Prometheus."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from app.ui.api_client import ModelApi
from app.ui.exposition import Sample, read
from app.ui.figures import WINDOW, Reading, Requests, Traffic

EVERY = 2  # seconds
KEPT = 150  # samples: 5 minutes


@dataclass(frozen=True)
class _Totals:
    """The counters of one model's requests at one moment, since the API was started."""

    time: float
    requests: Requests


class ApiSource:
    """The figures of one visitor.

    Only the sums that rates need are kept of older samples: a wide model has thousands of series.
    """

    every = EVERY
    about = f"What the model API sees, read every {EVERY} seconds while this page is open."

    def __init__(self, api: ModelApi, clock: Callable[[], float] = time.time) -> None:
        self.api, self.clock = api, clock
        self.reading: Reading | None = None
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
    return _Totals(sample.time, Requests(sample.time - (since or 0.0), dict(statuses), dict(durations)))


def _traffic(history: list[_Totals]) -> Traffic:
    last = history[-1]
    points = [(b.time, _between([a, b])) for a, b in pairwise(history) if b.time > a.time]
    recent = [totals for totals in history if totals.time >= last.time - WINDOW]
    return Traffic(points, _between(recent) if last.time > recent[0].time else None, last.requests)


def _between(history: list[_Totals]) -> Requests:
    """The requests between the first and the last."""
    statuses: dict[str, float] = defaultdict(float)
    durations: dict[float, float] = defaultdict(float)
    for a, b in pairwise(history):
        # one verdict for all: after a restart a small counter may by chance stand where it stood
        restarted = b.requests.asked < a.requests.asked
        for total, before, now in (
            (statuses, a.requests.statuses, b.requests.statuses),
            (durations, a.requests.durations, b.requests.durations),
        ):
            for key, value in now.items():
                begin = 0.0 if restarted else before.get(key, 0.0)
                total[key] += value - begin if value >= begin else value
    return Requests(history[-1].time - history[0].time, dict(statuses), dict(durations))
