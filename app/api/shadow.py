"""A challenger in the shadow: it predicts copies of rows that production has answered, and both are compared.

Production's answers do not wait for it: rows are put into a bounded queue, which a thread works off.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from app.api.batching import MAX_BATCH
from app.api.request_counts import DURATION_BUCKETS
from app.api.row_decoder import Rows
from app.registry.bundle import Bundle
from app.registry.predictor import Predictor
from app.vocabulary import Label, NumericReference

# What waits; what does not fit is dropped. Bytes: of the request bodies that the rows came in.
MAX_ROWS_WAITING, MAX_BYTES_WAITING = 10_000, 4 * 2**20
PAUSE = 0.1  # seconds that rows wait, so that their answers are out and many are predicted together
TOLERANCE = 0.1  # of the range of production's training targets; values that are farther apart disagree

log = logging.getLogger("mlops.challenger")


class _Copy(NamedTuple):
    rows: Rows
    labels: Sequence[Label]
    size: int


class Shadow:
    """A loaded challenger beside the version in production, and what came of the rows that both predicted.

    Args:
        version, bundle, predictor: of the challenger.
        share: of production's batches of rows, from 0 to 1, that it gets a copy of.
        production: the bundle of the version in production.
    """

    def __init__(
        self, model: str, version: str, bundle: Bundle, predictor: Predictor, share: float, production: Bundle
    ) -> None:
        self.model, self.version, self.bundle, self.share = model, version, bundle, share
        self.agree = self.disagree = self.failed = self.dropped = 0
        self.durations, self.seconds = [0] * (len(DURATION_BUCKETS) + 1), 0.0
        self._predictor = predictor
        self._tolerance = tolerance(production)
        self._waiting: deque[_Copy] = deque()
        self._rows = self._bytes = 0
        self._due = 0.0  # of a batch that the share amounts to
        self._lock = threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._has_logged = False
        self._thread = threading.Thread(target=self._run, name=f"shadow {model}", daemon=True)

    def start(self) -> None:
        """Predict what is offered, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more; what waits is forgotten."""
        self._stop.set()
        self._wake.set()

    def offer(self, rows: Rows, labels: Sequence[Label], size: int) -> None:
        """Take a copy of rows that production predicted, or drop them where too much waits already.

        Args:
            rows: in the signature's order.
            labels: production's predictions.
            size: bytes of the request bodies that they came in.
        """
        with self._lock:
            self._due += self.share
            if self._due < 1:
                return
            self._due -= 1
            number, total = self._rows + len(labels), self._bytes + size
            if number > MAX_ROWS_WAITING or total > MAX_BYTES_WAITING:
                self.dropped += len(labels)
                return
            self._rows, self._bytes = number, total
            self._waiting.append(_Copy(rows, labels, size))
        self._wake.set()

    def work(self) -> None:
        """Predict and compare all that waits."""
        while not self._stop.is_set():
            with self._lock:
                if not self._waiting:
                    return
                copy = self._waiting.popleft()
                self._rows -= len(copy.labels)
                self._bytes -= copy.size
            for begin in range(0, len(copy.labels), MAX_BATCH):
                self._compare(copy.rows[begin : begin + MAX_BATCH], copy.labels[begin : begin + MAX_BATCH])

    def buckets(self) -> list[tuple[str, int]]:
        """The durations of its predictions, as Prometheus has histograms: upper edge in seconds, count up to it."""
        edges = [*map(str, DURATION_BUCKETS), "+Inf"]
        return list(zip(edges, accumulate(self.durations), strict=True))

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if self._stop.wait(PAUSE):
                return
            self._wake.clear()
            self.work()

    def _compare(self, rows: Rows, labels: Sequence[Label]) -> None:
        begin = time.perf_counter()
        try:
            own = self._predictor.predict(rows).labels
            agree = sum(self._agrees(a, b) for a, b in zip(own, labels, strict=True))
        except Exception:  # whatever the challenger does, production goes on
            self.failed += len(labels)
            if not self._has_logged:
                self._has_logged = True  # once: it may fail for each row
                log.exception("the challenger, version %s of %s, failed on rows of requests", self.version, self.model)
            return
        seconds = time.perf_counter() - begin
        self.durations[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.seconds += seconds
        self.agree += agree
        self.disagree += len(labels) - agree

    def _agrees(self, own: Any, label: Any) -> bool:
        if self._tolerance is None:
            return bool(own == label)
        return abs(float(own) - label) <= self._tolerance  # not a number agrees with nothing


def tolerance(production: Bundle) -> float | None:
    """How far apart two predictions of a regression may be that agree; None for a classification."""
    reference = production.reference.prediction
    if production.task == "classification" or not isinstance(reference, NumericReference):
        return None
    return TOLERANCE * (reference.max - reference.min)


def why_not_comparable(challenger: Bundle, production: Bundle) -> str:
    """Why rows of production's requests cannot be given to the challenger; "" where they can."""
    if (challenger.task, challenger.target) != (production.task, production.target):
        return f"it predicts {challenger.target!r} ({challenger.task}), production {production.target!r}"
    own, other = ([f"{f.name} ({f.dtype})" for f in bundle.features] for bundle in (challenger, production))
    if own != other:
        return f"its features are {', '.join(own)}; production's are {', '.join(other)}, in this order"
    return ""
