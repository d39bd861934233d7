"""Every command of the docs that is for the platform on Kubernetes does what it says, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from namespace import wait_for
from release import PORTS, ROOT, Platform

from app.testing.docs import shell_commands

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What never ends, and what others run: test_upgrade.py, test_loop.py, test_data.py, test_retrain.py, test_push.py, CI,
# test_package.py, test_backup.py; mlops drift is a drill of test_retrain.py.
DRIFT = "kubectl -n mlops exec deployment/mlops-prefect-worker -- mlops drift"
HELM = tuple(
    f"helm {command}" for command in ("install", "upgrade", "rollback", "test", "uninstall", "package", "push")
)
ELSEWHERE = ("make ", *HELM, "skaffold ", "mlops backup", "mlops restore", DRIFT)


def is_forward(line: str) -> bool:
    return " port-forward " in line


def test_port_forwards_are_those_of_the_services() -> None:
    lines = [line for page in PAGES for line in shell_commands(page, "bash") if is_forward(line)]
    assert {line.split("svc/mlops-")[1] for line in lines} == {f"{name} {port}" for name, port in PORTS.items()}


@pytest.mark.parametrize("page", [page for page in PAGES if shell_commands(page, "bash")], ids=lambda page: page.name)
def test_the_commands_work(page: Path, platform: Platform) -> None:
    lines = [line for line in shell_commands(page, "bash") if not line.startswith(ELSEWHERE)]
    forwards = [line for line in lines if is_forward(line)]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with ExitStack() as stack:
        for line in forwards:
            process = subprocess.Popen(line.split(), stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            port = int(line.rsplit(" ", 1)[1])
            wait_for(lambda port=port: _answers(port), f"{line}: an answer on port {port}", 30)
        # one shell, as `export` is for the lines after it
        script = "set -e -o pipefail\n" + "\n".join(line for line in lines if line not in forwards)
        result = subprocess.run(["bash", "-xc", script], env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"{result.stdout[-3000:]}{result.stderr[-3000:]}"


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
    except httpx.HTTPError:
        return False
    return True
