"""Prediction ids: signed, and holding all that feedback needs, so that the API keeps no state between two requests."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import random
import time
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from app.vocabulary import Label, Task

SIGNATURE = 16  # bytes of HMAC-SHA256


class InvalidPredictionId(ValueError):
    """The id was not made with this key, or was altered."""


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """What an id holds. `time` is in seconds since the epoch."""

    model: str
    version: str
    task: Task
    time: float
    features: dict[str, Any]
    prediction: Any
    key: bytes  # short and unique, for telling duplicates


class Signer:
    """Makes and opens ids with one key: base64url of 16 bytes of HMAC-SHA256 and the payload in JSON."""

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key, digestmod=hashlib.sha256)
        seed = random.SystemRandom().getrandbits(64)
        self._nonce = random.Random(seed)  # noqa: S311  only tells equal rows of one millisecond apart

    def make(self, model: str, version: str, task: Task, features: dict[str, Any], prediction: Label) -> str:
        """The id of one prediction; two are never equal, not even for the same row."""
        now = int(time.time() * 1000)
        payload = to_json((model, version, task[0], now, self._nonce.getrandbits(48), features, prediction))
        mac = self._mac.copy()
        mac.update(payload)
        return base64.urlsafe_b64encode(mac.digest()[:SIGNATURE] + payload).rstrip(b"=").decode()

    def open(self, token: str) -> PredictionRecord:
        """What the id holds.

        Raises:
            InvalidPredictionId: this key did not sign it.
        """
        try:
            text = token.encode("ascii")
            raw = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
        except (ValueError, binascii.Error):
            raise InvalidPredictionId("this is not a prediction id") from None
        signature, payload = raw[:SIGNATURE], raw[SIGNATURE:]
        mac = self._mac.copy()
        mac.update(payload)
        # base64 ignores foreign characters and spare bits: only the spelling that was given out counts
        same = base64.urlsafe_b64encode(raw).rstrip(b"=") == text
        if not hmac.compare_digest(mac.digest()[:SIGNATURE], signature) or not same:
            raise InvalidPredictionId("this prediction id was not given out by this API, or it was altered")
        model, version, task, millis, _, features, prediction = json.loads(payload)
        name: Task = "classification" if task == "c" else "regression"
        return PredictionRecord(model, version, name, millis / 1000, features, prediction, signature)
