from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from app.clients.mlflow import MlflowClient
from app.runtime.processes import Server


@pytest.fixture
def platform(
    registry: MlflowClient, prefect_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[MlflowClient]:
    """MLflow and Prefect are up and named in the environment."""
    monkeypatch.setenv("MLOPS_CACHE_DIR", str(tmp_path / "cache"))
    # logs are sent in the background, and at exit once more to a server that is gone by then: a minute of waiting
    with temporary_settings({PREFECT_API_URL: prefect_server.uri, PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield registry
