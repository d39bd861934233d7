"""The commands, run as a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.dummy import DummyClassifier

from app.clients.mlflow import MlflowClient
from app.registry.canary import canary_of
from app.registry.challenger import shadow_of
from app.runtime.processes import ChildProcess, Server, free_port, wait_for_url
from app.testing.docs import ROOT
from app.testing.model_api import SETOSA


def mlops(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=180)


@pytest.fixture
def model_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model file of this name, as that of Iris."""
    (tmp_path / f"{name}.py").write_text((ROOT / "flows" / "models" / "iris.py").read_text())
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))


@pytest.mark.usefixtures("model_file")
def test_promote_rollback_and_history(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version()
    assert mlops("promote", name, "--who", "ada").returncode == 0
    new_version()
    done = mlops("promote", name)
    assert done.returncode == 0, done.stderr
    assert "version 2: promoted" in done.stdout
    done = mlops("rollback", name, "--why", "it was wrong")
    assert done.returncode == 0
    assert "returned from version 2 to version 1" in done.stdout
    entries = json.loads(mlops("history", name, "--json").stdout)
    assert [(e["action"], e["version"]) for e in entries] == [("rollback", "1"), ("promote", "2"), ("promote", "1")]
    assert entries[0]["why"] == "it was wrong"
    assert entries[2]["who"] == "ada"
    assert mlops("history", name).stdout.count("\n") == 3


@pytest.mark.usefixtures("model_file")
def test_a_challenge_begins_and_ends(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version()
    assert mlops("promote", name).returncode == 0
    new_version()
    done = mlops("challenge", name, "2", "--shadow", "0.5", "--who", "ada", "--why", "is it calmer?")
    assert done.returncode == 0, done.stderr
    assert shadow_of(registry.model(name)) == ("2", 0.5)
    assert mlops("challenge", name, "2", "--shadow", "2").returncode == 2
    assert mlops("challenge", name).returncode == 2
    assert mlops("challenge", name, "7").returncode == 1
    assert mlops("challenge", name, "--end").returncode == 0
    assert shadow_of(registry.model(name)) is None
    ended, begun, _ = mlops("history", name).stdout.splitlines()
    assert re.search(r"challenge +1 -> 2 +ended +\S+: it got 0 rows in the shadow of version 1", ended)
    assert re.search(r"challenge +1 -> 2 +started +ada: it predicts a share of 0.5 of the rows of version 1", begun)


@pytest.mark.usefixtures("model_file")
def test_a_canary_starts_and_ends(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version()
    assert mlops("promote", name).returncode == 0
    new_version()
    done = mlops("promote", name, "--canary", "0.1")
    assert done.returncode == 0, done.stderr
    assert f"canary {name} version 2: started: it answers 0.1 of the requests" in done.stdout
    assert canary_of(registry.model(name)) == ("2", 0.1)
    for wrong in (["1"], ["-1"], ["nan"], ["0", "--version", "2"], ["0.1", "--allow-signature-change"]):
        done = mlops("promote", name, "--canary", *wrong)
        assert done.returncode == 2, wrong
        assert "Traceback" not in done.stderr
    done = mlops("promote", name, "--canary", "0")
    assert done.returncode == 0, done.stderr
    assert canary_of(registry.model(name)) is None
    assert [line.split()[2:7] for line in mlops("history", name).stdout.splitlines()[:2]] == [
        ["canary", "1", "->", "2", "ended"],
        ["canary", "1", "->", "2", "started"],
    ]
    assert "has no canary" in mlops("promote", name, "--canary", "0").stderr


@pytest.mark.usefixtures("model_file")
def test_a_refused_promotion_names_check_and_figures_and_fails(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    new_version(DummyClassifier(strategy="most_frequent"))
    done = mlops("promote", name)
    assert done.returncode == 3
    assert "refused (check: threshold): accuracy 0.3" in done.stdout
    assert "0.8500" in done.stdout
    assert mlops("rollback", name).returncode == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "nothing"], "there is no model 'nothing'; known are: diabetes, iris"),
        (["rollback", "nothing"], "no model 'nothing' is registered"),
        (["history", "nothing"], "no model 'nothing' is registered"),
        (["predict", "iris", "sepal_length"], "'sepal_length' is not FEATURE=VALUE"),
        (["predict", "iris", "a=1"], "does not answer"),
        (["train", "iris"], "start it with `make demo`"),
        (["demo", "--folder", "/proc/nothing"], "cannot be written"),
    ],
)
def test_errors_say_what_to_do(registry: MlflowClient, arguments: list[str], message: str) -> None:
    done = mlops(*arguments, MLOPS_API_URL="http://127.0.0.1:9", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named(registry: MlflowClient) -> None:
    done = mlops("doctor", MLOPS_TIMEOUT="soon")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: MLOPS_TIMEOUT is 'soon': ")
    assert "Traceback" not in done.stderr


def test_mlflow_away(registry: MlflowClient) -> None:
    done = mlops("promote", "iris", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "MLflow at http://127.0.0.1:9 does not answer" in done.stderr


def test_train_then_predict(registry: MlflowClient, prefect_server: Server, tmp_path: Path) -> None:
    cache = {"MLOPS_CACHE_DIR": str(tmp_path), "PREFECT_API_URL": prefect_server.uri, "PREFECT_HOME": str(tmp_path)}
    done = mlops("train", "iris", **cache)
    assert done.returncode == 0, done.stderr
    assert "registered version" in done.stdout
    missing = mlops("train", "rose", **cache)
    assert missing.returncode == 1
    assert "there is no model 'rose'; known are: diabetes, iris" in missing.stderr
    (tmp_path / "rows.txt").write_text("1 2 3")
    unread = mlops("train", "iris", "--source", str(tmp_path / "rows.txt"), **cache)
    assert unread.returncode == 1
    assert ".csv and .parquet" in unread.stderr

    port = free_port()
    api = ChildProcess("api", [sys.executable, "-m", "app.api"], {**cache, "MLOPS_PORT": str(port)}, tmp_path)
    try:
        url = f"http://127.0.0.1:{port}"
        assert wait_for_url(f"{url}/models/iris", 60, lambda: api.ended), api.tail()
        good = mlops("predict", "iris", *(f"{k}={v}" for k, v in SETOSA.items()), MLOPS_API_URL=url)
        assert json.loads(good.stdout)["prediction"] == "setosa", good.stderr
        bad = mlops("predict", "iris", "sepal_length=long", MLOPS_API_URL=url)
        assert bad.returncode == 1
        assert "sepal_length should be a number" in bad.stderr
        assert "etal_width is missing" in bad.stderr
        unknown = mlops("predict", "rose", MLOPS_API_URL=url)
        assert unknown.returncode == 1
        assert "iris" in unknown.stderr
    finally:
        api.stop()
