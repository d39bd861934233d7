"""Prediction ids: short names of answers, which tell where an answer came from and nothing of what it was about."""

from __future__ import annotations

import random
import re
import socket
import threading
import time

MASK = 0x7FFFFFFF  # the count begins anew then, a while after the same millisecond
REPLICA = 5  # characters: what a pod's name ends with


class PredictionIds:
    """Makes the ids of one process, such as 5f1d2.12.x7k2p.19ab3f4c2d1.1f3a9c2b.

    They are the model (as `model_digest`), the version, the replica, the time in milliseconds since
    the epoch and a count, the last two in hexadecimal: at most 40 characters while versions have up to 7 digits.

    Args:
        host: the name of the replica, by default this machine's or pod's.
    """

    def __init__(self, host: str | None = None) -> None:
        letters = re.sub(r"[^a-z0-9]", "", (host or socket.gethostname()).lower())
        self.replica = letters[-REPLICA:] or "local"
        # from anywhere, so that two processes on one host do not make the same
        self._next = random.SystemRandom().getrandbits(31)
        self._lock = threading.Lock()

    def make(self, model: str, version: str, number: int) -> list[str]:
        """Ids of as many predictions; no two are equal, here or of other replicas.

        Args:
            model: its `app.registry.prediction_id.model_digest`.
            number: of rows.
        """
        head = f"{model}.{version}.{self.replica}.{int(time.time() * 1000):x}."
        with self._lock:
            first = self._next
            self._next = (first + number) & MASK
        return [f"{head}{count:x}" for count in range(first, first + number)]
