"""An MLflow server with the platform's accounts, as the chart runs it: prepared by images/mlflow, under its rules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from app.clients.mlflow import MlflowClient
from app.runtime.processes import Server, free_port, mlflow_server
from app.testing.docs import ROOT

ACCOUNTS = ("admin", "reader", "trainer", "gate")


def password(account: str) -> str:
    """The account's password on the test's server."""
    return f"password-of-{account}"


def server_with_accounts(folder: Path) -> Server:
    """The server, prepared and not yet started; it keeps everything in the folder."""
    port = free_port()
    command, env = mlflow_server(port, folder)
    image = ROOT / "images" / "mlflow"
    env |= {
        "PYTHONPATH": f"{image}{os.pathsep}{ROOT}",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-test",
        "MLFLOW_AUTH_ADMIN_PASSWORD": password("admin"),
    }
    preparation = {
        "MLOPS_AUTH_DATABASE_URI": f"sqlite:///{folder / 'basic_auth.db'}",
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder / 'mlflow.db'}",
        **{f"{account.upper()}_PASSWORD": password(account) for account in ACCOUNTS},
    }
    subprocess.run(  # noqa: S603
        [sys.executable, str(image / "prepare.py")], env={**os.environ, **env, **preparation}, check=True
    )
    return Server(
        "mlflow-with-accounts",
        [*command, "--app-name", "basic-auth"],
        f"http://127.0.0.1:{port}",
        "/health",
        env,
        folder,
    )


def client_of(server: Server, account: str) -> MlflowClient:
    """A client of the server under one of its accounts."""
    return MlflowClient(server.uri, account, password(account), timeout=30)
