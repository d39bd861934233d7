"""The models that are measured, in an MLflow server of the bench's own and as files for servers without one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import mlflow
import numpy as np
import pandas as pd
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

from app.clients.mlflow import PRODUCTION, MlflowClient, ModelVersion
from app.registry.promotion import promote
from app.runtime.processes import ChildProcess, free_port, mlflow_server, wait_for_url
from bench.machine import CLIENT_CORE
from flows import dataset
from flows.bundle_writer import FittedModel
from flows.catalog import load_model
from flows.model import Gate, Model
from flows.register import register

TREES = 100
ROWS = 600  # of synthetic data


@dataclass(frozen=True)
class Iris:
    """The flowers' model: a forest of 100 trees.

    columns, rows: its features' names, and every flower's, shape (150, 4), in centimetres.
    onnx, joblib: files; the pickle is of the same forest fitted without column names, as servers pass arrays.
    onnx_uri, sklearn_uri: MLflow's, of the registered version and of the plain scikit-learn estimator.
    """

    columns: list[str]
    rows: list[list[float]]
    onnx: Path
    joblib: Path
    onnx_uri: str
    sklearn_uri: str


@contextmanager
def mlflow_in(folder: Path) -> Iterator[str]:
    """The address of an MLflow server on the client's core, which is MLFLOW_TRACKING_URI meanwhile.

    Raises:
        SystemExit: it did not start; with the end of its log.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command, env = mlflow_server(port, folder)
    pin = ["taskset", "-c", str(CLIENT_CORE)]
    service = ChildProcess("mlflow", [*pin, sys.executable, "-m", *command], env, folder)
    try:
        if not wait_for_url(f"{address}/health", 120, lambda: service.ended):
            raise SystemExit(f"MLflow did not start:\n{service.tail(30)}")
        os.environ["MLFLOW_TRACKING_URI"] = address
        mlflow.set_tracking_uri(address)
        yield address
    finally:
        service.stop()


def put_into_production(model: Model, name: str) -> ModelVersion:
    """Fit a model, and bring it into production under this name.

    Raises:
        SystemExit: the gate refused it, or ONNX cannot express it.
    """
    rows = dataset.validate(model, model.load())
    train, held_out = dataset.split(model, rows)
    estimator = model.estimator(42).fit(train.drop(columns=model.target), train[model.target])
    with MlflowClient() as registry:
        run = registry.create_run(registry.ensure_experiment("bench"), name, {})
        version = register(registry, name, run, FittedModel.of(model, estimator, train), held_out, {})
        decision = promote(registry, name, definition=model.definition, who="bench")
    if decision.outcome != "promoted":
        raise SystemExit(f"{name} was not promoted: {decision.check}: {decision.reason}")
    if version.tags["serving"] != "onnx":
        raise SystemExit(f"{name} would be served by scikit-learn: {version.tags['serving_reason']}")
    return version


def take_out_of_production(name: str) -> None:
    """Have an API that starts from now on not serve the model."""
    with MlflowClient() as registry:
        registry.delete_alias(name, PRODUCTION)


def iris(folder: Path) -> Iris:
    """Put iris into production, and write its files into the folder."""
    model = load_model("iris")
    version = put_into_production(model, "iris")
    train, _ = dataset.split(model, dataset.validate(model, model.load()))
    features, labels = train.drop(columns=model.target), train[model.target]
    estimator = model.estimator(42).fit(features, labels)
    trees = len(estimator[-1].estimators_)
    if trees != TREES:
        raise SystemExit(f"flows/models/iris.py has {trees} trees, the bench is about {TREES}")
    joblib.dump(model.estimator(42).fit(features.to_numpy(), labels.to_numpy()), folder / "model.joblib")
    with mlflow.start_run():
        plain = mlflow.sklearn.log_model(
            estimator, name="plain", skops_trusted_types=["sklearn.tree._tree.Tree"], input_example=features.head(1)
        )
    with MlflowClient() as registry:
        (folder / "model.onnx").write_bytes(registry.read_artifact(f"{registry.bundle_path(version)}/model.onnx"))
    return Iris(
        columns=list(features.columns),
        rows=model.load()[features.columns].to_numpy().tolist(),
        onnx=folder / "model.onnx",
        joblib=folder / "model.joblib",
        onnx_uri=f"models:/iris/{version.version}",
        sklearn_uri=plain.model_uri,
    )


def synthetic(features: int, trees: int) -> Model:
    """A classification of so many features by so many trees; the data is scikit-learn's make_classification."""

    def load() -> pd.DataFrame:
        values, classes = make_classification(
            ROWS, features, n_informative=min(features, 8), n_redundant=0, n_repeated=0, random_state=0
        )
        values = np.round(values * 64) / 64  # exact as float32, too, or ONNX would decide some rows otherwise
        frame = pd.DataFrame(values, columns=[f"feature_{i}" for i in range(features)])
        return frame.assign(target=np.where(classes, "yes", "no"))

    def estimator(seed: int) -> Any:
        return RandomForestClassifier(n_estimators=trees, random_state=seed)

    return Model("classification", "target", load, estimator, Gate(metric="accuracy", threshold=0.0))
