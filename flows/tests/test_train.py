"""The training flow against real MLflow and Prefect servers."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pandas as pd
import pytest

from app.clients.mlflow import PRODUCTION, MlflowClient
from app.registry import feedback_store
from app.registry.bundle import HELD_OUT, fetch_bundle, read_gate_file
from app.registry.predictor import load_predictor
from app.runtime.processes import Server
from app.testing.docs import ROOT, python_block
from app.testing.proxy import LosingProxy, serving
from flows.bundle_writer import FittedModel
from flows.catalog import load_model, load_models
from flows.feedback import FeedbackRefused
from flows.register import register
from flows.serve import deployments
from flows.sources import DatasetError
from flows.train import train

KILLS = 5


def artifacts(registry: MlflowClient, run_id: str) -> list[str]:
    return registry.list_artifacts(registry.artifact_path(registry.run(run_id).artifact_uri))


@pytest.fixture(scope="module")
def shared() -> dict[str, Any]:
    return {}


@pytest.fixture
def iris_run(platform: MlflowClient, shared: dict[str, Any]) -> dict[str, Any]:
    """One training of Iris, which several tests look at."""
    if "iris" not in shared:
        shared["iris"] = train("iris", who="ada")
    return shared["iris"]


def test_training_registers_and_promotes(platform: MlflowClient, iris_run: dict[str, Any]) -> None:
    assert iris_run["decision"]["outcome"] == "promoted"
    version = platform.version_by_alias("iris", PRODUCTION)
    assert version
    assert version.version == iris_run["version"]
    assert {"dataset_sha256", "git_sha", "flow_run_id", "lib.scikit-learn", "bundle_sha256"} <= version.tags.keys()


def test_mlflow_has_everything_about_the_run(platform: MlflowClient, iris_run: dict[str, Any]) -> None:
    run = platform.run(iris_run["run_id"])
    assert run.params["forest__n_estimators"] == "100"
    assert run.metrics["accuracy"] == iris_run["metrics"]["accuracy"]
    assert run.tags["flow_run_id"]
    names = artifacts(platform, run.run_id)
    assert {"evaluation/confusion_matrix.png", "evaluation/feature_importances.png", "model/model.onnx"} <= set(names)
    mlflow.set_tracking_uri(platform.uri)
    (data,) = mlflow.get_run(run.run_id).inputs.dataset_inputs  # type: ignore[union-attr]
    assert data.dataset.digest


def test_prefect_shows_a_report_with_a_link_to_the_run(
    prefect_server: Server, platform: MlflowClient, iris_run: dict[str, Any]
) -> None:
    body = {"artifacts": {"key": {"any_": ["train-iris"]}}, "sort": "CREATED_DESC"}
    reports = httpx.post(f"{prefect_server.uri}/artifacts/filter", json=body).json()
    assert f"{platform.uri}/#/experiments/" in reports[0]["data"]
    assert iris_run["run_id"] in reports[0]["data"]
    assert "accuracy" in reports[0]["data"]


def test_tracking_is_tried_again_and_makes_one_run(platform: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    losing = LosingProxy(platform.uri, lost={"/api/2.0/mlflow/runs/log-inputs": 1}, arrives=True)
    with serving(losing):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", losing.url)
        result = train("iris", promote=False)
    assert losing.lost == {"/api/2.0/mlflow/runs/log-inputs": 0}
    run = platform.run(result["run_id"])
    assert (run.status, run.metrics["accuracy"]) == ("FINISHED", result["metrics"]["accuracy"])
    assert len(platform.search_runs("iris", {"flow_run_id": run.tags["flow_run_id"]})) == 1


def test_the_same_seed_and_data_give_the_same_metrics(platform: MlflowClient, iris_run: dict[str, Any]) -> None:
    again = train("iris", promote=False)
    assert again["metrics"] == iris_run["metrics"]
    assert int(again["version"]) > int(iris_run["version"])
    assert again["decision"] is None


def test_a_regression_has_residuals(platform: MlflowClient) -> None:
    result = train("diabetes")
    assert result["decision"]["outcome"] == "promoted"
    assert "evaluation/residuals.png" in artifacts(platform, result["run_id"])


def test_bad_data_stops_the_run_and_registers_nothing(platform: MlflowClient, tmp_path: Path) -> None:
    before = {model.name: len(platform.versions(model.name)) for model in platform.models()}
    source = tmp_path / "bad.csv"
    load_model("iris").load().drop(columns="petal_width").to_csv(source, index=False)
    with pytest.raises(DatasetError, match="column 'petal_width' is missing"):
        train("iris", source=str(source))
    assert {model.name: len(platform.versions(model.name)) for model in platform.models()} == before


def test_worse_data_ends_in_a_refused_promotion(
    platform: MlflowClient, iris_run: dict[str, Any], tmp_path: Path
) -> None:
    source = tmp_path / "noise.parquet"
    frame = load_model("iris").load()
    frame["species"] = frame["species"].sample(frac=1, random_state=1).to_numpy()
    frame.to_parquet(source)
    result = train("iris", source=str(source))
    assert result["decision"]["outcome"] == "refused"
    assert result["decision"]["check"] == "threshold"
    assert platform.version_by_alias("iris", PRODUCTION).version != result["version"]  # type: ignore[union-attr]


def test_a_third_model_is_one_file(platform: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = python_block(ROOT / "README.md")
    assert len([line for line in text.splitlines() if line.strip()]) < 20
    (tmp_path / "wine.py").write_text(text)
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    result = train("wine")
    assert result["decision"]["outcome"] == "promoted"
    bundle = fetch_bundle(platform, platform.version("wine", result["version"]), tmp_path / "cache")
    example = load_model("wine").load().head(1)
    (label,) = load_predictor(bundle).predict(example.drop(columns="grower").to_numpy().tolist()).labels
    assert label == example["grower"].iloc[0]
    assert "wine" in [deployment.name for deployment in deployments(load_models()[0])]


GAPPY = """
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from app.testing.model_api import patients
from flows.model import Gate, Model


