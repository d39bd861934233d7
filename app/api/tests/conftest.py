"""The API over bundles in its cache (no MLflow: most tests need none), and over a real MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.neighbors import RadiusNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from app.api.main import create_app
from app.clients.mlflow import PRODUCTION, MlflowClient
from app.runtime.processes import Server
from app.testing.api_server import api_server
from app.testing.model_api import (
    DATES,
    Example,
    absent_mlflow,
    bundle_of,
    cache_bundle,
    members,
    mixed_rows,
    patients,
    settings,
    with_imputer,
    with_imputers,
)


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory, iris_rows: Any) -> dict[str, Example]:
    """iris (ONNX, one tensor), diabetes (a regression), cars (ONNX, one tensor per feature), slow (skops), patients
    (values may be missing), members (two features are dates).
    """
    folder = tmp_path_factory.mktemp("bundles")
    train = iris_rows[0]
    features, species = train.drop(columns="species"), train["species"]
    sugar = load_diabetes(as_frame=True)
    cars, expensive = mixed_rows()
    encode = ColumnTransformer(
        [("colour", OneHotEncoder(handle_unknown="ignore"), ["colour"]), ("rest", "passthrough", ["doors", "weight"])]
    )
    trees = {"n_estimators": 20, "random_state": 0}
    return {
        "iris": bundle_of(folder / "iris", RandomForestClassifier(**trees), features, species, "classification"),
        "diabetes": bundle_of(
            folder / "diabetes", RandomForestRegressor(**trees), sugar.data, sugar.target, "regression"
        ),
        "cars": bundle_of(
            folder / "cars",
            Pipeline([("encode", encode), ("forest", RandomForestClassifier(**trees))]),
            cars,
            expensive,
            "classification",
        ),
        "slow": bundle_of(
            folder / "slow", RadiusNeighborsClassifier(outlier_label="setosa"), features, species,
            "classification",
        ),
        "patients": bundle_of(folder / "patients", with_imputers(), *patients(), "classification"),
        "members": bundle_of(folder / "members", with_imputer(), *members(), "classification", DATES),
    }  # fmt: skip


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory, iris_rows: Any) -> Example:
    """Iris by the length of the petals alone: a model of a single feature."""
    train = iris_rows[0]
    forest = RandomForestClassifier(n_estimators=20, random_state=0)
    folder = tmp_path_factory.mktemp("narrow") / "bundle"
    return bundle_of(folder, forest, train[["petal_length"]], train["species"], "classification")


@pytest.fixture(scope="session")
def permuted(tmp_path_factory: pytest.TempPathFactory, examples: dict[str, Example], iris_rows: Any) -> Example:
    """Iris, but setosa is called virginica and so on: its answers cannot be mistaken for the other's."""
    names = {"setosa": "virginica", "virginica": "versicolor", "versicolor": "setosa"}
    species = iris_rows[0]["species"].map(names)
    forest = RandomForestClassifier(n_estimators=20, random_state=0)
    folder = tmp_path_factory.mktemp("permuted") / "bundle"
    return bundle_of(folder, forest, examples["iris"].frame, species, "classification")


@pytest.fixture(scope="session")
def full_cache(examples: dict[str, Example], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with all models."""
    cache = tmp_path_factory.mktemp("cache")
    for name, example in examples.items():
        cache_bundle(cache, name, example.bundle)
    return cache


@pytest.fixture(scope="session")
def client(full_cache: Path) -> Iterator[TestClient]:
    """All models, iris by default, MLflow away."""
    with TestClient(create_app(settings(full_cache, default_model="iris"), absent_mlflow())) as client:
        yield client


@pytest.fixture
def empty_client(tmp_path: Path) -> Iterator[TestClient]:
    """No model at all, MLflow away."""
    with TestClient(create_app(settings(tmp_path), absent_mlflow())) as client:
        yield client


@pytest.fixture
def mlflow(registry: MlflowClient) -> MlflowClient:
    """The session's MLflow with nothing in production."""
    for model in registry.models():
        if PRODUCTION in model.aliases:
            registry.delete_alias(model.name, PRODUCTION)
    return registry


@pytest.fixture
def model_name() -> str:
    """A model name no other test uses."""
    return f"m{uuid4().hex[:8]}"


@pytest.fixture
def follow(mlflow: MlflowClient, tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """Starts an API in this process that follows the session's MLflow, with a quick poll."""
    clients: list[TestClient] = []

    def start(**values: Any) -> TestClient:
        cache, timeout = values.pop("cache", tmp_path / "cache"), values.pop("timeout", 30)
        app = create_app(settings(cache, poll_seconds=0.1, **values), MlflowClient(mlflow.uri, timeout=timeout))
        client = TestClient(app)
        client.__enter__()
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def process(mlflow_server: Server, mlflow: MlflowClient, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts the API as users do, as a process of its own."""
    servers: list[Server] = []

    def start(**env: str) -> Server:
        server = api_server(mlflow_server.uri, tmp_path, **env)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop(10)
