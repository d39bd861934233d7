"""What the endpoints share, made once per app."""

from __future__ import annotations

from dataclasses import dataclass

from app.api.following import Follower
from app.api.keys import Keys
from app.api.metrics import Metrics
from app.api.served_models import ServedModels


@dataclass(frozen=True)
class State:
    """Everything that lives as long as the app."""

    models: ServedModels
    follower: Follower
    metrics: Metrics
    keys: Keys