def load():
    rows, sick = patients()
    return rows.drop(columns="ward").assign(sick=sick)


def estimator(seed):
    return {estimator}


model = Model("classification", "sick", load, estimator, Gate("accuracy", threshold=0.6))
"""


def test_a_table_with_missing_values_is_trained_on(
    platform: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    (tmp_path / "gappy.py").write_text(GAPPY.format(estimator="HistGradientBoostingClassifier(random_state=seed)"))
    result = train("gappy")
    assert result["decision"]["outcome"] == "promoted", result["decision"]
    bundle = fetch_bundle(platform, platform.version("gappy", result["version"]), tmp_path / "cache")
    assert [feature.nullable for feature in bundle.features] == [True, True]
    assert len(load_predictor(bundle).predict([[None, None]]).labels) == 1


def test_an_estimator_that_takes_no_missing_values_is_named_with_the_cure(
    platform: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    (tmp_path / "gappy.py").write_text(GAPPY.format(estimator="LogisticRegression()"))
    with pytest.raises(DatasetError, match=r"values of age, pressure are missing, .*put a SimpleImputer before it"):
        train("gappy")


ORDERS = """
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from flows.model import Gate, GroupSplit, Model


def orders(rows):
    random = np.random.default_rng(rows)
    amount = random.normal(size=rows)
    returned = np.where(amount + random.normal(size=rows) / 4 > 0, "yes", "no")
    return pd.DataFrame({"amount": amount, "customer": np.arange(rows) % 40, "returned": returned})


