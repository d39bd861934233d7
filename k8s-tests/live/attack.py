"""What an attacker tries whose code runs in a training Job. It runs there, not here, and needs what is in that image.

Prints one line of JSON: what was tried -> how it ended; "DONE" where it succeeded.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

PREFECT = os.environ["PREFECT_API_URL"]
MLFLOW = f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow"
TARGETS: dict[str, list[Any]] = json.loads(sys.argv[1])  # what must not be reached: name -> [host, port]
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
IRIS = {"model": "iris", "version": "1"}


def _client(account: str) -> httpx.Client:
    user, _, password = account.partition(":")
    return httpx.Client(auth=(user, password), timeout=30)


prefect = _client(os.environ["PREFECT_API_AUTH_STRING"])
mlflow = _client(f"{os.environ['MLFLOW_TRACKING_USERNAME']}:{os.environ['MLFLOW_TRACKING_PASSWORD']}")


def _sent(client: httpx.Client, method: str, url: str, body: Any = None) -> str:
    answer = client.request(method, url, json=body)
    return f"{answer.status_code} {answer.text[:200]}" if answer.is_error else "DONE"


def _connected(host: str, port: int) -> str:
    socket.create_connection((host, port), timeout=3).close()
    return "DONE"


def _deployment(flow: str, name: str) -> str:
    return str(prefect.get(f"{PREFECT}/deployments/name/{flow}/{name}").raise_for_status().json()["id"])


def _start(flow: str, name: str, body: dict[str, Any]) -> str:
    return _sent(prefect, "POST", f"{PREFECT}/deployments/{_deployment(flow, name)}/create_flow_run", body)


def _written(path: str) -> str:
    Path(path).write_text("x")
    return "DONE"


def _ledger() -> str:
    found = mlflow.get(f"{MLFLOW}/experiments/get-by-name", params={"experiment_name": "promotions"}).raise_for_status()
    return _sent(
        mlflow, "POST", f"{MLFLOW}/runs/create", {"experiment_id": found.json()["experiment"]["experiment_id"]}
    )


def _secrets_of_others() -> str:
    """Passwords in the environment beyond the run's and the trainer's."""
    known = {"PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_PASSWORD"}
    words = ("PASSWORD", "TOKEN", "SECRET", "AUTH", "KEY")
    other = sorted(name for name in os.environ if any(word in name for word in words) and name not in known)
    return "DONE" if other else "none is there"


TRIES: dict[str, Callable[[], str]] = {
    "read the token of a service account": lambda: "DONE" if SERVICE_ACCOUNT.read_text() else "empty",
    "other passwords in the environment": _secrets_of_others,
    "write into the image": lambda: _written("/srv/flows/models/iris.py"),
    "write into /etc": lambda: _written("/etc/passwd"),
    "become root": lambda: os.setuid(0) or "DONE",  # type: ignore[func-returns-value]
    **{f"reach {name}": lambda to=to: _connected(*to) for name, to in TARGETS.items()},  # type: ignore[misc]
    "edit the work pool": lambda: _sent(prefect, "PATCH", f"{PREFECT}/work_pools/k8s", {"base_job_template": {}}),
    "make a work pool": lambda: _sent(prefect, "POST", f"{PREFECT}/work_pools/", {"name": "mine", "type": "process"}),
    "make a deployment": lambda: _sent(prefect, "POST", f"{PREFECT}/deployments/", {"name": "mine"}),
    "change a deployment": lambda: _sent(
        prefect, "PATCH", f"{PREFECT}/deployments/{_deployment('train', 'iris')}", {"job_variables": {"image": "mine"}}
    ),
    "start a pod of its own image": lambda: _start("promote", "promote", {"job_variables": {"image": "mine"}}),
    "start a rollback": lambda: _start("rollback", "rollback", {"parameters": {"model": "iris"}}),
    "promote another model": lambda: _start("promote", "promote", {"parameters": {**IRIS, "model": "diabetes"}}),
    "read Prefect's blocks": lambda: _sent(prefect, "POST", f"{PREFECT}/block_documents/filter", {}),
    "make an automation": lambda: _sent(prefect, "POST", f"{PREFECT}/automations/", {"name": "mine"}),
    "use Prefect without an account": lambda: _sent(httpx.Client(timeout=30), "GET", f"{PREFECT}/work_pools/k8s"),
    "move the alias production": lambda: _sent(
        mlflow, "POST", f"{MLFLOW}/registered-models/alias", {"name": "iris", "alias": "production", "version": "1"}
    ),
    "delete the alias production": lambda: _sent(
        mlflow, "DELETE", f"{MLFLOW}/registered-models/alias?name=iris&alias=production"
    ),
    "swap the files of a version": lambda: _sent(
        mlflow,
        "POST",
        f"{MLFLOW}/model-versions/set-tag",
        {"name": "iris", "version": "1", "key": "bundle_sha256", "value": "0" * 64},
    ),
    "delete a version": lambda: _sent(mlflow, "DELETE", f"{MLFLOW}/model-versions/delete?name=iris&version=1"),
    "write into the ledger": _ledger,
    "make an account": lambda: _sent(
        mlflow, "POST", f"{MLFLOW}/users/create", {"username": "me", "password": "x" * 20}
    ),
}


def main() -> None:
    """Try everything, and print how it ended."""
    ended = {}
    for what, attempt in TRIES.items():
        try:
            ended[what] = attempt()
        except (OSError, httpx.HTTPError) as error:
            ended[what] = f"{type(error).__name__}: {error}"
    print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    main()
