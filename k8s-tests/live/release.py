"""The platform as it is installed on the cluster, and what tests ask of it."""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from kubernetes import client
from kubernetes.client.exceptions import NotFoundException
from namespace import Namespace, wait_for

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = os.environ.get("KUBE_CONTEXT", "kind-mlops")
CHART = "charts/platform"
INGRESS = "http://127.0.0.1:8080"
ACCOUNTS = {
    "mlflow": "mlflow-admin-password",
    "prefect": "prefect-auth-string",
    # who has no accounts of its own: Traefik asks
    **dict.fromkeys(("prometheus", "ui", "docs"), "pages-password"),
}
SERVICES = ("mlflow", "prefect-server", "prefect-worker", "model-api", "ui", "traefik")
PORTS = {"mlflow": 5000, "prefect-server": 4200, "model-api": 8086, "ui": 8501}


def run(command: list[str], seconds: float = 600, env: dict[str, str] | None = None) -> str:
    """What a command prints, run in the repository's root. The test fails with all of it when the command does."""
    merged = {**os.environ, **(env or {})}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, env=merged)
    assert result.returncode == 0, f"{shlex.join(command)}\n{result.stdout}{result.stderr}"
    return result.stdout


@dataclass
class Platform(Namespace):
    """The release `mlops` in the namespace `mlops`."""

    release: str = "mlops"

    @property
    def namespace(self) -> str:
        """The name of the namespace that the release is in."""
        return self.name

    @property
    def installed(self) -> bool:
        """Whether Helm knows the release as deployed."""
        listed = subprocess.run(self._helm("status", self.release), cwd=ROOT, capture_output=True, text=True)
        return listed.returncode == 0 and "STATUS: deployed" in listed.stdout

    @cached_property
    def credentials(self) -> dict[str, str]:
        """The Secret with all passwords and keys, decoded."""
        secret = self.core.read_namespaced_secret(f"{self.release}-credentials", self.name).data
        return {key: base64.b64decode(value).decode() for key, value in secret.items()}

    def password(self, name: str) -> str:
        """The password of the account admin at a page: mlflow, prefect, prometheus, ui, or the API's docs."""
        return self.credentials[ACCOUNTS[name]].removeprefix("admin:")

    def client(self, name: str, account: bool = True) -> httpx.Client:
        """A client of mlflow, prefect, api or ui through the ingress, by default with the admin's account or key."""
        auth = ("admin", self.password(name)) if account and name in ACCOUNTS else None
        # the name goes into the header, as Python's resolver does not know *.localhost
        headers = {"Host": f"{name}.localhost:8080"}
        if account and name == "api" and (key := self.credentials.get("api-key")):  # 0.1.0 had none
            headers["Authorization"] = f"Bearer {key}"
        return httpx.Client(base_url=INGRESS, headers=headers, auth=auth, timeout=30)

    def pods(self, component: str) -> list[Any]:
        """The release's pods of a component, such as model-api."""
        labels = f"app.kubernetes.io/component={component},app.kubernetes.io/instance={self.release}"
        return list(self.core.list_namespaced_pod(self.name, label_selector=labels).items)

    def deployments(self) -> list[Any]:
        """The release's Deployments."""
        labels = f"app.kubernetes.io/instance={self.release}"
        return list(client.AppsV1Api(self.api).list_namespaced_deployment(self.name, label_selector=labels).items)

    def refusal(self, component: str) -> str:
        """Why a component's container `prepare` ended, as `kubectl describe pod` shows it; "" where it did not fail."""
        for pod in self.pods(component):
            for status in pod.status.init_container_statuses or []:
                for state in (status.state.terminated, status.last_state.terminated):
                    if state and state.exit_code:
                        return str(state.message)
        return ""

    def ready(self, seconds: float = 300) -> None:
        """Wait until every Deployment has all its pods, of its newest revision."""

        def are_complete() -> bool:
            deployments = self.deployments()
            return bool(deployments) and all(
                d.status.observed_generation >= d.metadata.generation
                and (d.status.updated_replicas or 0) == d.spec.replicas == (d.status.available_replicas or 0)
                and d.status.replicas == d.spec.replicas
                for d in deployments
            )

        wait_for(are_complete, f"the Deployments of {self.release}", seconds)

    def helm(self, command: str, *arguments: str, seconds: float = 600) -> str:
        """What `helm COMMAND ... -n mlops` prints."""
        return run(self._helm(command, *arguments), seconds)

    def _helm(self, command: str, *arguments: str) -> list[str]:
        return ["helm", command, *arguments, "--namespace", self.name, "--kube-context", CONTEXT]


def uninstall(platform: Platform, values: Path) -> None:
    """Remove the release. Its values are written down: what `make up` chose, such as no Grafana without its image."""
    values.write_text(platform.helm("get", "values", platform.release, "--output", "json"))
    platform.helm("uninstall", platform.release, "--wait")
    wait_for(lambda: not [p for p in SERVICES if platform.pods(p)], "no pod of the release is left")


def install(platform: Platform, chart: str, values: Path, *options: str) -> None:
    """Install a chart, and wait until everything is ready."""
    options = ("--values", str(values), "--create-namespace", "--wait", "--timeout", "5m", *options)
    platform.helm("install", platform.release, chart, *options)
    platform.ready()


@contextmanager
def in_place_of(platform: Platform, name: str, folder: Path) -> Iterator[tuple[Platform, Path]]:
    """Another platform, not installed yet, in a namespace of its own, and the values of the one whose place it takes.

    For want of CPU they are not there together. Afterwards the other is removed, and the platform is back.
    """
    values = folder / "values.json"
    uninstall(platform, values)
    other = Platform(name, platform.api)
    try:
        yield other, values
    finally:
        other.helm("uninstall", other.release, "--ignore-not-found")  # what is not in the namespace, too
        with suppress(NotFoundException):  # it was never installed
            other.core.delete_namespace(other.name)
        wait_for(
            lambda: other.name not in [namespace.metadata.name for namespace in other.core.list_namespace().items],
            "the port of the node is free again",
            180,
        )
        install(platform, CHART, values)
