"""The model API as a process of its own, as users run it."""

from __future__ import annotations

from pathlib import Path

from app.runtime.processes import Server, free_port
from app.testing.model_api import KEY


def api_server(mlflow_uri: str, folder: Path, health: str = "/livez", **env: str) -> Server:
    """A model API on a free port, which is not started yet.

    Args:
        mlflow_uri: the MLflow that it follows.
        folder: for its log and, in the subfolder cache, the models it has.
        health: the path that answers 2xx once the API is up: /livez, or /readyz to wait for a model too.
        env: further environment variables.
    """
    port = free_port()
    values = {
        "MLFLOW_TRACKING_URI": mlflow_uri,
        "MLOPS_PORT": str(port),
        "MLOPS_CACHE_DIR": str(folder / "cache"),
        "MLOPS_POLL_SECONDS": "0.2",
        "MLOPS_FEEDBACK_KEY": KEY,
    }
    return Server("api", ["app.api"], f"http://127.0.0.1:{port}", health, values | env, folder)
