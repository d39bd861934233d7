"""/model, /models and /models/{name}: what is in service, and all that a form or a dashboard needs of it."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, HTTPException

from app.api.errors import Refusal
from app.api.served_models import ServedModels
from app.api.state import NOT_THERE, Shared
from app.contract import FeatureInfo, LoadFailure, MlflowStatus, ModelInfo, ModelList, ModelSummary

router = APIRouter(tags=["models"])


def describe(models: ServedModels, name: str | None) -> ModelInfo:
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
        features=[FeatureInfo(name=f.name, **asdict(bundle.reference.features[f.name])) for f in bundle.features],
        prediction_reference=asdict(bundle.reference.prediction),
        example=bundle.example,
        gate=bundle.gate,
        loaded_at=served.loaded_at,
        last_failure=LoadFailure(version=failure.version, reason=failure.reason, at=failure.at) if failure else None,
        registry=MlflowStatus(**asdict(models.registry_state)),
    )


@router.get("/model", responses=NOT_THERE, response_model_exclude_none=False)
async def default_model(shared: Shared) -> ModelInfo:
    """The model that /predict answers with."""
    return describe(shared.models, None)


@router.get("/models")
async def all_models(shared: Shared) -> ModelList:
    """Every model in service."""
    models, default = shared.models, shared.models.default
    lines = [
        ModelSummary(name=s.name, version=s.version, run_id=s.run_id, task=s.bundle.task)
        for _, s in sorted(models.current.items())
    ]
    registry = MlflowStatus(**asdict(models.registry_state))
    return ModelList(default=default.name if default else None, models=lines, registry=registry)


@router.get("/models/{name}", responses=NOT_THERE)
async def one_model(name: str, shared: Shared) -> ModelInfo:
    """A model in service."""
    return describe(shared.models, name)
