"""A training and its promotion as on Kubernetes: each a process of its own, with an account of its own in MLflow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from sklearn.dummy import DummyClassifier

from app.clients.mlflow import CHALLENGER, PRODUCTION, MlflowClient, Unauthorized
from app.clients.prefect import PrefectClient
from app.registry.canary import CANARY_TAG, canary_of
from app.registry.promotion import history
from app.runtime.processes import ChildProcess, Server
from app.runtime.waiting import wait_until
from app.testing.mlflow_accounts import client_of, password
from app.testing.prefect import PrefectAdmin
from flows.catalog import load_model
from flows.decision import UndecidedError, decision_about
from flows.model import Gate, Model
from flows.promote import promote
from flows.train import train

# Serves the flows that decide, as the worker does; their runs are processes with its environment.
SERVE = "from prefect import serve; from flows.serve import deployments; serve(*deployments([]))"


def account(name: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password(name)}


@pytest.fixture
def trainer(
    mlflow_with_accounts: Server, prefect_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[MlflowClient]:
    """This process has the account of a training Job."""
    variables = {**account("trainer"), "MLFLOW_TRACKING_URI": mlflow_with_accounts.uri}
    variables |= {"MLOPS_CACHE_DIR": str(tmp_path / "cache"), "MLOPS_PROMOTION_DEPLOYMENT": "promote/promote"}
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    with (
        temporary_settings({PREFECT_API_URL: prefect_server.uri, PREFECT_LOGGING_TO_API_ENABLED: False}),
        client_of(mlflow_with_accounts, "trainer") as client,
    ):
        yield client


@pytest.fixture
def gate(trainer: MlflowClient, prefect_server: Server, tmp_path: Path) -> Iterator[ChildProcess]:
    """A process that runs promotions, with the account of the gate."""
    env = {**account("gate"), "PREFECT_API_URL": prefect_server.uri, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    process = ChildProcess("gate", [sys.executable, "-c", SERVE], env, tmp_path)
    with PrefectClient(prefect_server.uri) as prefect:

        def ready() -> bool:
            deployment = prefect.deployment("promote", "promote")
            return deployment is not None and deployment.status == "READY"

        wait_until(ready, 120, lambda: f"nobody runs promote/promote: {process.tail()}")
    yield process
    process.stop()


def test_a_training_registers_and_its_promotion_is_a_run_of_its_own(
    trainer: MlflowClient, gate: ChildProcess, prefect_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = train("iris", who="ada")
    version = result["version"]
    assert result["decision"]["outcome"] == "promoted"
    assert trainer.version_by_alias("iris", PRODUCTION).version == version  # type: ignore[union-attr]
    assert trainer.version_by_alias("iris", CHALLENGER) is None
    decision = history(trainer, "iris")[0]
    assert (decision.who, decision.version) == ("ada", version)
    with PrefectClient(prefect_server.uri) as prefect:
        run = next(r for r in prefect.runs(flow="promote") if r.parameters.get("version") == version)
        assert run.state == "COMPLETED"
        assert set(run.parameters) == {"model", "version", "who", "why", "cause", "only_if_better"}
        raw = prefect._json("GET", f"/flow_runs/{run.id}", dict)
        assert raw["parent_task_run_id"]  # Prefect's page shows it below the training

    # a training whose model file was tampered with lowers no threshold
    monkeypatch.setattr(sys.modules[train.fn.__module__], "load_model", tampered)
    refused = train("iris", who="mallory")
    assert (refused["decision"]["outcome"], refused["decision"]["check"]) == ("refused", "threshold")
    assert "which does not count" in refused["decision"]["reason"]
    assert trainer.version_by_alias("iris", PRODUCTION).version == version  # type: ignore[union-attr]

    # and what it is left with cannot move production
    with pytest.raises(Unauthorized, match="the account `trainer` may not do this"):
        trainer.set_alias("iris", PRODUCTION, refused["version"])


def test_the_account_of_the_gate_starts_and_ends_a_canary(
    trainer: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (train("iris", who="ada", promote=False)["version"] for _ in range(2))
    for key, value in account("gate").items():
        monkeypatch.setenv(key, value)
    assert promote("iris", first, who="ada")["outcome"] in ("promoted", "unchanged")
    assert promote("iris", second, who="ada", canary=0.1)["outcome"] == "started"
    assert canary_of(trainer.model("iris")) == (second, 0.1)
    with pytest.raises(Unauthorized, match="the account `trainer` may not do this"):
        trainer.set_model_tag("iris", CANARY_TAG, f"{second} 0.9")
    with pytest.raises(ValueError, match="leave the version out"):
        promote("iris", second, canary=0)
    assert promote("iris", who="ada", canary=0)["outcome"] == "ended"
    assert canary_of(trainer.model("iris")) is None


def tampered(name: str) -> Model:
    """The model with an estimator that guesses, and a gate that lets it pass."""
    return replace(
        load_model(name), estimator=lambda seed: DummyClassifier(random_state=seed), gate=Gate("accuracy", 0.0)
    )


def test_a_training_says_where_its_promotion_stands_when_nobody_runs_it(
    trainer: MlflowClient, prefect_server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLOPS_DECISION_SECONDS", "1")
    with PrefectAdmin(prefect_server.uri) as prefect:
        if prefect.deployment("promote", "promote") is None:
            prefect.deploy("promote", "promote", {})
    result = train("iris", who="nobody")
    assert result["decision"] is None
    assert trainer.version("iris", result["version"]).run_id == result["run_id"]
    assert "not decided after 1 s: the flow run " in caplog.text
    assert "goes on without this one" in caplog.text


def test_a_deployment_that_is_missing_is_named(trainer: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_PROMOTION_DEPLOYMENT", "promote/nothing")
    with pytest.raises(UndecidedError, match="Prefect has no deployment promote/nothing"):
        decision_about("iris", "1", "none", who="", why="", cause="", only_if_better=False)


def test_a_promotion_that_failed_fails_the_training_and_says_how_to_ask_again(
    trainer: MlflowClient, gate: ChildProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A model that the gate has no file of."""
    (tmp_path / "lost.py").write_text((Path(__file__).parents[1] / "models" / "iris.py").read_text())
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    with pytest.raises(UndecidedError, match=r"there is no model 'lost'.*-p model=lost -p version='\"1\"'"):
        train("lost")
    assert [version.version for version in trainer.versions("lost")] == ["1"]
