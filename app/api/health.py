"""/livez and /readyz."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException

from app.api.state import NOT_THERE, Shared

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """200 while the process turns; it asks nobody else."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: NOT_THERE[503]})
async def readyz(shared: Shared) -> dict[str, Any]:
    """200 when the default model (any, where there is no default) is loaded."""
    models = shared.models
    if not models.ready:
        raise HTTPException(503, models.reason_for_nothing(models.default_model), {"Retry-After": "5"})
    return {"status": "ready", "models": {name: served.version for name, served in sorted(models.current.items())}}
