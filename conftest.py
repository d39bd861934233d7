"""Fixtures for every test: real MLflow and Prefect servers, started once a session on free ports."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.services import Service, wait_for
from app.registry.client import Registry

START_SECONDS = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server that tests may stop (SIGKILL of its whole process group) and start again with the same data."""

    def __init__(self, name: str, command: list[str], uri: str, health: str, env: dict[str, str], logs: Path) -> None:
        self.name, self.command, self.uri, self.health, self.env, self.logs = name, command, uri, health, env, logs
        self.service: Service | None = None

    def start(self) -> None:
        if self.service and not self.service.ended:
            return
        self.service = Service(self.name, [sys.executable, "-m", *self.command], self.env, self.logs)
        if not wait_for(f"{self.uri}{self.health}", START_SECONDS, lambda: self.service.ended):
            raise RuntimeError(f"{self.name} did not start:\n{self.service.tail(40)}")

    def stop(self, grace: float = 0) -> None:
        if self.service:
            self.service.stop(grace)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = Server("mlflow", command, f"http://127.0.0.1:{port}", "/health", env, folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("prefect")
    port = free_port()
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    env = {"PREFECT_HOME": str(folder / "home"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    server = Server("prefect", command, f"http://127.0.0.1:{port}/api", "/health", env, folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def registry(mlflow_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A client of the session's MLflow, which is up; the environment names it too."""
    mlflow_server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    with Registry(mlflow_server.uri, timeout=30) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def quiet_environment() -> None:
    """Nothing of the caller's own platform leaks into the tests."""
    for name in [key for key in os.environ if key.startswith(("MLOPS_", "MLFLOW_TRACKING", "PREFECT_"))]:
        del os.environ[name]
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
