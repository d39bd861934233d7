"""What prediction ids are made of: a module of its own, as the API reads it and nothing else of `whence`."""

from __future__ import annotations

import hashlib
import re

PREDICTION_ID = re.compile(
    r"(?P<model>[0-9a-f]{5})\.(?P<version>[1-9][0-9]*)\.(?P<replica>[a-z0-9]+)\.(?P<millis>[0-9a-f]+)\.[0-9a-f]+"
)


def model_digest(model: str) -> str:
    """What ids have of a model's name, which may be of any length: the first 5 hex digits of its SHA-256."""
    return hashlib.sha256(model.encode()).hexdigest()[:5]
