"""/livez and /readyz, for Kubernetes' probes."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.errors import RETRY_AFTER, Refusal
from app.api.state import NOT_SERVED, Shared
from app.contract import Alive, Ready

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> Alive:
    """200 while the process turns; it asks nobody else."""
    return Alive(status="alive")


@router.get("/readyz", responses={503: NOT_SERVED[503]})
async def readyz(shared: Shared) -> Ready:
    """200 when the default model (any, where there is no default) is loaded."""
    models = shared.models
    if not models.ready:
        raise Refusal(503, models.why_unavailable(models.default_model), RETRY_AFTER)
    return Ready(status="ready", models={name: served.version for name, served in sorted(models.current.items())})
