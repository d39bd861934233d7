"""What the endpoints share, made once per app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.api.metrics import Metrics
from app.api.models import Models


@dataclass(frozen=True)
class State:
    models: Models
    metrics: Metrics


def _state(request: Request) -> State:
    return request.app.state.shared


Shared = Annotated[State, Depends(_state)]
