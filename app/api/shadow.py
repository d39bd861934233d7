"""A challenger in the shadow: it predicts copies of rows that production has answered, and both are compared.

Production's answers do not wait for it: rows are put into a bounded queue, which a thread works off.
"""

from __future__ import annotations

import logging
import math
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
from app.registry.shadow_record import ShadowCounts
from app.vocabulary import Label, NumericReference

# What waits; what does not fit is dropped. Bytes: of the request bodies that the rows came in.
MAX_ROWS_WAITING, MAX_BYTES_WAITING = 10_000, 4 * 2**20
PAUSE = 0.1  # seconds that rows wait, so that their answers are out and many are predicted together
TOLERANCE = 0.1  # of the range of production's training targets; values that are farther apart disagree

log = logging.getLogger("mlops.challenger")


class _Copy(NamedTuple):
    rows: Rows
    labels: Sequence[Label]  # that production predicted
    size: int
    truths: Sequence[Label] | None = None  # the true labels, where the rows came with these


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
        self.counts = ShadowCounts()
        self.durations, self.seconds = [0] * (len(DURATION_BUCKETS) + 1), 0.0
        self._predictor = predictor
        self._tolerance = tolerance(production)
        self.is_classifier = production.task == "classification"
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

    @property
    def has_ended(self) -> bool:
        """Whether it was stopped and counts nothing more."""
        return self._stop.is_set() and not self._thread.is_alive()

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
            self._put(_Copy(rows, labels, size))
        self._wake.set()

    def offer_truths(self, rows: Rows, labels: Sequence[Label], truths: Sequence[Label], size: int) -> None:
        """Take rows that production predicted and whose true labels came, all of them whatever the share.

        Args:
            truths: the true labels; the rest is as in `offer`.
        """
        with self._lock:
            self._put(_Copy(rows, labels, size, truths))
        self._wake.set()

    def _put(self, copy: _Copy) -> None:
        number, total = self._rows + len(copy.labels), self._bytes + copy.size
        if number > MAX_ROWS_WAITING or total > MAX_BYTES_WAITING:
            self.counts.dropped += len(copy.labels)
            return
        self._rows, self._bytes = number, total
        self._waiting.append(copy)

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
                part = slice(begin, begin + MAX_BATCH)
                if copy.truths is None:
                    self._compare(copy.rows[part], copy.labels[part])
                else:
                    self._grade(copy.rows[part], copy.labels[part], copy.truths[part])

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
            self.counts.failed += len(labels)
            self._log_failure()
            return
        seconds = time.perf_counter() - begin
        self.durations[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.seconds += seconds
        self.counts.agree += agree
        self.counts.disagree += len(labels) - agree

    def _grade(self, rows: Rows, labels: Sequence[Any], truths: Sequence[Any]) -> None:
        """Count how right both were. A challenger that fails on the rows was right about none."""
        own: Sequence[Any]
        try:
            own = self._predictor.predict(rows).labels
            graded = [*zip(own, labels, truths, strict=True)]
        except Exception:
            self._log_failure()
            graded = [(None, label, truth) for label, truth in zip(labels, truths, strict=True)]
        counts = self.counts
        for mine, label, truth in graded:
            if self.is_classifier:
                if mine == truth:
                    counts.both_right += label == truth
                    counts.challenger_right += label != truth
                else:
                    counts.production_right += label == truth
                    counts.neither_right += label != truth
            elif mine is not None and math.isfinite(mine):
                counts.challenger_error += abs(float(mine) - truth)
                counts.production_error += abs(label - truth)
                counts.labels += 1

    def _log_failure(self) -> None:
        """Log the exception that is handled; once, as it may fail for each row."""
        if not self._has_logged:
            self._has_logged = True
            log.exception("the challenger, version %s of %s, failed on rows of requests", self.version, self.model)

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
