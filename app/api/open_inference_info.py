"""/v2: what the Open Inference Protocol tells of the server and of its models, over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import Response

from app.api.asgi import read_body
from app.api.dependencies import INVALID, NEEDS_KEY, NOT_SERVED, Shared
from app.api.errors import Refusal
from app.api.open_inference import SERVER, find_version, invalid_request
from app.api.open_inference_metadata import model_metadata
from app.clients.mlflow import PRODUCTION
from app.contract.errors import InferRefused
from app.contract.open_inference_metadata import (
    ModelMetadata,
    ModelReady,
    RepositoryEntry,
    RepositoryQuery,
    ServerLive,
    ServerMetadata,
    ServerReady,
)

router = APIRouter(prefix="/v2", tags=["v2"])
REFUSED: dict[int | str, dict[str, Any]] = {
    **{status: {**response, "model": InferRefused} for status, response in NOT_SERVED.items()},
    422: INVALID,
}
NEVER: dict[int | str, dict[str, Any]] = {
    400: {"model": InferRefused, "description": "It cannot be done here."},
    422: INVALID,
}


@router.get("", dependencies=[NEEDS_KEY])
async def server() -> ServerMetadata:
    """The server's metadata."""
    return ServerMetadata(name=SERVER, version="1", extensions=["binary_tensor_data", "model_repository"])


@router.get("/health/live")
async def live() -> ServerLive:
    """200 while the process turns."""
    return ServerLive(live=True)


@router.get("/health/ready", responses={503: {"model": ServerReady, "description": "Not ready."}})
async def ready(shared: Shared, response: Response) -> ServerReady:
    """200 when the default model (any, where there is no default) is loaded."""
    is_ready = shared.models.ready
    response.status_code = 200 if is_ready else 503
    return ServerReady(ready=is_ready)


@router.get("/models/{name}", responses=REFUSED, dependencies=[NEEDS_KEY])
async def metadata(shared: Shared, name: str) -> ModelMetadata:
    """Inputs and outputs of a model."""
    return model_metadata(find_version(shared.models, name))


@router.get("/models/{name}/versions/{version}", responses=REFUSED, dependencies=[NEEDS_KEY])
async def version_metadata(shared: Shared, name: str, version: str) -> ModelMetadata:
    """Inputs and outputs of a model, if this is the version in service."""
    return model_metadata(find_version(shared.models, name, version))


@router.get("/models/{name}/ready", responses=REFUSED)
async def model_ready(shared: Shared, name: str) -> ModelReady:
    """200 when the model is loaded."""
    return ModelReady(name=find_version(shared.models, name).name, ready=True)


@router.get("/models/{name}/versions/{version}/ready", responses=REFUSED)
async def version_ready(shared: Shared, name: str, version: str) -> ModelReady:
    """200 when this version of the model is in service."""
    return ModelReady(name=find_version(shared.models, name, version).name, ready=True)


@router.post(
    "/repository/index",
    responses={413: REFUSED[503] | {"description": "The body is too large."}, 422: INVALID},
    dependencies=[NEEDS_KEY],
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": RepositoryQuery.model_json_schema()}}}},
)
async def repository_index(request: Request, shared: Shared) -> list[RepositoryEntry]:
    """The versions in service, and those in production that could not be loaded, unless only ready ones are asked for.

    The body may be empty, which is how Triton's client asks.
    """
    query = _repository_query(await read_body(request.scope, request.receive))
    models = shared.models
    entries = [
        RepositoryEntry(name=name, version=version, state="READY", reason="")
        for name, served in sorted(models.current.items())
        for version in model_metadata(served).versions
    ]
    if not query.ready:
        entries += [
            RepositoryEntry(name=name, version=failure.version, state="UNAVAILABLE", reason=failure.reason)
            for name, failure in sorted(models.failures.items())
        ]
    return entries


def _repository_query(body: bytes) -> RepositoryQuery:
    """What a body asks for; Invalid as in `read_request`."""
    try:
        return RepositoryQuery.model_validate_json(body) if body else RepositoryQuery()
    except ValidationError as error:
        raise invalid_request(error) from None


@router.post("/repository/models/{name}/load", responses=NEVER, status_code=400, dependencies=[NEEDS_KEY])
@router.post("/repository/models/{name}/unload", responses=NEVER, status_code=400, dependencies=[NEEDS_KEY])
async def load_or_unload(name: str) -> InferRefused:
    """Always refused, as by a Triton that follows its repository by itself: this API follows MLflow."""
    why = f"models are loaded and unloaded as the alias {PRODUCTION} in MLflow says"
    raise Refusal(400, f"{why}: run `mlops promote {name[:100]}`")
