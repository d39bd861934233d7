"""What FastAPI's routes have in common."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from app.api.state import State
from app.contract.errors import InvalidRequest, Refused


def _state(request: Request) -> State:
    return request.app.state.shared


INVALID = {"model": InvalidRequest, "description": "What is wrong with the request, and where."}
NOT_SERVED: dict[int | str, dict[str, Any]] = {
    404: {"model": Refused, "description": "There is no such model or version; the detail names those served."},
    503: {"model": Refused, "description": "There is nothing to serve yet; the detail says why."},
}
Shared = Annotated[State, Depends(_state)]


async def _admit(request: Request, shared: Shared) -> None:
    shared.keys.admit(request.scope, "predict")


NEEDS_KEY = Depends(_admit)  # of routes that tell of models: the scope predict, where that is asked for
