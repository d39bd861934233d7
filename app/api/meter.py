"""Counts of one model version: rows by the bucket of each feature and of the prediction, and feedback."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from app.api.row_decoder import Rows
from app.registry.bundle import Bundle
from app.registry.reference import bucket_counts, bucket_shares
from app.vocabulary import ColumnReference, Label

# Rows wait to be counted together, which is cheaper by far; when Prometheus asks, or so many wait, they are counted.
MAX_ROWS_WAITING, MAX_BYTES_WAITING = 250, 2**20


class Meter:
    """The counts of one model version. Feedback is counted by the event loop's thread only, rows by any.

    Args:
        bundle: None where feedback comes for a version that is not loaded here.
    """

    def __init__(self, model: str, version: str, bundle: Bundle | None) -> None:
        self.model, self.version = model, version
        self.sha256 = bundle.sha256 if bundle else ""
        self.task: str = bundle.task if bundle else ""
        self.classes = bundle.classes if bundle else ()
        self.gate = bundle.gate if bundle else None
        self.correct = {True: 0, False: 0}
        self.error_sum, self.error_count = 0.0, 0
        self.references: list[tuple[str, ColumnReference]] = []
        if bundle:
            self.references = [(f.name, bundle.reference.features[f.name]) for f in bundle.features]
            self.references.append(("", bundle.reference.prediction))
        self._counts = [np.zeros(len(bucket_shares(reference)), dtype=np.int64) for _, reference in self.references]
        self._lock = threading.Lock()
        self._waiting: list[tuple[Rows, Sequence[Label]]] = []
        self._rows = self._bytes = 0

    def count(self, rows: Rows, labels: Sequence[Label], size: int = 0) -> None:
        """Count rows of feature values and their predictions.

        Args:
            size: bytes of the request bodies that they came in.
        """
        with self._lock:
            if len(labels) >= MAX_ROWS_WAITING and isinstance(rows, np.ndarray):
                self._count_columns([*rows.T, labels])
                return
            self._waiting.append((rows, labels))
            self._rows += len(labels)
            self._bytes += size
            if self._rows >= MAX_ROWS_WAITING or self._bytes >= MAX_BYTES_WAITING:
                self._count_waiting()

    def counts(self) -> list[list[int]]:
        """Rows in each bucket of each feature, and last of the predictions."""
        with self._lock:
            self._count_waiting()
            return [counts.tolist() for counts in self._counts]

    def _count_waiting(self) -> None:
        waiting, self._waiting, self._rows, self._bytes = self._waiting, [], 0, 0
        arrays = [(rows, labels) for rows, labels in waiting if isinstance(rows, np.ndarray)]
        lists = [(rows, labels) for rows, labels in waiting if not isinstance(rows, np.ndarray)]
        if arrays:
            columns = [*np.concatenate([rows for rows, _ in arrays]).T]
            self._count_columns([*columns, [*chain.from_iterable(labels for _, labels in arrays)]])
        if lists:
            columns = [*zip(*chain.from_iterable(rows for rows, _ in lists), strict=True)]
            self._count_columns([*columns, [*chain.from_iterable(labels for _, labels in lists)]])

    def _count_columns(self, columns: Sequence[Sequence[Any] | np.ndarray]) -> None:
        for counts, (_, reference), values in zip(self._counts, self.references, columns, strict=True):
            counts += bucket_counts(reference, values)

    def feedback(self, prediction: Any, label: Any, task: str) -> None:
        """Count one stored label of a prediction by this version."""
        self.task = self.task or task
        if task == "classification":
            self.correct[prediction == label] += 1
        else:
            self.error_sum += abs(prediction - label)
            self.error_count += 1
