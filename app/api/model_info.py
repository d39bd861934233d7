"""/model, /models and /models/{name}: what is in service, and all that a form or a dashboard needs of it."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from app.api.dependencies import INVALID, NEEDS_KEY, NOT_SERVED, Shared
from app.api.served_models import ServedModels
from app.api.shadow import Shadow
from app.contract.models import (
    CanaryInfo,
    ChallengerInfo,
    ErrorOnFeedback,
    FeatureInfo,
    ModelInfo,
    ModelList,
    ModelSummary,
    RightOnFeedback,
)

router = APIRouter(tags=["models"], dependencies=[NEEDS_KEY])


def model_info(models: ServedModels, name: str | None) -> ModelInfo:
    """All about one model, the default one for None.

    Raises:
        Refusal: it is not served.
    """
    served = models.get(name)
    bundle, shadow = served.bundle, served.shadow
    canary = models.metrics.canaries.get(served.name)
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
        features=[
            FeatureInfo(name=f.name, only=list(f.categories) or None, **asdict(bundle.reference.features[f.name]))
            for f in bundle.features
        ],
        prediction_reference=bundle.reference.prediction,
        example=bundle.example,
        gate=bundle.gate,
        loaded_at=served.loaded_at,
        last_failure=models.failures.get(served.name),
        challenger=_challenger_info(shadow) if shadow else None,
        challenger_failure=models.challenger_failures.get(served.name),
        canary=CanaryInfo(
            version=canary.version,
            share=canary.share,
            requests=canary.requests,
            failures=canary.failures,
            returned=canary.returned or None,
        )
        if canary
        else None,
        registry=models.mlflow,
    )


def _challenger_info(shadow: Shadow) -> ChallengerInfo:
    counts = shadow.counts
    right = errors = None
    if shadow.is_classifier:
        right = RightOnFeedback(
            both=counts.both_right,
            challenger=counts.challenger_right,
            production=counts.production_right,
            neither=counts.neither_right,
        )
    elif counts.labels:
        errors = ErrorOnFeedback(
            labels=counts.labels,
            challenger=counts.challenger_error / counts.labels,
            production=counts.production_error / counts.labels,
        )
    return ChallengerInfo(
        version=shadow.version,
        share=shadow.share,
        agree=counts.agree,
        disagree=counts.disagree,
        failed=counts.failed,
        dropped=counts.dropped,
        right_on_feedback=right,
        error_on_feedback=errors,
    )


@router.get("/model", responses={**NOT_SERVED, 422: INVALID})
async def default_model(shared: Shared) -> ModelInfo:
    """The model that /predict answers with."""
    return model_info(shared.models, None)


@router.get("/models")
async def all_models(shared: Shared) -> ModelList:
    """Every model in service."""
    models, default = shared.models, shared.models.default
    summaries = [
        ModelSummary(name=served.name, version=served.version, run_id=served.run_id, task=served.bundle.task)
        for _, served in sorted(models.current.items())
    ]
    return ModelList(default=default.name if default else None, models=summaries, registry=models.mlflow)


@router.get("/models/{name}", responses={**NOT_SERVED, 422: INVALID})
async def one_model(name: str, shared: Shared) -> ModelInfo:
    """A model in service."""
    return model_info(shared.models, name)
