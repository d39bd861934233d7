"""Drift injected through the API, retrained with what was fed back, and promoted: real servers, real trainings.

Each run is executed as a Kubernetes Job does it, by `prefect flow-run execute`; Alertmanager is the test.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from app.cli.drift import shifted
from app.clients.mlflow import PRODUCTION, MlflowClient
from app.registry.promotion import history
from app.retrainer.main import create_app
from app.runtime.processes import ChildProcess, Server, free_port, wait_for_url
from app.testing.docs import ROOT
from app.testing.retrainer import AUTHORIZED, Trainings, alert, notification
from flows.catalog import load_model
from flows.train import train

IRIS = (ROOT / "flows" / "models" / "iris.py").read_text()
CAUSE = "FeatureDrift petal_length since 2026-01-01T10:00:00Z"


class Loop:
    """A model of its own file, its deployment, and the retrainer."""

    def __init__(self, trainings: Trainings, registry: MlflowClient, client: TestClient) -> None:
        self.trainings, self.registry, self.client = trainings, registry, client
        self.model = trainings.model

    def alert(self) -> dict[str, str]:
        """The retrainer's decision about the model's drift."""
        answer = self.client.post("/alerts", json=notification(alert(self.model)), headers=AUTHORIZED)
        assert answer.status_code == 200, answer.text
        (decision,) = answer.json()["decisions"]
        return dict(decision)

    def execute(self) -> None:
        """Run the newest flow run to its end, in a process of its own."""
        run = self.trainings.runs()[0].id
        command = [sys.executable, "-m", "prefect", "flow-run", "execute", run]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
        ended = self.trainings.prefect.run(run)
        assert ended.state == "COMPLETED", f"{ended}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"

    def production(self) -> str | None:
        version = self.registry.version_by_alias(self.model, PRODUCTION)
        return version.version if version else None


@pytest.fixture
def model_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Iris under a name of its own."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(folder))
    (folder / f"{name}.py").write_text(IRIS)
    return folder / f"{name}.py"


@pytest.fixture
def loop(
    trainings: Trainings,
    registry: MlflowClient,
    prefect_server: Server,
    model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Loop]:
    monkeypatch.setenv("MLOPS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_LOGGING_TO_API_ENABLED", "false")
    settings = {PREFECT_API_URL: prefect_server.uri, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(settings), TestClient(create_app()) as client:
        train.to_deployment(name=trainings.model, parameters={"model": trainings.model}).apply()  # type: ignore[union-attr]
        yield Loop(trainings, registry, client)


@pytest.fixture
def api(loop: Loop, tmp_path: Path) -> Iterator[str]:
    """The model API, once it serves the model; its URL."""
    assert train(loop.model)["decision"]["outcome"] == "promoted"
    port = free_port()
    process = ChildProcess("api", [sys.executable, "-m", "app.api"], {"MLOPS_PORT": str(port)}, tmp_path)
    try:
        url = f"http://127.0.0.1:{port}"
        assert wait_for_url(f"{url}/models/{loop.model}", 60, lambda: process.ended), process.tail()
        yield url
    finally:
        process.stop()


def mlops(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "app.cli", *arguments], capture_output=True, text=True, timeout=180)


def test_drift_that_is_fed_back_is_retrained_and_promoted(
    loop: Loop, api: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mlops.retrainer")
    drift = mlops("drift", loop.model, "--feedback", "--url", api)
    assert drift.returncode == 0, drift.stderr
    assert "600 of 600 rows predicted and fed back on" in drift.stdout
    assert f"answered by version 1 of {loop.model}" in drift.stdout

    # shifted rows with their labels make it better
    assert loop.alert()["outcome"] == "started"
    loop.execute()
    decision = history(loop.registry, loop.model)[0]
    assert (decision.version, decision.outcome, decision.who) == ("2", "promoted", "retrainer"), decision.reason
    assert decision.cause == decision.why == CAUSE
    assert "on feedback is better than production's" in decision.reason
    assert decision.metrics["candidate_feedback_accuracy"] > decision.metrics["production_feedback_accuracy"] + 0.2
    assert loop.production() == "2"
    run = loop.registry.run(loop.registry.version(loop.model, "2").run_id)
    assert run.metrics["feedback_rows"] == 28  # a fifth of what is trained on
    assert (run.params["rows"], run.tags["cause"]) == (str(150 + int(run.metrics["feedback_rows"])), CAUSE)
    verdict = loop.alert()
    assert verdict["outcome"] == "cooldown"
    assert "as promoted: cooldown of 3600 s" in verdict["reason"]


def test_new_data_at_the_path_that_the_model_file_names_is_retrained_on(
    loop: Loop, model_file: Path, tmp_path: Path
) -> None:
    definition, path = load_model(loop.model), tmp_path / "rows.parquet"
    own = definition.load()
    own.to_parquet(path)
    model_file.write_text(IRIS.replace("    load=load,\n", f"    load=load,\n    source={str(path)!r},\n"))
    assert train(loop.model)["decision"]["outcome"] == "promoted"

    # whoever owns the data has added what is new
    pd.concat([own, shifted(definition, 600, 1.5, [], 0)]).to_parquet(path)
    assert loop.alert()["outcome"] == "started"
    loop.execute()
    decision = history(loop.registry, loop.model)[0]
    assert (decision.version, decision.outcome, decision.cause) == ("2", "promoted", CAUSE), decision.reason
    assert loop.registry.run(loop.registry.version(loop.model, "2").run_id).params["rows"] == "750"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rose"], "there is no model 'rose'"),
        (["iris", "--features", "petal_length,colour"], "'colour' is no numeric feature of iris; those are: sepal_len"),
        (["iris", "--features", "species"], "'species' is no numeric feature of iris"),
        (["iris", "--rows", "0"], "0 is not in the range"),
        (["iris", "--url", "http://127.0.0.1:9"], "The model API at http://127.0.0.1:9 does not answer"),
    ],
)
def test_drift_says_what_is_wrong(arguments: list[str], message: str) -> None:
    done = mlops("drift", *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_only_the_features_that_are_named_are_shifted() -> None:
    iris = load_model("iris")
    drawn, moved = (shifted(iris, 200, shift, ["petal_length"], 3) for shift in (0.0, 2.0))
    difference: Any = moved["petal_length"] - drawn["petal_length"]
    assert difference.to_numpy() == pytest.approx(2 * iris.load()["petal_length"].std())
    pd.testing.assert_frame_equal(drawn.drop(columns="petal_length"), moved.drop(columns="petal_length"))
