"""The platform's images, as far as it goes without a container engine."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import tomllib

import pytest

from images import build
from images.build import ROOT


def test_one_version_for_package_charts_and_images() -> None:
    version = build.version()
    for chart in (ROOT / "charts" / "platform").rglob("Chart.yaml"):
        found = dict(re.findall(r"^(version|appVersion): (\S+)", chart.read_text(), re.MULTILINE))
        assert found == {"version": version, "appVersion": version}, chart


@pytest.mark.parametrize("name", [*build.names(), *build.VARIANTS])
def test_an_image_is_built_from_a_hashed_lock_and_runs_as_nobody(name: str) -> None:
    text = (ROOT / "images" / build.VARIANTS.get(name, name) / "Dockerfile").read_text()
    lock = ROOT / "requirements" / f"{name}.txt"
    assert f"requirements/{name}.txt" in text.replace("$LOCK", name)
    assert "--require-hashes" in text
    assert lock.read_text().count("--hash=sha256:") > 20
    assert "USER 10001:10001" in text
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {build.BASE}
    last_stage = text.split("FROM")[-1]
    assert last_stage.index("COPY --from=build") < last_stage.index("COPY app/") if "COPY app/" in text else True
    assert "pip" not in last_stage


def test_the_api_image_leaves_out_what_only_the_slow_path_needs() -> None:
    lock = (ROOT / "requirements" / "api.txt").read_text()
    for package in ("scikit-learn", "pandas", "scipy", "mlflow", "prefect"):
        assert not re.search(rf"^{package}==", lock, re.MULTILINE), package


def test_every_dependency_group_has_a_lock() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    for group in groups:
        assert (ROOT / "requirements" / f"{group}.txt").is_file(), f"make lock: {group}"


def test_layers_that_a_node_has_are_not_sent_again() -> None:
    layers = {"aa": b"there", "bb": b"new", "index": b"{}"}
    source = io.BytesIO()
    with tarfile.open(fileobj=source, mode="w") as tar:
        for name, path in {"aa": "blobs/sha256/aa", "bb": "blobs/sha256/bb", "index": "index.json"}.items():
            info = tarfile.TarInfo(path)
            info.size = len(layers[name])
            tar.addfile(info, io.BytesIO(layers[name]))
        info = tarfile.TarInfo("manifest.json")
        tar.addfile(info, io.BytesIO())
    source.seek(0)
    target = io.BytesIO()
    build._copy_without(source, target, {"aa"})
    target.seek(0)
    with tarfile.open(fileobj=target) as tar:
        assert tar.getnames() == ["blobs/sha256/bb", "index.json"]
        file = tar.extractfile("blobs/sha256/bb")
        assert file
        assert file.read() == b"new"


def test_an_unknown_image_is_refused_by_name() -> None:
    command = [sys.executable, "-m", "images.build", "build", "grafana"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no image grafana; known are: api, flows, mlflow, ui" in done.stderr


def test_push_wants_a_registry() -> None:
    command = [sys.executable, "-m", "images.build", "push"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "REGISTRY=" in done.stderr
