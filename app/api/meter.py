"""Counts of one model version, in plain lists: counting is on the path of every prediction."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from app.registry.bundle import Bundle
from app.registry.reference import Bucketer
from app.vocabulary import ColumnReference

# upper edges in seconds
DURATION_BUCKETS = (
    0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5,
)  # fmt: skip
# Counted from 0 on: Prometheus does not see the first request in a series that begins with it.
STATUSES = (200, 413, 422, 500)
Tally = list[list[int]]  # rows in each bucket of each feature, and last of the predictions


class RequestCounts:
    """Answered requests of prediction routes: statuses and durations."""

    __slots__ = ("durations", "seconds", "statuses")

    def __init__(self, statuses: Sequence[int] = ()) -> None:
        self.statuses = dict.fromkeys(statuses, 0)
        self.durations = [0] * (len(DURATION_BUCKETS) + 1)
        self.seconds = 0.0

    def add(self, status: int, seconds: float) -> None:
        """Count one answered request and how long it took."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.durations[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.seconds += seconds


class Meter:
    """The counts of one model version. Only the event loop's thread changes them.

    Args:
        bundle: None where feedback comes for a version that is not loaded here.
    """

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
        """Count rows apart, for `add`; unlike `count`, this may run in any thread."""
        counts = self._empty()
        self._count(counts, rows, labels)
        return counts

    def _count(self, counts: Tally, rows: Sequence[Sequence[Any]], labels: Sequence[Any]) -> None:
        for row, label in zip(rows, labels, strict=True):
            for bucketer, value, column in zip(self._bucketers, (*row, label), counts, strict=True):
                column[bucketer(value)] += 1

    def add(self, tally: Tally) -> None:
        """Add counts that `tally` made."""
        for column, more in zip(self.counts, tally, strict=True):
            column[:] = [a + b for a, b in zip(column, more, strict=True)]

    def feedback(self, prediction: Any, label: Any, task: str) -> None:
        """Count one stored label of a prediction by this version."""
        self.task = self.task or task
        if task == "classification":
            self.correct[prediction == label] += 1
        else:
            self.error_sum += abs(prediction - label)
            self.error_count += 1
