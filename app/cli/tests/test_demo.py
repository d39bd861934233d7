"""The demo, run as `make demo` runs it, on free ports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from app.cli import demo as demo_module
from app.cli.demo import Demo, verify
from app.cli.errors import CommandError
from app.registry.bundle import read_bundle
from app.runtime.processes import free_port, wait_for_url
from app.testing.docs import ROOT, shell_commands
from app.testing.model_api import SETOSA

LIMIT_SECONDS = 240
NAMES = ("mlflow", "prefect", "api", "ui")


@pytest.fixture
def ports() -> dict[str, int]:
    return {name: free_port() for name in NAMES}


def command(folder: Path, ports: dict[str, int], *more: str) -> list[str]:
    options = [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]
    return [sys.executable, "-m", "app.cli", "demo", "--folder", str(folder), *options, *more]


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes that belong to the demo in the folder: its path or PREFECT_HOME is in their environment."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MLOPS_CACHE_DIR", "").startswith(str(folder)):
                processes.append(process)
        except (psutil.Error, OSError):
            continue
    return processes


def run_the_documented_commands(folder: Path, ports: dict[str, int]) -> None:
    """Every line of the README's and the docs' sh blocks but `make`, against the running demo."""
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": urls["mlflow"],
        "PREFECT_API_URL": f"{urls['prefect']}/api",
        "MLOPS_API_URL": urls["api"],
        "MLOPS_UI_URL": urls["ui"],
    }
    lines = [line for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")] for line in shell_commands(page)]
    lines = [line.replace(":8086", f":{ports['api']}") for line in lines if not line.startswith(("make ", ". "))]
    assert any(line.startswith("mlops doctor") for line in lines)
    lines = [line.replace("--folder .mlops", f"--folder {folder} --to {folder.parent / 'backups'}") for line in lines]
    for line in lines:
        done = subprocess.run(["bash", "-c", line], env=env, cwd=ROOT, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("demo") / "data"
    yield made
    for process in processes_of(made):
        process.kill()


def test_once_makes_a_version_and_verifies_a_prediction(folder: Path, ports: dict[str, int]) -> None:
    options = " ".join(command(folder, ports)[4:])
    make = ["make", "demo", "ONCE=1", f"ARGS={options}"]
    # not with what `make test` was called with
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS")}
    done = subprocess.run(make, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "iris version 1 says setosa for sepal_length=5.1 sepal_width=3.5 petal_length=1.4 petal_width=0.2"
        in done.stdout
    )
    for name in NAMES:
        assert f"http://127.0.0.1:{ports[name]}" in done.stdout
    assert not processes_of(folder)


def test_again_keeps_the_history_and_ctrl_c_leaves_no_process(folder: Path, ports: dict[str, int]) -> None:
    """Runs after the test above, in the same folder."""
    demo = subprocess.Popen(command(folder, ports), stdout=subprocess.PIPE, text=True)
    assert demo.stdout
    try:
        lines = []
        for line in demo.stdout:
            lines.append(line)
            if "Ctrl-C stops everything" in line:
                break
        assert any("iris version 2 says setosa" in line for line in lines), lines
        assert not any("registered version 1" in line for line in lines)  # of the run before
        answer = httpx.get(f"http://127.0.0.1:{ports['api']}/predict/", params=SETOSA).json()
        assert (answer["prediction"], answer["version"]) == ("setosa", "2")
        assert httpx.get(f"http://127.0.0.1:{ports['ui']}/_stcore/health").is_success

        second = subprocess.run(command(folder, ports), capture_output=True, text=True, timeout=60)
        assert second.returncode == 1
        assert "another demo is running in" in second.stderr

        deployment = f"http://127.0.0.1:{ports['prefect']}/api/deployments/name/train/iris"
        assert wait_for_url(deployment, 60), "the deployment train/iris was not registered"
        run_the_documented_commands(folder, ports)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
        assert not processes_of(folder)
    finally:
        demo.kill()


def test_even_a_killed_demo_leaves_no_process(folder: Path, ports: dict[str, int]) -> None:
    demo = subprocess.Popen(command(folder, ports), stdout=subprocess.PIPE, text=True)
    assert demo.stdout
    assert any("MLflow is up" in line for line in demo.stdout)
    running = processes_of(folder)
    assert len(running) >= len(("mlflow", "prefect", "train"))
    demo.kill()
    _, alive = psutil.wait_procs(running, timeout=60)
    assert not alive


def test_an_answer_that_is_not_the_estimators_stops_the_demo(iris_bundle: Path) -> None:
    bundle = read_bundle(iris_bundle)
    verify(bundle, bundle.golden.outputs[0])
    with pytest.raises(CommandError, match="'tulip'"):
        verify(bundle, "tulip")


def test_a_port_in_use_is_named_with_the_cure(tmp_path: Path, ports: dict[str, int]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports["api"]))
        taken.listen()
        done = subprocess.run(command(tmp_path, ports), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"port {ports['api']}, which Model API needs, is in use" in done.stderr
    assert "--api-port" in done.stderr


def test_a_full_disk_is_said_before_anything_starts(
    tmp_path: Path, ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "NEEDED_BYTES", shutil.disk_usage(tmp_path).total * 2)
    with pytest.raises(CommandError, match="MB free on the disk"):
        Demo("iris", tmp_path, ports).run(once=True)


def test_a_folder_that_cannot_be_written(tmp_path: Path, ports: dict[str, int]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"cannot be written .* --folder"):
        Demo("iris", tmp_path / "file" / "below", ports).run(once=True)


def test_a_model_that_does_not_exist(tmp_path: Path, ports: dict[str, int]) -> None:
    options = command(tmp_path, ports, "--once")
    options.insert(4, "rose")
    done = subprocess.run(options, capture_output=True, text=True, timeout=LIMIT_SECONDS, env={**os.environ})
    assert done.returncode == 1
    assert "there is no model 'rose'; known are: diabetes, iris" in done.stderr
    assert not processes_of(tmp_path)
