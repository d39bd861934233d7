"""What the API's tests share: models of every kind, caches that hold them, and MLflow entries for them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from app.api.router import Router
from app.api.settings import ApiSettings
from app.api.state import State
from app.clients.mlflow import PRODUCTION, MlflowClient
from app.dates import days_of, text_of
from app.registry.bundle import SUMS, file_sha256, read_bundle
from app.registry.ledger import ensure_model
from app.runtime.processes import free_port
from app.vocabulary import Gate, Task
from flows.bundle_writer import FittedModel, build_bundle

GATE = Gate("accuracy", threshold=0.5, max_regression=0.1)
SETOSA = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
VIRGINICA = {"sepal_length": 6.7, "sepal_width": 3.0, "petal_length": 5.2, "petal_width": 2.3}
KEY = "a key for tests, as long as one must be"


@dataclass
class Example:
    """A fitted estimator, the features it was fitted on (of which some are dates, in days) and its bundle."""

    estimator: Any
    frame: pd.DataFrame
    bundle: Path
    dates: tuple[str, ...] = ()

    def rows(self, n: int) -> list[dict[str, Any]]:
        """The first n rows, as a client sends them."""
        frame = self.frame.head(n)
        texts = {name: frame[name].map(text_of, na_action="ignore") for name in self.dates}
        return json.loads(frame.assign(**texts).to_json(orient="records", double_precision=15))

    def expected(self, rows: list[dict[str, Any]]) -> list[Any]:
        """What the estimator itself predicts for rows."""
        frame = pd.DataFrame(rows)[list(self.frame.columns)]
        days = {name: frame[name].map(days_of, na_action="ignore") for name in self.dates}
        frame = frame.assign(**days).astype(self.frame.dtypes.to_dict())
        return self.estimator.predict(frame).tolist()


def bundle_of(
    folder: Path, estimator: Any, frame: pd.DataFrame, labels: pd.Series, task: Task, dates: tuple[str, ...] = ()
) -> Example:
    """Fit the estimator and write its bundle into the folder. dates: the features that are, in days."""
    estimator.fit(frame, labels)
    fitted = FittedModel(estimator, frame, labels, task, str(labels.name), GATE)
    build_bundle(folder, replace(fitted, dates=dates))
    return Example(estimator, frame, folder, dates)


def mixed_rows() -> tuple[pd.DataFrame, pd.Series]:
    """Text, whole numbers and floats; the label is true or false."""
    random = np.random.default_rng(0)
    n = 200
    frame = pd.DataFrame(
        {
            "colour": random.choice(["red", "green", "blue"], n),
            "doors": random.integers(2, 6, n),
            "weight": random.normal(1000, 200, n),
        }
    )
    return frame, pd.Series((frame["doors"] > 3) ^ (frame["colour"] == "red"), name="expensive")


def patients() -> tuple[pd.DataFrame, pd.Series]:
    """Numbers and text of which some are missing; the label is yes or no. Rows: 200."""
    random = np.random.default_rng(1)
    n = 200
    frame = pd.DataFrame(
        {
            "age": random.integers(20, 80, n).astype(float),
            "ward": pd.Series(random.choice(["north", "south"], n), dtype="str"),
            "pressure": random.normal(120, 15, n).round(1),
        }
    )
    sick = pd.Series(np.where(frame["age"] + frame["pressure"] > 170, "yes", "no"), name="sick")
    for name in frame:
        frame.loc[random.random(n) < 0.2, name] = np.nan
    return frame, sick


DATES = ("joined", "last_order_at")  # of `members`


def members() -> tuple[pd.DataFrame, pd.Series]:
    """Days, moments of which some are missing, and numbers; the label is yes or no. Rows: 200."""
    random = np.random.default_rng(2)
    n = 200
    joined = np.floor(random.uniform(days_of("2020-01-01"), days_of("2026-01-01"), n))
    seconds = random.integers(0, 400 * 86_400, n)
    last = pd.Series((joined * 86_400 + seconds) / 86_400)  # as `days_of` divides
    frame = pd.DataFrame({"joined": joined, "last_order_at": last, "visits": random.integers(0, 50, n).astype(float)})
    leaves = pd.Series(np.where(frame["joined"] > days_of("2023-01-01"), "yes", "no"), name="leaves")
    frame.loc[random.random(n) < 0.2, "last_order_at"] = np.nan
    return frame, leaves


def with_imputer() -> Pipeline:
    """An unfitted model of `members`."""
    return make_pipeline(SimpleImputer(), RandomForestClassifier(n_estimators=20, random_state=0))


def with_imputers() -> Pipeline:
    """An unfitted model of `patients`."""
    text = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("numbers", SimpleImputer(), ["age", "pressure"]), ("text", text, ["ward"])])
    return make_pipeline(columns, RandomForestClassifier(n_estimators=20, random_state=0))


def cache_bundle(cache: Path, name: str, bundle: Path, version: str = "1") -> Path:
    """Put a bundle where the API looks when it starts."""
    digest = read_bundle(bundle).sha256
    folder = cache / name / f"{version}-{digest[:16]}"
    shutil.copytree(bundle, folder)
    note = {"model": name, "version": version, "run_id": f"run-of-{name}", "bundle_sha256": digest}
    note |= {"folder": folder.name, "incarnation": ""}
    (cache / name / "current.json").write_text(json.dumps(note))
    return folder


def settings(cache: Path, **values: Any) -> ApiSettings:
    """Settings of an API that looks at MLflow once, when it starts."""
    return ApiSettings(**{"cache_dir": cache, "poll_seconds": 3600.0, "feedback_key": KEY, **values})


def absent_mlflow() -> MlflowClient:
    """A client of an MLflow that does not run."""
    return MlflowClient(f"http://127.0.0.1:{free_port()}", timeout=5)


def state_of(client: TestClient) -> State:
    """What the endpoints of an API in this process share: its models, and what follows MLflow."""
    app = client.app
    assert isinstance(app, Router)
    assert isinstance(app.state, State)
    return app.state


def metric(client: Any, name: str, /, **labels: str) -> float | None:
    """A value from /metrics."""
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


def publish(registry: MlflowClient, name: str, bundle: Path, promote: bool = True) -> str:
    """Register a copy of the bundle as the next version of `name`; returns its number."""
    run = registry.run(registry.create_run(registry.ensure_experiment(name), "test", {}))
    root = registry.artifact_path(run.artifact_uri)
    for path in bundle.rglob("*"):
        if path.is_file():
            registry.write_artifact(f"{root}/model/{path.relative_to(bundle).as_posix()}", path.read_bytes())
    ensure_model(registry, name)
    tags = {"bundle_sha256": file_sha256(bundle / SUMS)}
    version = registry.create_version(name, run.run_id, f"{run.artifact_uri}/model", tags).version
    if promote:
        registry.set_alias(name, PRODUCTION, version)
    return version
