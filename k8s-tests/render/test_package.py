"""The chart as a package: what is in it, what it says of itself, and the way through a registry."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chart import CHART, OPERATOR, ROOT, program, render_chart, title

from app.testing.docs import shell_commands
from images import chart

REGISTRY = "registry.example.com"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty registry on this machine."""
    program = shutil.which("registry")
    assert program, "a registry is needed: `make test` builds it, in .tools/bin"
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    configuration = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder)}},
        "http": {"addr": address},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(configuration))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
        try:
            for _ in range(300):
                assert process.poll() is None, (folder / "log").read_text()
                if answers(address):
                    break
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait()


def answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(f"http://{address}/v2/", timeout=5))
    except (urllib.error.URLError, OSError):
        return False


def run(line: str, registry: str, folder: Path, *options: str) -> str:
    """A command of the docs in a folder, with this machine's registry; what it prints."""
    words = [program(), *line.split()[1:], *options]
    words = [word.replace("charts/platform", str(CHART), 1) if word == "charts/platform" else word for word in words]
    words = [word.replace(REGISTRY, registry) for word in words]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def test_the_commands_of_the_docs(registry: str, tmp_path: Path) -> None:
    lines = shell_commands(ROOT / "docs" / "kubernetes.md", "bash")
    start = lines.index("helm package charts/platform")
    package, push, install = lines[start : start + 3]
    run(package, registry, tmp_path)
    run(push, registry, tmp_path, "--plain-http")
    plain = ("--plain-http", "--dry-run=client")
    assert "The platform is installed." in run(install, registry, tmp_path, *plain)
    # what comes back makes the same objects
    rendered = run(
        install.replace("install", "template"), registry, tmp_path, "--plain-http", "--api-versions", OPERATOR
    )
    pulled = {title(m) for m in yaml.safe_load_all(rendered) if m}
    assert pulled == {title(m) for m in render_chart()}


def test_what_is_in_the_package(tmp_path: Path) -> None:
    run("helm package charts/platform", "", tmp_path)
    (archive,) = tmp_path.glob("*.tgz")
    with tarfile.open(archive) as opened:
        names = opened.getnames()
    assert {"platform/Chart.yaml", "platform/README.md", "platform/values.schema.json"} <= set(names)
    assert not [name for name in names if name.endswith(".py") or "__pycache__" in name]
    assert sum(name.endswith("/_names.tpl") for name in names) == 1, "the fragments are in it once"
    assert archive.stat().st_size < 500_000


def test_what_the_chart_says_of_itself() -> None:
    said = yaml.safe_load((CHART / "Chart.yaml").read_text())
    for key in ("home", "sources", "maintainers", "icon", "kubeVersion", "keywords"):
        assert said[key], key
    assert (ROOT / said["home"]).is_file()
    assert said["icon"].startswith("data:image/svg+xml;base64,"), "nothing is fetched from elsewhere"
    notes = said["annotations"]
    assert notes["artifacthub.io/license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert yaml.safe_load(notes["artifacthub.io/changes"])
    images = {entry["image"] for entry in yaml.safe_load(notes["artifacthub.io/images"])}
    assert images == {image.reference for image in chart.images().values() if image.registry}
