"""Counts of answered requests: each is counted once, and read by route and by model version."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

# upper edges in seconds
DURATION_BUCKETS = (
    0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5,
)  # fmt: skip
FORGOTTEN = "\0"  # the model of requests to versions that are forgotten: no model has this name


# What requests are told apart by: method, handler (the route's path, such as "/models/{name}/predict"), and model and
# version that answered, "" where no version in service did, or none was asked for.
Key = tuple[str, str, str, str]


class Counts:
    """Statuses and durations of some requests. statuses: those that are there from the start, with 0."""

    __slots__ = ("durations", "seconds", "statuses")

    def __init__(self, statuses: Iterable[int] = ()) -> None:
        self.statuses = dict.fromkeys(statuses, 0)
        self.durations = [0] * (len(DURATION_BUCKETS) + 1)
        self.seconds = 0.0

    def merge(self, other: Counts) -> None:
        """Add the counts of other requests."""
        for status, count in list(other.statuses.items()):
            self.statuses[status] = self.statuses.get(status, 0) + count
        self.durations = [a + b for a, b in zip(self.durations, other.durations, strict=True)]
        self.seconds += other.seconds


class RequestCounts:
    """Counts every request. Only the event loop's thread counts; any thread may read.

    predicting: the handlers that predict.
    """

    def __init__(self) -> None:
        self.predicting: set[str] = set()
        self._counts: dict[Key, Counts] = {}

    def add(self, key: Key, status: int, seconds: float) -> None:
        """Count one answered request. seconds: its duration."""
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = Counts()
        counts.statuses[status] = counts.statuses.get(status, 0) + 1
        counts.durations[bisect_left(DURATION_BUCKETS, seconds)] += 1
        counts.seconds += seconds

    def forget(self, model: str, version: str) -> None:
        """Of this version's requests keep the handlers only."""
        for key in [key for key in list(self._counts) if key[2:] == (model, version)]:
            self._counts.setdefault((*key[:2], FORGOTTEN, ""), Counts()).merge(self._counts.pop(key))

    def by_handler(self) -> dict[tuple[str, str], Counts]:
        """All requests, by method and handler."""
        return self._merged((key[:2], counts) for key, counts in list(self._counts.items()))

    def of_predictions(self) -> dict[tuple[str, str], Counts]:
        """The requests to handlers that predict, by model and version."""
        return self._merged(
            (key[2:], counts)
            for key, counts in list(self._counts.items())
            if key[1] in self.predicting and key[2] != FORGOTTEN
        )

    @staticmethod
    def _merged(some: Iterable[tuple[tuple[str, ...], Counts]]) -> dict[tuple[str, str], Counts]:
        merged: dict[tuple[str, str], Counts] = {}
        for (first, second), counts in some:
            merged.setdefault((first, second), Counts()).merge(counts)
        return merged
