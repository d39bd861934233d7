"""The list of images: complete, exact, and rebuilt by content."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import chart
from images.offline import images, paths, tools


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """images/offline in a folder of the test, to be changed."""
    folder = tmp_path / "offline"
    shutil.copytree(paths.OFFLINE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(images, "OFFLINE", folder)
    monkeypatch.setattr(tools, "OFFLINE", folder)
    monkeypatch.setenv("DEBIAN_MIRROR", "http://mirror.invalid/debian")
    images.load.cache_clear()
    images._key.cache_clear()
    yield folder
    images.load.cache_clear()
    images._key.cache_clear()


def _keys() -> dict[str, str]:
    images._key.cache_clear()
    return {name: image.key for name, image in images.load().items()}


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def _changed(before: dict[str, str]) -> set[str]:
    return {images.load()[name].folder or name for name, key in _keys().items() if key != before[name]}


def test_a_changed_dockerfile_rebuilds_its_image_alone(copied: Path) -> None:
    before = _keys()
    _append(copied / "stand-ins/traefik/Dockerfile", "LABEL changed=1\n")
    assert _changed(before) == {"traefik"}


def test_a_changed_program_rebuilds_what_holds_it(copied: Path) -> None:
    before = _keys()
    _append(copied / "go/coredns/go.sum", "changed\n")
    assert _changed(before) == {"coredns", "node"}


def test_a_changed_base_rebuilds_what_stands_on_it(copied: Path) -> None:
    before = _keys()
    _append(copied / "stand-ins/net/Dockerfile", "LABEL changed=1\n")
    assert _changed(before) == {"net", "kubernetes", "kube-router", "node"}


def test_another_archive_rebuilds_all_that_has_packages(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _keys()
    monkeypatch.setenv("DEBIAN_MIRROR", "http://other.invalid/debian")
    assert {images.debian().name, "net", "postgres", "node"} <= _changed(before)


def test_every_entry_can_be_built() -> None:
    for image in images.load().values():
        assert image.suite or (image.source / "Dockerfile").is_file(), image.name
        assert set(image.tools) <= set(tools.load()), image.name
        if image.folder:
            copied = re.findall(r"COPY --from=bin (.+) \S+$", (image.source / "Dockerfile").read_text(), re.MULTILINE)
            assert {word for line in copied for word in line.split()} == set(image.tools), image.name


def test_nothing_is_pulled() -> None:
    """What a Dockerfile starts from is on the list, is scratch, or is a stage of its own."""
    for dockerfile in paths.OFFLINE.rglob("Dockerfile"):
        text = dockerfile.read_text()
        stages = set(re.findall(r" AS (\S+)$", text, re.MULTILINE)) | {"scratch", "bin", "images"}
        sources = set(re.findall(r"^FROM (\S+)|--from=(\S+)", text, re.MULTILINE))
        named = {name for pair in sources for name in pair if name}
        assert named - stages <= set(images.load()), dockerfile
        assert not text.startswith("# syntax="), f"{dockerfile}: that frontend would be pulled"


def test_tags_are_exact() -> None:
    for name in images.load():
        tag = name.rpartition(":")[2]
        assert tag == "trixie" or re.search(r"\d+\.\d+|\d{8}", tag), f"{name} moves"


def test_tags_are_the_versions_of_the_programs() -> None:
    programs = tools.load()
    for image in images.load().values():
        if image.tools:
            version = programs[image.tools[0]].version.removeprefix("v")
            assert version in image.name, f"{image.name} holds {image.tools[0]} {version}"


def test_what_our_manifests_refer_to_is_on_the_list() -> None:
    """Manifests of the cluster and, by default values, of the charts."""
    named = {
        match
        for path in paths.OFFLINE.rglob("*.yaml")
        for match in re.findall(r"\bimage: [\"']?([a-z0-9][\w./-]+:[\w.-]+)", path.read_text())
    }
    assert len(named) >= 4
    of_charts = {image.reference for image in chart.images().values() if image.registry}
    of_charts = {name for name in of_charts if "/grafana/" not in name}  # which no package has
    assert len(of_charts) >= 7
    named |= of_charts
    assert named <= set(images.load()), named - set(images.load())
