"""Prediction ids: short names of answers, which tell where an answer came from and nothing of what it was about."""

from __future__ import annotations

import random
import re
import socket
import threading
import time

MASK = 0x7FFFFFFF  # the count begins anew then, a while after the same millisecond
LAST_DIGITS = tuple(f"{i:02x}" for i in range(256))  # of a count; to join texts is faster than to write numbers
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
        if number == 1:
            return [f"{head}{first:x}"]
        ids: list[str] = []
        for block in range(first >> 8, (first + number - 1 >> 8) + 1):  # of counts that differ in the last two digits
            begin, end = max(first - (block << 8), 0), min(first + number - (block << 8), 256)
            prefix = f"{head}{block:x}"
            ids += [prefix + digits for digits in LAST_DIGITS[begin:end]]
        return ids
