"""One version number for charts, images and the Python package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, ROOT, Manifest, containers, pods, render_chart, template, title
from profiles import PROFILES

from images import build

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CHARTS = sorted([CHART, *(path.parent for path in CHART.glob("charts/*/Chart.yaml"))])


def chart_yaml(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((folder / "Chart.yaml").read_text())
    return loaded


@pytest.mark.parametrize("folder", CHARTS, ids=lambda folder: folder.name)
def test_a_chart_has_the_version_of_the_package(folder: Path) -> None:
    chart = chart_yaml(folder)
    assert chart["version"] == PROJECT, f"{folder.name}/Chart.yaml: version"
    assert str(chart["appVersion"]) == PROJECT, f"{folder.name}/Chart.yaml: appVersion"
    assert chart["name"] == folder.name


def test_the_umbrella_has_every_chart_in_the_tree_and_no_remote_one() -> None:
    umbrella = chart_yaml(CHART)
    assert {entry["name"] for entry in umbrella["dependencies"]} == {
        folder.name for folder in CHARTS if folder != CHART
    }
    for entry in umbrella["dependencies"]:
        assert entry["version"] == PROJECT, f"Chart.yaml: dependencies[{entry['name']}].version"
        assert "repository" not in entry, f"Chart.yaml: dependencies[{entry['name']}].repository"


def test_the_changelog_begins_with_it_and_the_chart_says_the_same() -> None:
    """A line of the changelog begins with its sentence in bold; Artifact Hub shows those of the newest version."""
    newest = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1]
    assert re.match(rf"\[{re.escape(PROJECT)}\] - \d{{4}}-\d\d-\d\d\n", newest), "CHANGELOG.md: its first version"
    changes = []
    for kind, lines in re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", newest, re.MULTILINE | re.DOTALL):
        heads = re.findall(r"^- \*\*(.+?)\*\*", lines, re.MULTILINE)
        assert len(heads) == len(re.findall("^- ", lines, re.MULTILINE)) > 0, f"CHANGELOG.md: {kind}"
        changes += [{"kind": kind.lower(), "description": head} for head in heads]
    said = yaml.safe_load(chart_yaml(CHART)["annotations"]["artifacthub.io/changes"])
    assert said == changes, "Chart.yaml: artifacthub.io/changes"
    assert {change["kind"] for change in said} <= {"added", "changed", "deprecated", "removed", "fixed", "security"}


def test_docs_name_no_other_version() -> None:
    pages = [ROOT / "README.md", ROOT / "images" / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {(page.name, found) for page in pages for found in re.findall(r"mlops/\w+:(\d[\d.]*\d)", page.read_text())}
    assert named, "no page names an image"
    assert {found for _, found in named} == {PROJECT}, named


def test_objects_and_images_have_it(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/version"] == PROJECT, f"{title(manifest)}: app.kubernetes.io/version"
        assert labels["helm.sh/chart"].endswith(f"-{PROJECT}"), f"{title(manifest)}: helm.sh/chart"
    own_images = {container["image"] for pod in pods(manifests).values() for container in containers(pod)}
    own_images = {image for image in own_images if "mlops/" in image}
    assert {image.rsplit(":")[-1] for image in own_images} == {PROJECT}


def test_the_charts_ask_for_the_images_that_are_built() -> None:
    references = {container["image"] for pod in pods(render_chart()).values() for container in containers(pod)}
    assert {image for image in references if image.startswith("mlops/")} == {build.tag(name) for name in build.names()}


@pytest.mark.parametrize("minor", [34, 35, 36, 37])
def test_it_renders_for_a_supported_kubernetes(minor: int, profile: str) -> None:
    titles = {title(m) for m in render_chart(PROFILES[profile], kube_version=f"1.{minor}.0")}
    assert titles == {title(m) for m in render_chart(PROFILES[profile])}


def test_an_older_kubernetes_is_refused_in_words() -> None:
    done = template(None, "--kube-version=1.29.0")
    assert done.returncode != 0
    assert "chart requires kubeVersion: >=1.30" in done.stderr
