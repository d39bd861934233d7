"""Artifacts are downloaded in bounded memory and no larger than they may be."""

import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest

from app.clients.mlflow import MlflowClient, NotFound, TooLarge


@pytest.fixture
def artifact(registry: MlflowClient, name: str) -> str:
    """The path of a file of 24 MB."""
    run = registry.run(registry.create_run(registry.ensure_experiment(name), "test", {}))
    path = f"{registry.artifact_path(run.artifact_uri)}/folder/big.bin"
    registry.write_artifact(path, os.urandom(24 * 2**20))
    return path


def test_a_file_is_hashed_as_it_arrives_in_bounded_memory(
    registry: MlflowClient, artifact: str, tmp_path: Path
) -> None:
    tracemalloc.start()
    digest = registry.download(artifact, tmp_path / "big.bin", 24 * 2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert digest == hashlib.sha256((tmp_path / "big.bin").read_bytes()).hexdigest()
    assert peak < 12 * 2**20


def test_what_is_larger_than_it_may_be_is_not_written(registry: MlflowClient, artifact: str, tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match=r"big\.bin has more than the 1000000 bytes"):
        registry.download(artifact, tmp_path / "big.bin", 1_000_000)
    assert (tmp_path / "big.bin").stat().st_size <= 1_000_000
    with pytest.raises(TooLarge):
        registry.read_artifact(artifact, 1_000_000)


def test_sizes_are_those_of_the_files_below(registry: MlflowClient, artifact: str) -> None:
    assert registry.artifact_sizes(artifact.rsplit("/", 2)[0]) == {"folder/big.bin": 24 * 2**20}


def test_a_missing_file_is_not_found(registry: MlflowClient, artifact: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        registry.download(f"{artifact}.other", tmp_path / "x", 10)
