"""The flow that returns production to the version before."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import flow

from app.clients.mlflow import MlflowClient
from app.registry.promotion import rollback as rollback_version
from flows.settings import FlowSettings


@flow(name="rollback")
def rollback(model: str, who: str = "prefect", why: str = "", cause: str = "") -> dict[str, Any]:
    """Roll back; the result is the decision, refused ones included."""
    with MlflowClient(retry_for=FlowSettings().retry_seconds) as registry:
        return asdict(rollback_version(registry, model, who=who, why=why, cause=cause))
