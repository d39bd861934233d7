"""Whence a prediction came: from its id to the version, its training, data and code, and who put it into service."""

from __future__ import annotations

from dataclasses import dataclass

from app.clients.mlflow import MlflowClient, ModelVersion, NotFound
from app.registry.ledger import Decision
from app.registry.prediction_id import PREDICTION_ID, model_digest
from app.registry.promotion import history

TAGS = ("flow_run_id", "dataset_sha256", "git_sha", "image", "models_repository", "models_commit", "cause", "serving")


@dataclass(frozen=True)
class Whence:
    """Where a prediction came from.

    replica: what the name of the API's pod, or host, ends with.
    time: of the prediction, in seconds since the epoch.
    run_id, flow_run_id: of the training, in MLflow and Prefect; registered: when, in seconds since the epoch.
    dataset_sha256: digest of the rows; git_sha: commit of the platform's code; image: of the training.
    models_repository, models_commit: of the model file, where it is in a repository.
    cause: what the training was for, such as an alert.
    promotion: the decision that had put the version into service by then, or None.
    """

    model: str
    version: str
    replica: str
    time: float
    run_id: str
    registered: float
    flow_run_id: str
    dataset_sha256: str
    git_sha: str
    image: str
    models_repository: str
    models_commit: str
    cause: str
    serving: str
    promotion: Decision | None


def whence(registry: MlflowClient, prediction_id: str) -> Whence:
    """Where a prediction came from, by its id.

    Raises:
        ValueError: it is no prediction id.
        NotFound: no version fits it: it was deleted, or is in another MLflow.
        MlflowError: MLflow does not answer.
    """
    parts = PREDICTION_ID.fullmatch(prediction_id.strip())
    if parts is None:
        raise ValueError(f"{prediction_id!r} is no prediction id; one looks like 47612.1.cf7nx.1a21fbe8d03.bc69f6f")
    digest, number, replica, millis = parts.groups()
    at = int(millis, 16) / 1000
    fitting = [
        version
        for model in registry.models()
        if model_digest(model.name) == digest
        for version in registry.versions(model.name)
        if version.version == number and version.created <= at
    ]
    if not fitting:
        raise NotFound(
            f"no version {number} of a model whose ids begin with {digest} was registered when {prediction_id} was "
            "made: it was deleted, or the prediction is of another platform"
        )
    version = fitting[0]  # of two models with one digest, which one in a million has, the first
    tags = version.tags
    return Whence(
        model=version.name,
        version=number,
        replica=replica,
        time=at,
        run_id=version.run_id,
        registered=version.created,
        promotion=_promotion(registry, version, at),
        **{key: tags.get(key, "") for key in TAGS},
    )


def _promotion(registry: MlflowClient, version: ModelVersion, at: float) -> Decision | None:
    """The last decision before the time that put the version into service; decisions are noted once they were made."""
    for decision in history(registry, version.name):
        is_in_service = decision.outcome == "promoted" or (decision.action, decision.outcome) == ("canary", "started")
        if decision.version == version.version and is_in_service and decision.time <= at:
            return decision
    return None
