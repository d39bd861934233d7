"""The flow that puts a model version into production if it passes the gate."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from app.clients.mlflow import MlflowClient
from app.registry.canary import end as end_canary
from app.registry.ledger import Decision
from app.registry.promotion import promote as promote_version
from flows.catalog import load_model
from flows.settings import FlowSettings


@task(name="promote", cache_policy=NO_CACHE)
def decide(
    model: str,
    version: str | None,
    who: str,
    why: str,
    cause: str,
    allow_signature_change: bool = False,
    only_if_better: bool = False,
    canary: float | None = None,
) -> Decision:
    """Try the gate of the model file, or end the canary where its share is 0, and log what was decided.

    Arguments and errors are those of `app.registry.promotion.promote`; ModelFileError where there is no such file,
    ValueError where a canary is to end and a version is named.
    """
    with MlflowClient(retry_for=FlowSettings().retry_seconds) as registry:
        if canary == 0:
            if version:
                raise ValueError("a canary of 0 ends the one that there is: leave the version out")
            decision = end_canary(registry, model, who=who, why=why, cause=cause)
        else:
            decision = promote_version(
                registry,
                model,
                version,
                definition=load_model(model).definition,
                who=who,
                why=why,
                cause=cause,
                allow_signature_change=allow_signature_change,
                only_if_better=only_if_better,
                canary=canary,
            )
    get_run_logger().info("version %s of %s: %s: %s", decision.version, model, decision.outcome, decision.reason)
    return decision


@flow(name="promote", log_prints=False)
def promote(
    model: str,
    version: str | None = None,
    who: str = "prefect",
    why: str = "",
    cause: str = "",
    allow_signature_change: bool = False,
    only_if_better: bool = False,
    canary: float | None = None,
) -> dict[str, Any]:
    """Promote a version, by default the newest; the result is the decision, refused ones included.

    canary: the share of the requests that it is to answer beside production; 0 ends the canary that there is.
    """
    return asdict(decide(model, version, who, why, cause, allow_signature_change, only_if_better, canary))
