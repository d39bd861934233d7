"""A real API in a process of its own, over models of a real MLflow: flowers, a regression, mixed features, patients of
whom not everything is known, and members with dates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from app.clients.mlflow import PRODUCTION, MlflowClient
from app.clients.model_api import WITH_TOKENS
from app.runtime.processes import Server, free_port
from app.runtime.waiting import wait_until
from app.testing.api_server import api_server
from app.testing.model_api import (
    DATES,
    Example,
    bundle_of,
    cache_bundle,
    members,
    mixed_rows,
    patients,
    publish,
    with_imputer,
    with_imputers,
)

TREES = {"n_estimators": 20, "random_state": 0}


@dataclass
class Served:
    """The API's address, and by kind (iris, sugar, cars, patients, members) the name of the model and its example."""

    url: str
    names: dict[str, str]
    examples: dict[str, Example]

    def predict(self, kind: str, row: dict[str, Any]) -> dict[str, Any]:
        """The API's answer for one row of the model of this kind, with a feedback token."""
        url = f"{self.url}/models/{self.names[kind]}/predict"
        answer = httpx.post(url, json=row, headers=WITH_TOKENS, timeout=30)
        return answer.raise_for_status().json()


def _cars() -> tuple[pd.DataFrame, pd.Series]:
    """Text, whole numbers, floats, and true or false."""
    frame, _ = mixed_rows()
    frame["diesel"] = np.random.default_rng(1).random(len(frame)) < 0.3
    return frame, pd.Series(np.where(frame["doors"] > 3, "dear", "cheap"), name="price")


@pytest.fixture(scope="session")
def page_examples(tmp_path_factory: pytest.TempPathFactory, iris_rows: Any) -> dict[str, Example]:
    """A bundle of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    flowers = iris_rows[0]
    random = np.random.default_rng(0)
    age = pd.DataFrame({"age": random.integers(20, 80, 200), "weight": random.normal(70, 10, 200)})
    sugar = pd.Series(age["age"] * 2.5 + age["weight"], name="sugar")
    cars, price = _cars()
    encode = ColumnTransformer(
        [("colour", OneHotEncoder(handle_unknown="ignore"), ["colour"])], remainder="passthrough"
    )
    cars_model = Pipeline([("encode", encode), ("forest", RandomForestClassifier(**TREES))])
    return {
        "iris": bundle_of(
            folder / "iris",
            RandomForestClassifier(**TREES),
            flowers.drop(columns="species"),
            flowers["species"],
            "classification",
        ),
        "sugar": bundle_of(folder / "sugar", RandomForestRegressor(**TREES), age, sugar, "regression"),
        "cars": bundle_of(folder / "cars", cars_model, cars, price, "classification"),
        "patients": bundle_of(folder / "patients", with_imputers(), *patients(), "classification"),
        "members": bundle_of(folder / "members", with_imputer(), *members(), "classification", DATES),
    }


@pytest.fixture(scope="session")
def page_api(
    mlflow_server: Server, page_examples: dict[str, Example], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """An API in a process of its own that has one model of each kind in service."""
    folder = tmp_path_factory.mktemp("page-api")
    names = {kind: f"{kind}-{uuid4().hex[:6]}" for kind in page_examples}
    mlflow_server.start()
    with MlflowClient(mlflow_server.uri, timeout=30) as registry:
        for kind, example in page_examples.items():
            publish(registry, names[kind], example.bundle)
    server = api_server(mlflow_server.uri, folder)
    server.start()
    yield Served(server.uri, names, page_examples)
    server.stop(10)


@pytest.fixture
def served(registry: MlflowClient, page_api: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The API with its models in production; the environment names it."""
    for name in page_api.names.values():
        if registry.version_by_alias(name) is None:  # another test took it away
            registry.set_alias(name, PRODUCTION, "1")
    wait_until(lambda: set(page_api.names.values()) <= _in_service(page_api.url))
    monkeypatch.setenv("MLOPS_API_URL", page_api.url)
    monkeypatch.setenv("MLOPS_UI_TIMEOUT", "30")
    return page_api


def _in_service(url: str) -> set[str]:
    return {model["name"] for model in httpx.get(f"{url}/models", timeout=30).json()["models"]}


@pytest.fixture
def dead() -> str:
    """An address where nothing listens."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def lonely_api(page_examples: dict[str, Example], dead: str, tmp_path: Path) -> Iterator[str]:
    """An API that has `flowers` in its cache and an MLflow that is down."""
    yield from _with_flowers(page_examples, dead, tmp_path)


@pytest.fixture
def guarded_api(page_examples: dict[str, Example], dead: str, tmp_path: Path) -> Iterator[str]:
    """The same, which asks for keys; its folder of clients is `clients`."""
    env = {"MLOPS_API_KEYS_REQUIRED": "predict,feedback", "MLOPS_API_KEYS_DIR": str(tmp_path / "clients")}
    yield from _with_flowers(page_examples, dead, tmp_path, **env)


def _with_flowers(examples: dict[str, Example], mlflow: str, folder: Path, **env: str) -> Iterator[str]:
    cache_bundle(folder / "cache", "flowers", examples["iris"].bundle)
    server = api_server(mlflow, folder, health="/readyz", **env)
    server.start()
    yield server.uri
    server.stop(10)
