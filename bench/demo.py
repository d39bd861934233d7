"""The demo on a fresh clone, for `make bench ARGS=--demo`."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from app.runtime.processes import free_port


def measure(add: Callable[[str, str, str], None], folder: Path) -> None:
    """Time the demo of a fresh clone, then once more; `add` is called with what, figure and goal.

    Raises:
        SystemExit: it fails.
    """
    clone = folder / "clone"
    subprocess.run(["git", "clone", "-q", ".", str(clone)], check=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "MLFLOW_"))}
    ports = " ".join(f"--{name}-port {free_port()}" for name in ("mlflow", "prefect", "api", "ui"))
    for label, goal in (("a fresh clone", "90 s"), ("warm", "30 s")):
        begin = time.perf_counter()
        # the prediction is printed at the end; what follows it is only the stop
        with subprocess.Popen(
            ["make", "demo", f"ARGS={ports}"],
            cwd=clone,
            env={**env, "ONCE": "1"},
            stdout=subprocess.PIPE,
            text=True,
        ) as run:
            assert run.stdout
            # to its end: a make that cannot print any more is killed
            seen = [time.perf_counter() for line in run.stdout if " says setosa" in line]
        if run.returncode or not seen:
            raise SystemExit(f"`make demo` on {label} failed with {run.returncode}")
        add(f"make demo to first prediction, {label}", f"{seen[0] - begin:.0f} s", goal)
