"""Fixtures for every test: real MLflow and Prefect servers, started once a session on free ports."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pytest

from app.clients.mlflow import MlflowClient, ModelVersion
from app.runtime import processes
from app.runtime.processes import Server, free_port
from app.testing.mlflow_accounts import server_with_accounts
from app.vocabulary import Gate
from flows import dataset
from flows.bundle_writer import FittedModel, build_bundle
from flows.catalog import load_model
from flows.model import Model
from flows.register import register

Register = Callable[..., ModelVersion]

# A minute or more each; a worker that began one of them last would have the other wait for it.
LONG = ["test_closed_loop.py", "test_demo.py", "test_train.py", "test_training_decision.py", "test_main.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


class EndsWithBrokenFiles:
    """Ends a run on several processes when a test file cannot be imported: xdist runs all others first."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Called with what became of each file; in the process that hands out the tests, of those that failed only."""
        scheduler = self.config.pluginmanager.get_plugin("dsession")
        if report.failed and scheduler:
            scheduler.shouldstop = f"{report.nodeid} cannot be imported"


def pytest_configure(config: pytest.Config) -> None:
    """See `EndsWithBrokenFiles`."""
    config.pluginmanager.register(EndsWithBrokenFiles(config))


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow server, one for all tests of this process."""
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command, env = processes.mlflow_server(port, folder)
    server = Server("mlflow", command, f"http://127.0.0.1:{port}", "/health", env, folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mlflow_with_accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow server with the platform's accounts, one for all tests of this process."""
    server = server_with_accounts(tmp_path_factory.mktemp("mlflow-with-accounts"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server, one for all tests of this process."""
    folder = tmp_path_factory.mktemp("prefect")
    port = free_port()
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    env = {"PREFECT_HOME": str(folder / "home"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    server = Server("prefect", command, f"http://127.0.0.1:{port}/api", "/health", env, folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def registry(mlflow_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """A client of the session's MLflow, which is up; the environment names it too."""
    mlflow_server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    with MlflowClient(mlflow_server.uri, timeout=30) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def quiet_environment() -> None:
    """Nothing of the caller's own platform leaks into the tests."""
    for name in [key for key in os.environ if key.startswith(("MLOPS_", "MLFLOW_TRACKING", "PREFECT_"))]:
        del os.environ[name]
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


@pytest.fixture(scope="session")
def iris() -> Model:
    """The definition of flows/models/iris.py."""
    return load_model("iris")


@pytest.fixture(scope="session")
def iris_rows(iris: Model) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows and held-out rows."""
    return dataset.split(iris, dataset.validate(iris, iris.load()))


@pytest.fixture(scope="session")
def iris_fitted(iris: Model, iris_rows: tuple[pd.DataFrame, pd.DataFrame]) -> Any:
    """Iris' estimator, fitted on the training rows."""
    rows = iris_rows[0]
    return iris.estimator(42).fit(rows.drop(columns="species"), rows["species"])


@pytest.fixture(scope="session")
def iris_bundle(tmp_path_factory: pytest.TempPathFactory, iris: Model, iris_rows: Any, iris_fitted: Any) -> Path:
    """The folder of a bundle of Iris. Tests do not change it: `bundle_copy` is for that."""
    folder = tmp_path_factory.mktemp("bundle") / "model"
    build_bundle(folder, FittedModel.of(iris, iris_fitted, iris_rows[0]), iris_rows[1])
    return folder


@pytest.fixture
def bundle_copy(iris_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of Iris that a test may change."""
    return shutil.copytree(iris_bundle, tmp_path / "bundle")


@pytest.fixture
def name() -> str:
    """A model name no other test uses."""
    return f"iris-{uuid4().hex[:8]}"


@pytest.fixture
def new_version(
    registry: MlflowClient, name: str, iris: Model, iris_rows: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Register:
    """Fits an estimator on Iris, and on `more` rows, and registers it as the next version of `name`."""
    monkeypatch.setenv("MLOPS_CACHE_DIR", str(tmp_path / "cache"))
    train, held_out = iris_rows

    def make(
        estimator: Any = None,
        *,
        features: list[str] | None = None,
        feedback: pd.DataFrame | None = None,
        more: pd.DataFrame | None = None,
        **gate: Any,
    ) -> ModelVersion:
        columns = features or [c for c in train.columns if c != "species"]
        estimator = iris.estimator(42) if estimator is None else estimator
        known = pd.concat([train, more], ignore_index=True)
        estimator.fit(known[columns], known["species"])
        model = replace(iris, gate=Gate(**{"metric": "accuracy", "threshold": 0.85, "max_regression": 0.02, **gate}))
        rows = [*columns, "species"]
        run = registry.create_run(registry.ensure_experiment(name), "test", {})
        return register(
            registry, name, run, FittedModel.of(model, estimator, known[rows]), held_out[rows], {}, feedback
        )

    return make
