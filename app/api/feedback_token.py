"""Feedback tokens: encrypted, and holding all that feedback needs, so that the API keeps no state between two requests.

They are Fernet tokens (AES-128-CBC and HMAC-SHA256) of a key that all replicas share.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from app.vocabulary import Label, Task

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


class InvalidFeedbackToken(ValueError):
    """The token was not made with this key, or was altered."""


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """What a token holds. `time` is in seconds since the epoch."""

    prediction_id: str
    model: str
    version: str
    task: Task
    time: float
    features: dict[str, Any]
    prediction: Any


class FeedbackTokens:
    """Makes and opens tokens with one key.

    Args:
        key: of any length; the tokens' own is derived from it.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @cached_property
    def _fernet(self) -> Fernet:
        # imported with the first token: it takes 5 MB, and most who ask for predictions never ask for one
        from cryptography.fernet import Fernet
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        derived = HKDF(SHA256(), 32, salt=None, info=b"mlops feedback token").derive(self._key)
        return Fernet(base64.urlsafe_b64encode(derived))

    def make(
        self, prediction_id: str, model: str, version: str, task: Task, features: dict[str, Any], prediction: Label
    ) -> str:
        """The token of one prediction."""
        payload = to_json((prediction_id, model, version, task[0], time.time(), features, prediction))
        return self._fernet.encrypt(payload).decode()

    def open(self, token: str) -> PredictionRecord:
        """What the token holds.

        Raises:
            InvalidFeedbackToken: this key did not make it.
        """
        try:
            raw = token.encode()
            # base64 ignores foreign characters and spare bits: only the spelling that was given out counts
            if base64.urlsafe_b64encode(base64.urlsafe_b64decode(raw)) != raw:
                raise ValueError(token)
            payload = self._fernet.decrypt(raw)
        except Exception as error:  # InvalidToken, or what base64 says of nonsense
            raise InvalidFeedbackToken(
                "this feedback token was not given out by this API, or it was altered"
            ) from error
        prediction_id, model, version, task, at, features, prediction = json.loads(payload)
        name: Task = "classification" if task == "c" else "regression"
        return PredictionRecord(prediction_id, model, version, name, at, features, prediction)
