"""The cache of the gate keeps what is new or in use, and throws the rest away."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from app.clients.mlflow import MlflowClient
from app.registry import cache
from app.registry.gate import cache_dir, load_version

DAY = 86400.0


def _bundle(folder: Path, number: int, age: float, size: int = 10) -> Path:
    path = folder / f"{number}-{number:016x}"
    path.mkdir(parents=True)
    (path / "model.onnx").write_bytes(bytes(size))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def _left(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in folder.iterdir())


def test_of_each_model_the_newest_bundles_stay(tmp_path: Path) -> None:
    for model in ("iris", "wine"):
        for number in range(1, 6):
            _bundle(tmp_path / model, number, age=DAY * (10 - number))
    cache.prune(tmp_path)
    assert _left(tmp_path / "iris") == _left(tmp_path / "wine") == ["3", "4", "5"]


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    for number in range(1, 6):
        _bundle(tmp_path / "iris", number, age=0)
    cache.prune(tmp_path)
    assert len(_left(tmp_path / "iris")) == 5


def test_all_models_together_have_so_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KEPT_BYTES", 250)
    for number in range(1, 6):
        _bundle(tmp_path / f"model{number}", 1, age=DAY * number, size=100)
    cache.prune(tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir()) if _left(path)] == ["model1", "model2"]


def test_nothing_but_bundles_is_deleted(tmp_path: Path) -> None:
    for number in range(1, 6):
        _bundle(tmp_path / "iris", number, age=DAY)
    (tmp_path / "iris" / "notes").mkdir()
    (tmp_path / "iris" / "current.json").write_text("{}")
    (tmp_path / "file").write_text("x")
    outside = _bundle(tmp_path.parent / f"{tmp_path.name}-outside", 9, age=DAY)
    (tmp_path / "link").symlink_to(outside.parent)
    cache.prune(tmp_path)
    assert {"notes", "current.json"} <= {path.name for path in (tmp_path / "iris").iterdir()}
    assert (tmp_path / "file").exists()
    assert (outside / "model.onnx").exists()


def test_a_download_that_was_never_finished_goes(tmp_path: Path) -> None:
    old, new = tmp_path / "iris" / ".download-old", tmp_path / "iris" / ".download-new"
    for path in (old, new):
        path.mkdir(parents=True)
    os.utime(old, (0, 0))
    cache.prune(tmp_path)
    assert not old.exists()
    assert new.exists()


def test_the_gate_prunes_its_cache(registry: MlflowClient, new_version: Any) -> None:
    version = new_version()
    for number in range(101, 106):
        _bundle(cache_dir() / version.name, number, age=DAY * (200 - number))
    load_version(registry, version)
    assert _left(cache_dir() / version.name) == ["1", "104", "105"]
