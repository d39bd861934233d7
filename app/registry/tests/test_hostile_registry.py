"""What the registry says becomes no path unseen: nothing outside of the cache is written or deleted."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.clients.mlflow import MlflowClient, MlflowError, ModelVersion
from app.registry.bundle import BUNDLE_TAG, BundleError, fetch_bundle
from app.runtime.paths import UnsafePath, inside

SUM = "0" * 64
VERSION = ModelVersion("iris", "1", "0" * 32, "mlflow-artifacts:/1/run/artifacts/model", 0.0, {BUNDLE_TAG: SUM})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder beside a folder that is precious."""
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "precious").write_text("x")
    (tmp_path / "cache" / "iris").mkdir(parents=True)
    return tmp_path / "cache"


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def nobody() -> MlflowClient:
    """A client of an MLflow that is never asked."""
    return MlflowClient("http://127.0.0.1:9", timeout=0.1)


@pytest.mark.parametrize(
    "tag", ["a/b", "a/../../../v", "/../../v", "..", SUM[:63], SUM + "0", SUM.replace("0", "A"), f"{SUM}\n", "a\x00b"]
)
def test_a_hostile_tag_writes_and_deletes_nothing(cache: Path, nobody: MlflowClient, tag: str) -> None:
    before = _files(cache.parent)
    (cache / "iris" / "1-a").mkdir()  # which the tag a/b made, once
    with pytest.raises(BundleError, match=r"the tag bundle_sha256 of version 1 of iris is .* 64 digits"):
        fetch_bundle(nobody, replace(VERSION, tags={BUNDLE_TAG: tag}), cache)
    (cache / "iris" / "1-a").rmdir()
    assert _files(cache.parent) == before


@pytest.mark.parametrize("number", ["", "0", "-1", "1/../../../v", "../v", "1\n", "x", "9" * 300, "\u0663"])
def test_a_hostile_version_writes_and_deletes_nothing(cache: Path, nobody: MlflowClient, number: str) -> None:
    before = _files(cache.parent)
    with pytest.raises(BundleError, match="is not a number"):
        fetch_bundle(nobody, replace(VERSION, version=number), cache)
    assert _files(cache.parent) == before


@pytest.mark.parametrize("name", ["", ".", "..", "../v", "a/b", "/tmp", "a\\b", "a\x00", "a\nb", "x" * 300])  # noqa: S108
def test_a_hostile_name_writes_and_deletes_nothing(cache: Path, nobody: MlflowClient, name: str) -> None:
    before = _files(cache.parent)
    with pytest.raises(BundleError, match="cannot be kept in the cache"):
        fetch_bundle(nobody, replace(VERSION, name=name), cache)
    assert _files(cache.parent) == before


def test_a_link_out_of_the_cache_is_not_followed(cache: Path, nobody: MlflowClient) -> None:
    (cache / "wine").symlink_to(cache.parent / "v")
    with pytest.raises(BundleError, match="leads out of"):
        fetch_bundle(nobody, replace(VERSION, name="wine"), cache)
    assert _files(cache.parent / "v") == ["precious"]


@pytest.mark.parametrize("path", ["/1/../../x", "/1//x", "/1/a\\b", "/", "/1/./x"])
def test_a_hostile_source_is_refused(path: str) -> None:
    with pytest.raises(MlflowError, match="is no path below"):
        MlflowClient.artifact_path(f"mlflow-artifacts:{path}")


@pytest.mark.parametrize("file", ["../../../v/precious", "/etc/passwd", "a\\b", "x\x00y", "more.pkl"])
def test_a_hostile_name_in_the_sums_is_refused(
    registry: MlflowClient, new_version: Any, cache: Path, file: str
) -> None:
    version = new_version()
    sums = f"{SUM}  {file}\n".encode()
    registry.write_artifact(f"{registry.bundle_path(version)}/SHA256SUMS", sums)
    before = _files(cache.parent / "v")
    hostile = replace(version, tags={BUNDLE_TAG: hashlib.sha256(sums).hexdigest()})
    with pytest.raises(BundleError, match=r"SHA256SUMS is damaged|is no file of a bundle"):
        fetch_bundle(registry, hostile, cache)
    assert _files(cache.parent / "v") == before
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_file_in_mlflow_that_no_sum_is_of_is_not_downloaded(
    registry: MlflowClient, new_version: Any, cache: Path
) -> None:
    version = new_version()
    registry.write_artifact(f"{registry.bundle_path(version)}/more/evil.pkl", b"x")
    with pytest.raises(BundleError, match=r"more/evil\.pkl is not listed"):
        fetch_bundle(registry, version, cache)
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("names", [(), ("a",), ("iris", "1-0000")])
def test_a_plain_name_is_inside(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert inside(tmp_path, *names) == tmp_path.joinpath(*names)


def test_a_hostile_part_is_not_inside(tmp_path: Path) -> None:
    for name in ("..", "a/b", "a\\b", "", "a\x00"):
        with pytest.raises(UnsafePath, match="is not the name of a file"):
            inside(tmp_path, "good", name)
