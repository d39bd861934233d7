"""Where a model version comes from: code, image, flow run, libraries."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from prefect.runtime import flow_run

LIBRARIES = ("scikit-learn", "skl2onnx", "onnxruntime", "skops", "numpy", "pandas", "mlflow", "prefect")


def git_sha() -> str:
    """The commit of the code: MLOPS_GIT_SHA (set in images), or the checkout's, with "-dirty" where files were changed.

    Returns:
        the commit, or "" where neither is known.
    """
    if sha := os.environ.get("MLOPS_GIT_SHA"):
        return sha
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def tags() -> dict[str, str]:
    """Tags of the MLflow run and of the model version.

    MLOPS_IMAGE names the image where there is one, MLOPS_MODELS_* the repository of the model file and its commit.
    """
    own = {name: os.environ.get(f"MLOPS_{name.upper()}", "") for name in ("models_repository", "models_commit")}
    return {
        "git_sha": git_sha(),
        "image": os.environ.get("MLOPS_IMAGE", ""),
        "flow_run_id": str(flow_run.id or ""),
        "python": platform.python_version(),
        **{name: value for name, value in own.items() if value},
        **{f"lib.{name}": version(name) for name in LIBRARIES},
    }
