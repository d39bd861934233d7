"""Registers a fitted estimator as a model version in MLflow."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from app.clients.mlflow import MlflowClient, ModelVersion
from app.registry.bundle import BUNDLE_TAG, read_bundle
from app.registry.ledger import ensure_model
from flows.bundle_writer import FittedModel, build_bundle


def register(
    registry: MlflowClient,
    name: str,
    run_id: str,
    fitted: FittedModel,
    held_out: pd.DataFrame,
    tags: dict[str, str],
    feedback: pd.DataFrame | None = None,
) -> ModelVersion:
    """Upload the bundle, held-out rows included, to the MLflow run, then register the version.

    The version is created last: it never exists without its files, and once it is returned it is in MLflow's database.

    Args:
        name: of the registered model, created where it is missing.
        held_out: the rows to measure the version on, features and target.
        tags: of the version; those that its bundle gives are added.
        feedback: rows of feedback that it was not trained on, features and target; None for none.

    Raises:
        RegistrationError: the estimator cannot be served.
        MlflowError: MLflow does not answer.
    """
    run = registry.run(run_id)
    root = registry.artifact_path(run.artifact_uri)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        digest = build_bundle(folder, fitted, held_out, feedback)
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            registry.write_artifact(f"{root}/model/{path.relative_to(folder).as_posix()}", path.read_bytes())
        bundle = read_bundle(folder, digest)
    ensure_model(registry, name)
    return registry.create_version(
        name,
        run_id,
        f"{run.artifact_uri}/model",
        {**tags, BUNDLE_TAG: digest, "serving": bundle.serving, "serving_reason": bundle.serving_reason},
    )
