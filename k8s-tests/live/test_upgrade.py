"""An upgrade from the last release, and back, under load: no request fails, and all that was made is there.

UPGRADE_FROM names the commit to begin with; by default it is the last tag.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kept import Kept, assert_the_same, kept, predicts
from load import FLOWER, Load
from namespace import wait_for
from release import CHART, CONTEXT, ROOT, Platform, in_place_of, install, run
from runs import settled

from app.testing.docs import shell_commands
from images import build

pytestmark = pytest.mark.drill

RATE = 50  # requests per second
ROWS = 20  # predictions that are labelled before the upgrade
CALM = 5  # seconds of load before and after
PAGE = ROOT / "docs" / "upgrading.md"
LATER = "ffffffffffff"  # a revision of a schema that no version has yet
REVISION = """
import glob, sqlite3
(file,) = glob.glob("/data/mlflow.db") or glob.glob("/data/prefect.db")
database = sqlite3.connect(file)
(revision,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
print(revision)
"""
COPY_AND_MAKE_LATER = """
copy = sqlite3.connect(f"{file}.20260101T000000Z-{revision}")
database.backup(copy)
copy.close()
database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
database.commit()
"""


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the release to begin with, its images built and on the cluster's nodes.

    Its version gets the commit's name, so that images of the same number are apart.
    """
    revision = os.environ.get("UPGRADE_FROM")
    if not revision:
        described = subprocess.run(
            ["git", "describe", "--tags", "--abbrev=0"], cwd=ROOT, capture_output=True, text=True
        )
        assert described.returncode == 0, "no tag is there: UPGRADE_FROM=HEAD~10 names a commit to begin with"
        revision = described.stdout.strip()
    folder = tmp_path_factory.mktemp("released")
    commit = run(["git", "rev-parse", "--short", f"{revision}^{{commit}}"]).strip()
    run(["sh", "-c", f"git archive {commit} | tar -x -C {shlex.quote(str(folder))}"])
    version = re.search(r'^version = "(.+)"$', (folder / "pyproject.toml").read_text(), re.MULTILINE)
    assert version, "pyproject.toml has no version"
    for path in [folder / "pyproject.toml", *(folder / CHART).rglob("Chart.yaml")]:
        if not path.is_symlink():
            path.write_text(re.sub(rf"\b{re.escape(version[1])}\b", f"{version[1]}-g{commit}", path.read_text()))
    print(f"from {revision}, {version[1]}-g{commit}, to {build.version()}")
    subprocess.run(["python3", "-B", "-m", "images.build", "build", "--cluster"], cwd=folder, check=True, timeout=1800)
    return folder


@pytest.fixture
def installed(platform: Platform, released: Path, tmp_path: Path) -> Iterator[Platform]:
    """That release, with a version in production and feedback; in place of the platform, for want of CPU."""
    with in_place_of(platform, "mlops-upgrade", tmp_path) as (other, values):
        install(other, str(released / CHART), values)
        wait_for(lambda: predicts(other), "a prediction", 120)
        with other.client("api") as api:
            for _ in range(ROWS):
                prediction = api.get(FLOWER).json()["prediction_id"]
                label = {"prediction_id": prediction, "label": "setosa"}
                assert api.post("/feedback", json=label).status_code == 201
        yield other


def command(platform: Platform, begin: str) -> str:
    """A line of the docs, with this namespace and context."""
    (line,) = [line for line in shell_commands(PAGE, "bash") if line.startswith(begin)]
    return f"{line.replace('-n mlops', f'-n {platform.namespace}')} --kube-context {CONTEXT}"


def later(before: Kept, after: Kept) -> Kept:
    """Without the keys of the Secret that a newer version has added."""
    return replace(after, credentials={key: after.credentials.get(key, "") for key in before.credentials})


def test_there_and_back_and_there_again_under_load(installed: Platform, tmp_path: Path) -> None:
    before = kept(installed, tmp_path)
    assert len(before.feedback) == ROWS
    assert before.aliases["iris"], "nothing is in production"
    begin = {pod.metadata.uid for pod in installed.pods("model-api")}
    # As many connections as requests a second: one that waits for its answer keeps no other from being sent.
    with Load("api.localhost:8080", rate=RATE, connections=RATE) as load:
        time.sleep(CALM)  # the load itself is what is waited for
        for name, line in (
            ("upgrade", command(installed, "helm upgrade mlops ")),
            ("rollback", command(installed, "helm rollback mlops ")),
            ("upgrade again", command(installed, "helm upgrade mlops ")),
        ):
            started = time.monotonic()
            run(shlex.split(line), 900)
            installed.ready()
            print(f"{name}: {time.monotonic() - started:.0f} s")
            wait_for(lambda: settled(installed, "model-api"), "the API's pods", 120)
            assert_the_same(before, later(before, kept(installed, tmp_path)))
        time.sleep(CALM)
    load.check()
    assert not begin & {pod.metadata.uid for pod in installed.pods("model-api")}, "the API was not replaced"


@pytest.mark.parametrize("component", ["mlflow", "prefect-server"])
def test_a_chart_that_is_too_old_for_a_database_says_how_to_go_back(platform: Platform, component: str) -> None:
    """As after a rollback: the database is of a revision that nobody knows; beside it is the copy from before."""
    revision = in_pod(platform, component, REVISION + COPY_AND_MAKE_LATER)
    (pod,) = platform.pods(component)
    platform.core.delete_namespaced_pod(pod.metadata.name, platform.namespace)
    sentence = wait_for(lambda: platform.refusal(component), "the refusal", 180)
    assert f"schema revision {LATER}" in sentence
    (line,) = re.findall(r"run `(kubectl .+?)`", sentence)
    assert line.endswith(revision)
    run([*shlex.split(line), "--context", CONTEXT])
    wait_for(lambda: settled(platform, component), f"{component} with the copy", 300)
    assert in_pod(platform, component, REVISION) == revision
    *command, setting = shlex.split(line)
    run([*command, f"{setting.partition('=')[0]}-", "--context", CONTEXT])  # as the docs say
    wait_for(lambda: settled(platform, component), f"{component} without the variable", 300)


def in_pod(platform: Platform, component: str, script: str) -> str:
    """What Python code prints in the pod of a server."""
    (pod,) = platform.pods(component)
    where = ["--context", CONTEXT, "-n", platform.namespace, pod.metadata.name]
    return run(["kubectl", "exec", *where, "--", "python", "-c", script]).strip()
