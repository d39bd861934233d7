"""What is registered with a real Prefect server follows a git repository and mounted files."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prometheus_client import REGISTRY

from app.clients.mlflow import MlflowClient
from app.runtime.processes import Server
from app.testing.docs import ROOT
from app.testing.git import Repository, git_daemon
from flows import deploy
from flows.follow import Follower, State

TEMPLATE = {"job_configuration": {"job_manifest": {"kind": "Job"}}, "variables": {"type": "object", "properties": {}}}
IRIS = (ROOT / "flows" / "models" / "iris.py").read_text()


@pytest.fixture
def command(
    platform: MlflowClient, prefect_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """The arguments of flows.deploy, in the environment that the chart gives it."""
    template = tmp_path / "template.json"
    template.write_text(json.dumps(TEMPLATE))
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.uri)
    monkeypatch.setenv("MLOPS_MODELS_FOLDER", str(tmp_path / "models"))
    monkeypatch.setenv("MLOPS_MODELS_PATH", f"{tmp_path / 'models' / 'current' / 'of-ours'}:{tmp_path / 'mounted'}")
    (tmp_path / "mounted").mkdir()
    yield ["--work-pool", "k8s", "--job-template", str(template)]

    async def forget() -> None:
        """Other tests have the same server, and runs of theirs would read the repository first."""
        async with get_client() as client:
            for deployment in await client.read_deployments():
                await client.delete_deployment(deployment.id)

    asyncio.run(forget())


def registered() -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        async with get_client() as client:
            return {deployment.name: deployment for deployment in await client.read_deployments()}

    return asyncio.run(read())


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_what_a_repository_has_is_registered_with_its_commit_and_stays_while_it_is_away(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    repository = Repository(tmp_path / "served" / "ours")
    commit = repository.commit({"of-ours/tulip.py": IRIS, "of-ours/weed.py": "import nothing_like_it"})
    monkeypatch.setattr("sys.argv", ["deploy", *command])
    monkeypatch.setenv("MLOPS_MODELS_GIT_PATH", "of-ours")
    with git_daemon(tmp_path / "served", tmp_path) as address:
        monkeypatch.setenv("MLOPS_MODELS_GIT_URL", f"{address}/ours")
        deploy.main()
    arguments = {"url": f"{address}/ours", "ref": "", "path": "of-ours", "commit": commit}
    steps = [{"flows.repository.pull_models": arguments}]
    of_git = registered()
    assert {name: of_git[name].pull_steps for name in ("tulip", "promote", "rollback", "iris")} == dict.fromkeys(
        ("tulip", "promote", "rollback", "iris"), steps
    )
    assert "No module named 'nothing_like_it'" in of_git["weed"].description
    state = State.read(tmp_path / "models")
    assert (state.commit, list(state.broken or {}), state.problem) == (commit, ["weed"], "")

    # the server is gone, and so is the pod with what it had checked out
    monkeypatch.setenv("MLOPS_MODELS_FOLDER", str(tmp_path / "new pod"))
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path / "new pod" / "current" / "of-ours"))
    deploy.main()
    assert "cannot be read, what is registered of it stays" in caplog.text
    without = registered()
    assert {name: without[name].pull_steps for name in ("tulip", "promote")} == {"tulip": steps, "promote": steps}
    assert "does not answer" in State.read(tmp_path / "new pod").problem

    monkeypatch.delenv("MLOPS_MODELS_GIT_URL")
    deploy.main()
    assert {"tulip", "weed"}.isdisjoint(registered())
    assert registered()["promote"].pull_steps == []


def test_changes_are_registered_by_themselves_and_what_is_broken_is_counted(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path / "served" / "ours")
    monkeypatch.setenv("MLOPS_MODELS_GIT_PATH", "of-ours")
    with git_daemon(tmp_path / "served", tmp_path) as address:
        monkeypatch.setenv("MLOPS_MODELS_GIT_URL", f"{address}/ours")
        repository.commit({"of-ours/rose.py": "import nothing_like_it"})
        (tmp_path / "mounted" / "lily.py").write_text(IRIS)
        follower = Follower([sys.executable, "-m", "flows.deploy", *command], tmp_path / "models", 0.1)
        asyncio.run(follower.look())
        assert {"rose", "lily"} <= set(registered())
        assert value("mlops_model_file_broken", model="rose") == 1
        assert value("mlops_model_file_broken", model="lily") is None
        read = value("mlops_models_repository_read_timestamp_seconds", repository=f"{address}/ours")
        assert read

        before = registered()["lily"].updated
        asyncio.run(follower.look())
        assert registered()["lily"].updated == before, "nothing has changed, so nothing is registered"

        repository.commit({"of-ours/rose.py": IRIS})
        (tmp_path / "mounted" / "lily.py").unlink()
        asyncio.run(follower.look())
        assert "lily" not in registered()
        assert registered()["rose"].description.startswith("Iris")
        assert value("mlops_model_file_broken", model="rose") is None
    read = value("mlops_models_repository_read_timestamp_seconds", repository=f"{address}/ours")
    asyncio.run(follower.look())
    assert value("mlops_models_repository_read_timestamp_seconds", repository=f"{address}/ours") == read, "it is away"
    assert "rose" in registered()
