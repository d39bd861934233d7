"""/livez and /readyz, for Kubernetes' probes; /ping, /health and /version, which MLflow's scoring server has."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from app.api.errors import RETRY_AFTER, Refusal
from app.api.state import NOT_SERVED, Shared
from app.contract import Alive, Ready

# Of the MLflow whose scoring protocol /invocations speaks. MLflow's own server answers the MLflow that it is; there is
# none here, and what its clients ask for is which requests it takes.
SCORING_VERSION = "3.17.2"

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> Alive:
    """200 while the process turns; it asks nobody else."""
    return Alive(status="alive")


@router.get("/ping", tags=["mlflow"], responses={503: NOT_SERVED[503]})
@router.get("/health", tags=["mlflow"], responses={503: NOT_SERVED[503]})
@router.get("/readyz", responses={503: NOT_SERVED[503]})
async def readyz(shared: Shared) -> Ready:
    """200 when the default model (any, where there is no default) is loaded."""
    models = shared.models
    if not models.ready:
        raise Refusal(503, models.why_unavailable(models.default_model), RETRY_AFTER)
    return Ready(status="ready", models={name: served.version for name, served in sorted(models.current.items())})


@router.get("/version", tags=["mlflow"], response_class=PlainTextResponse)
async def version() -> str:
    """The version of MLflow whose scoring protocol is spoken here."""
    return SCORING_VERSION
