"""/model, /models and /models/{name}: what is in service, and all that a form or a dashboard needs of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel

from app.api.errors import Refusal
from app.api.models import Models
from app.api.state import NOT_THERE, Shared

router = APIRouter(tags=["models"])


class RegistryInfo(BaseModel):
    """MLflow, at the last look."""

    ok: bool
    error: str
    checked_at: str


class FailureInfo(BaseModel):
    """The version in production that could not be loaded."""

    version: str
    reason: str
    at: str


class ModelInfo(BaseModel):
    """A version in service."""

    name: str
    version: str
    run_id: str
    task: str
    target: str
    classes: list[Any]
    serving: str
    serving_reason: str
    bundle_sha256: str
    features: list[dict[str, Any]]
    prediction_reference: dict[str, Any]
    example: dict[str, Any]
    gate: dict[str, Any]
    loaded_at: str
    last_failure: FailureInfo | None
    registry: RegistryInfo


class ModelLine(BaseModel):
    name: str
    version: str
    run_id: str
    task: str


class ModelList(BaseModel):
    default: str | None
    models: list[ModelLine]
    registry: RegistryInfo


def describe(models: Models, name: str | None) -> ModelInfo:
    try:
        served = models.get(name)
    except Refusal as refusal:
        raise HTTPException(refusal.status, refusal.detail, refusal.headers) from refusal
    bundle = served.bundle
    failure = models.failures.get(served.name)
    return ModelInfo(
        name=served.name,
        version=served.version,
        run_id=served.run_id,
        task=bundle.task,
        target=bundle.target,
        classes=list(bundle.classes),
        serving=bundle.serving,
        serving_reason=bundle.serving_reason,
        bundle_sha256=bundle.sha256,
        features=[{"name": f.name, **bundle.reference["features"][f.name], "dtype": f.dtype} for f in bundle.features],
        prediction_reference=bundle.reference["prediction"],
        example=bundle.example,
        gate=bundle.gate,
        loaded_at=served.loaded_at,
        last_failure=FailureInfo(**asdict(failure)) if failure else None,
        registry=RegistryInfo(**asdict(models.registry_state)),
    )


@router.get("/model", responses=NOT_THERE)
async def default_model(shared: Shared) -> ModelInfo:
    """The model that /predict answers with."""
    return describe(shared.models, None)


@router.get("/models")
async def all_models(shared: Shared) -> ModelList:
    """Every model in service."""
    models, default = shared.models, shared.models.default
    lines = [
        ModelLine(name=s.name, version=s.version, run_id=s.run_id, task=s.bundle.task)
        for _, s in sorted(models.current.items())
    ]
    registry = RegistryInfo(**asdict(models.registry_state))
    return ModelList(default=default.name if default else None, models=lines, registry=registry)


@router.get("/models/{name}", responses=NOT_THERE)
async def one_model(name: str, shared: Shared) -> ModelInfo:
    """A model in service."""
    return describe(shared.models, name)
