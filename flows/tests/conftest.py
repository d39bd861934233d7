from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from app.registry.client import Registry
from app.testing import Server


@pytest.fixture
def platform(
    registry: Registry, prefect_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Registry]:
    """MLflow and Prefect are up and named in the environment."""
    monkeypatch.setenv("MLOPS_CACHE_DIR", str(tmp_path / "cache"))
    with temporary_settings({PREFECT_API_URL: prefect_server.uri}):
        yield registry
