"""The platform's images, as far as it goes without a container engine."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from images import build, locks, registry
from images.build import ROOT

LOCKS = {"prefect": "flows", "common": "common", "tracking": "tracking"}  # where it is not the image's name

CODE_ALONE = {"retrainer", "flows"}


def test_one_version_for_package_charts_and_images() -> None:
    version = build.version()
    for chart in (ROOT / "charts" / "platform").rglob("Chart.yaml"):
        versions = dict(re.findall(r"^(version|appVersion): (\S+)", chart.read_text(), re.MULTILINE))
        assert versions == {"version": version, "appVersion": version}, chart


@pytest.mark.parametrize("name", [*build.names(), "common", "tracking"])
def test_an_image_is_built_from_a_hashed_lock_and_runs_as_nobody(name: str) -> None:
    text = build.dockerfile(name).read_text()
    assert text.rfind("USER 10001:10001") > text.rfind("USER 0:0") or name in CODE_ALONE
    assert build.with_parents([name])[0] == "python"
    if name in CODE_ALONE:
        assert "install" not in build.parents(name)
        return
    lock = LOCKS.get(name, name)
    assert f"source=requirements/{lock}.txt" in text.replace("$LOCK", name)
    assert (ROOT / "requirements" / f"{lock}.txt").read_text().count("--hash=sha256:") > 20
    if "COPY app/" in text:
        assert text.index("/opt/install/install") < text.index("COPY app/"), "changed code would install packages anew"


def test_only_what_is_hashed_is_installed_and_pip_stays_behind() -> None:
    """uv checks the hashes; what installs is mounted, so that no image has it."""
    assert "--require-hashes" in (ROOT / "images/install/install").read_text()
    assert "python3-pip" in build.dockerfile("install").read_text()
    for name in [*build.names(), "python", "common", "tracking"]:
        text = build.dockerfile(name).read_text()
        assert "python3-pip" not in text, name
        assert "FROM mlops/install" not in text, name


def test_debian_is_what_the_images_of_this_machine_start_from() -> None:
    listed = tomllib.loads((ROOT / "images/offline/images.toml").read_text())
    first = re.findall(r"^FROM (\S+)", build.dockerfile("python").read_text(), re.MULTILINE)
    assert [name for name, entry in listed.items() if "suite" in entry] == [first[0].partition("@sha256:")[0]]


@pytest.mark.parametrize("name", locks.SHARED)
def test_what_locks_have_in_common_is_up_to_date(name: str) -> None:
    text = (locks.REQUIREMENTS / f"{name}.txt").read_text()
    assert text == locks.expected(name), (
        f"requirements/{name}.txt is not what the other locks have in common: make lock"
    )
    assert len(locks.packages(text)) > 30


def test_a_package_is_shared_when_version_marker_and_hashes_are_the_same() -> None:
    one = "a==1 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\n    # via b\nb==2 ; x \\\n    --hash=sha256:3\n"
    assert locks.shared([one, one]) == one.replace("    # via b\n", "")
    other = one.replace("a==1", "a==2").replace("b==2 ; x", "b==2")
    assert locks.shared([one, other]) == ""
    assert locks.shared([one, one.replace("sha256:3", "sha256:4")]).startswith("a==1")
    assert "b==2" not in locks.shared([one, one.replace("sha256:3", "sha256:4")])


def test_the_api_image_has_what_every_model_needs_and_nothing_of_trainings() -> None:
    lock = (ROOT / "requirements" / "api.txt").read_text()
    for package in ("onnxruntime", "scikit-learn", "pandas", "skops"):
        assert re.search(rf"^{package}==", lock, re.MULTILINE), package
    for package in ("mlflow", "prefect", "skl2onnx"):
        assert not re.search(rf"^{package}==", lock, re.MULTILINE), package
    assert build.with_parents(["api"]) == ["python", "install", "common", "api"]


def test_every_dependency_group_has_a_lock() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    for group in groups:
        assert (ROOT / "requirements" / f"{group}.txt").is_file(), f"make lock: {group}"


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("mlops/api:0.1.0", "mlops/api"),
        ("docker.io/library/traefik:v3", "library/traefik"),
        ("postgres:17.11", "library/postgres"),
        ("quay.io/prometheus/prometheus:v3.1.0", "prometheus/prometheus"),
        ("localhost:5000/a/b:1", "a/b"),
    ],
)
def test_an_image_is_pushed_under_the_path_that_nodes_ask_for(reference: str, path: str) -> None:
    assert registry.repository(reference) == path
    assert registry.local(reference) == f"localhost:5001/{path}:{reference.rpartition(':')[2]}"


def test_an_unknown_image_is_refused_by_name() -> None:
    command = [sys.executable, "-m", "images.build", "build", "grafana"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no image grafana; known are: api, flows, mlflow, prefect, retrainer, ui" in done.stderr
