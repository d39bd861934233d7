"""Writes down in MLflow what the challengers of this replica counted, see `app.registry.shadow_record`."""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import dataclass, field, replace

from app.api.shadow import Shadow
from app.clients.mlflow import MlflowClient, MlflowError, MlflowUnavailable
from app.registry import shadow_record
from app.registry.shadow_record import Beside, ShadowCounts

PERIOD = 10.0  # seconds between two writes, and a hundredth of how long it is beside production, where that is longer:
OF_AGE = 0.01  # MLflow keeps every value of a metric, which would be 8,640 a day

log = logging.getLogger("mlops.challenger")


@dataclass
class _Record:
    shadow: Shadow
    beside: Beside
    begun: float = field(default_factory=time.monotonic)
    run_id: str = ""
    written: ShadowCounts = field(default_factory=ShadowCounts)
    next_write: float = 0.0  # of time.monotonic(), as is
    not_before: float = 0.0  # where MLflow has refused it


class ShadowRecorder:
    """What all challengers of this replica counted, those that have ended included until it is written.

    One thread uses it, that which follows MLflow. Where MLflow is away, what is not written yet is written later.
    """

    def __init__(self, registry: MlflowClient) -> None:
        self.registry = registry
        self._records: list[_Record] = []
        self._is_away = False

    def follow(self, shadow: Shadow, beside: Beside) -> None:
        """Write down what this challenger counts, from now on until it has ended."""
        self._records.append(_Record(shadow, beside))

    def write(self, now: bool = False) -> None:
        """Write what has changed and is due.

        Args:
            now: write what is not due yet, too.
        """
        try:
            for record in [*self._records]:
                has_ended = record.shadow.has_ended  # before its counts are read
                due = record.not_before if has_ended else max(record.not_before, record.next_write)
                if now or time.monotonic() >= due:
                    self._write(record)
                    if has_ended:
                        self._records.remove(record)
        except MlflowError as error:
            if not self._is_away:
                log.warning("what the challenger counted cannot be written to MLflow, and will be later: %s", error)
            self._is_away = True
        else:
            self._is_away = False

    def _write(self, record: _Record) -> None:
        counts = replace(record.shadow.counts)
        if counts == record.written:
            return
        try:
            if not record.run_id:
                record.run_id = shadow_record.begin(self.registry, record.beside, socket.gethostname())
            shadow_record.write(self.registry, record.run_id, counts, record.written)
        except MlflowUnavailable:
            raise
        except MlflowError:
            # the run was deleted, maybe: all of it goes into another one
            record.run_id, record.written = "", ShadowCounts()
            record.not_before = time.monotonic() + 10 * PERIOD
            raise
        at = time.monotonic()
        record.written, record.next_write = counts, at + max(PERIOD, OF_AGE * (at - record.begun))
