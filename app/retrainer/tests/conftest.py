"""Fixtures of the retrainer's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.clients.mlflow import MlflowClient
from app.runtime.processes import Server
from app.testing.prefect import PrefectAdmin
from app.testing.retrainer import TOKEN, Trainings


@pytest.fixture
def trainings(
    registry: MlflowClient, prefect_server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Trainings]:
    """Prefect and MLflow are up and named in the environment, with the token; the model has no deployment yet."""
    prefect_server.start()
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.uri)
    monkeypatch.setenv("MLOPS_RETRAINER_TOKEN", TOKEN)
    with PrefectAdmin(prefect_server.uri, timeout=30, attempts=20) as prefect:
        yield Trainings(prefect, name)