model = Model(
    task="classification",
    target="returned",
    load=lambda: orders(400),
    estimator=lambda seed: LogisticRegression(),
    gate=Gate("accuracy", threshold=0.7, max_regression=0.1),
    split=GroupSplit("customer"),
    folds=3,
)
"""


def test_a_split_by_group_is_trained_with_judged_by_and_told_of(
    platform: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    (tmp_path / "orders.py").write_text(ORDERS)
    first = train("orders")
    assert first["decision"]["outcome"] == "promoted", first["decision"]
    load_model("orders").load().to_parquet(tmp_path / "more.parquet")
    second = train("orders", source=str(tmp_path / "more.parquet"), seed=1)
    assert second["decision"]["outcome"] == "promoted", second["decision"]
    assert "version 1" in second["decision"]["reason"]  # compared on the held-out customers

    run = platform.run(first["run_id"])
    assert 0.5 < run.metrics["cv_accuracy_mean"] <= 1
    assert 0 <= run.metrics["cv_accuracy_std"] < 0.2
    assert (run.params["split"], run.params["folds"]) == ("group (customer)", "3")
    assert "over 3 folds: accuracy 0." in caplog.text
    version = platform.version("orders", first["version"])
    bundle = fetch_bundle(platform, version, tmp_path / "cache")
    assert [feature.name for feature in bundle.features] == ["amount"]
    held_out = pd.read_parquet(io.BytesIO(read_gate_file(platform, version, bundle, HELD_OUT)))
    assert list(held_out) == ["amount", "returned"]


def test_mlflow_killed_during_registrations_loses_no_version(
    mlflow_server: Server, platform: MlflowClient, iris_rows: Any, iris_fitted: Any
) -> None:
    """MLflow is SIGKILLed at several moments of a registration and started again; what was acknowledged is there."""
    rows, held_out = iris_rows
    fitted = FittedModel.of(load_model("iris"), iris_fitted, rows)
    name, acknowledged = "killed", []
    client = MlflowClient(platform.uri, timeout=30, retry_for=120)

    def restart() -> None:
        mlflow_server.stop()
        mlflow_server.start()

    for number in range(KILLS):
        run = client.create_run(client.ensure_experiment(name), "test", {})
        killer = threading.Timer(0.15 * number, restart)  # from before the upload to after the version
        killer.start()
        version = register(client, name, run, fitted, held_out, {})
        acknowledged.append(version.version)
        killer.join()
    versions = platform.versions(name)
    assert sorted(v.version for v in versions) == sorted(acknowledged)
    for version in versions:
        assert load_predictor(fetch_bundle(platform, version, Path(mlflow_server.logs) / "cache"))


def test_mlflow_away_is_waited_for(
    mlflow_server: Server, platform: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow_server.stop()
    restart = threading.Thread(target=mlflow_server.start)
    restart.start()
    result = train("iris", promote=False)
    restart.join()
    assert platform.version("iris", result["version"]).run_id == result["run_id"]


def _feedback(version: str, number: int, label: str, client: str) -> list[dict[str, Any]]:
    """Rows as the API stores them, for flowers that version called setosa."""
    flower = {"sepal_width": 3.4, "petal_length": 1.5, "petal_width": 0.2}
    return [
        {
            "id": f"{client}-{i}",
            "time": 1.0,
            "client": client,
            "model": "iris",
            "version": version,
            "features": {"sepal_length": 5.005 + i / 100, **flower},
            "prediction": "setosa",
            "label": label,
        }
        for i in range(number)
    ]


def test_feedback_is_trained_on_and_never_grades_and_who_contradicts_production_stops_it(
    platform: MlflowClient, iris_run: dict[str, Any], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    rows = _feedback(iris_run["version"], 20, "setosa", "app")
    old = {"sepal_length": 5.0}  # of a time when the model had one feature
    rows += [{**rows[0], "id": "old", "features": old}, {**rows[0], "id": "gone", "label": "tulip"}]
    feedback_store.store(platform, "iris", rows)
    result = train("iris", feedback=True, promote=False)
    run = platform.run(result["run_id"])
    trained, compared = run.metrics["feedback_rows"], run.metrics["feedback_rows_to_compare"]
    assert (trained + compared, run.metrics["feedback_rows_left_out"]) == (20, 2)
    assert run.params["rows"] == str(150 + int(trained))
    assert "1 rows of feedback on iris were left out: it has no sepal_width" in caplog.text
    version = platform.version("iris", result["version"])
    bundle = fetch_bundle(platform, version, tmp_path)
    held_out = pd.read_parquet(io.BytesIO(read_gate_file(platform, version, bundle, HELD_OUT)))
    assert len(held_out) == 36
    assert not held_out["sepal_length"].isin([row["features"]["sepal_length"] for row in rows[:20]]).any()

    feedback_store.store(platform, "iris", _feedback(iris_run["version"], 20, "virginica", "liar"))
    before = len(platform.versions("iris"))
    with pytest.raises(FeedbackRefused, match="20 of the last 20 labels of the client 'liar'"):
        train("iris", feedback=True, promote=False)
    assert len(platform.versions("iris")) == before
