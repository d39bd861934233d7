"""`make push` and the README's commands for a cluster of yours, with the kind cluster's registry as yours."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from release import ROOT, run

from app.testing.docs import python_block, shell_commands
from images import registry
from images.chart import images

EXAMPLE = "registry.example.com/team"
TO = f"{registry.ADDRESS}/test-push"
OF_MODEL = {"Deployment/mlops-prefect-worker", "Pod/mlops-loop"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the checkout, to be changed; afterwards the engine has the images of the checkout again."""
    assert registry.answers(), f"no registry answers at {registry.ADDRESS}: run `make cluster` first"
    folder = tmp_path_factory.mktemp("checkout")
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]).split("\0")
    for name in filter(lambda name: (ROOT / name).is_file(), listed):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    yield folder
    run(["python3", "-B", "-m", "images.build", "build"], 1800)


def of_readme(begin: str) -> str:
    """The README's command that begins so, for this registry."""
    (line,) = [line for line in shell_commands(ROOT / "README.md", "bash") if line.startswith(begin)]
    return line.replace(EXAMPLE, TO)


def bash(folder: Path, command: str) -> str:
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def rendered(folder: Path) -> dict[str, Any]:
    """Kind and name -> pod spec of what the README's helm command installs."""
    helm = (
        of_readme("helm upgrade --install").replace("upgrade --install", "template").replace("--create-namespace", "")
    )
    options = (
        "--kube-version 1.34.0 --set global.existingSecret=ours --api-versions monitoring.coreos.com/v1/ServiceMonitor"
    )
    manifests = [m for m in yaml.safe_load_all(bash(folder, f"{helm} {options}")) if m]
    pods = {f"{m['kind']}/{m['metadata']['name']}": m for m in manifests if m["kind"] in ("Deployment", "Pod")}
    return {name: m["spec"].get("template", m)["spec"] for name, m in pods.items()}


def image_of(values: dict[str, Any], place: tuple[str, ...]) -> dict[str, str]:
    entry: Any = values
    for key in place:
        entry = entry[key]
    return dict(entry)


def assert_in_registry(image: dict[str, str]) -> None:
    """The registry has it by its tag, with this digest."""
    url = f"http://{registry.ADDRESS}/v2/test-push/{image['repository']}/manifests/{image['tag']}"
    request = urllib.request.Request(url, headers={"Accept": registry.MANIFEST})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Docker-Content-Digest"] == image["digest"], image
        assert json.load(answer)["config"]["digest"].startswith("sha256:")


def test_the_commands_of_the_readme_and_after_a_new_model_again(checkout: Path) -> None:
    bash(checkout, of_readme("make push"))
    first = (checkout / "images-values.yaml").read_text()
    values = yaml.safe_load(first)
    assert values["global"] == {"imageRegistry": TO}
    for place, image in images().items():
        if not image.registry:
            assert_in_registry(image_of(values, place))
    before = rendered(checkout)
    worker = image_of(values, ("prefect-worker", "image"))
    (container,) = before["Deployment/mlops-prefect-worker"]["containers"]
    assert container["image"] == f"{TO}/mlops/flows:{worker['tag']}@{worker['digest']}"

    printed = bash(checkout, of_readme("make push"))
    assert "images pushed: 0," in printed, printed
    assert (checkout / "images-values.yaml").read_text() == first

    # never twice the same, as the registry keeps what earlier tests pushed
    (checkout / "flows/models/wine.py").write_text(f"{python_block(ROOT / 'README.md')}\n# {uuid4()}\n")
    printed = bash(checkout, of_readme("make push"))
    assert "images pushed: 1," in printed, printed
    after = rendered(checkout)
    assert {name for name in before if before[name] != after[name]} == OF_MODEL


def test_a_mirror_has_the_third_party_images_too(checkout: Path) -> None:
    """Without Grafana where the engine does not have it, as where no container registry answers."""
    chosen = {place: image for place, image in images().items() if image.registry}
    listed = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).split()
    if not [name for name in listed if name.startswith("grafana/grafana:")]:
        chosen = {place: image for place, image in chosen.items() if place[0] != "grafana"}
    without = "" if ("grafana", "image") in chosen else " WITHOUT=grafana"
    bash(checkout, f"{of_readme('make push')} MIRROR=1{without}")
    values = yaml.safe_load((checkout / "images-values.yaml").read_text())
    assert values["global"] == {"imageRegistry": TO, "mirrorRegistry": TO}
    for place in chosen:
        assert_in_registry(image_of(values, place))
    (traefik,) = rendered(checkout)["Deployment/mlops-traefik"]["containers"]
    assert traefik["image"].startswith(f"{TO}/library/traefik:")
    assert "@sha256:" in traefik["image"]
