"""What the endpoints share, made once per app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from app.api.metrics import Metrics
from app.api.served_models import ServedModels


@dataclass(frozen=True)
class State:
    models: ServedModels
    metrics: Metrics


def _state(request: Request) -> State:
    return request.app.state.shared


NOT_THERE: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such model or version; the detail names those served."},
    503: {"description": "Nothing to serve yet; the detail says why."},
}
Shared = Annotated[State, Depends(_state)]
