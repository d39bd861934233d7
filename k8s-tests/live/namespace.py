"""A namespace of the cluster and what tests do in it; waiting for a condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from kubernetes import client, utils
from kubernetes.client.exceptions import ApiException

from app.runtime.waiting import wait_until
from images import build

IMAGE = build.tag("python")
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}
T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], what: str | Callable[[], str], seconds: float = 90) -> T:
    """Ask until the answer is true, and return it. The test fails when it is not in time.

    Args:
        what: what is waited for, for the failure, which has the last answer too; a function is called then.
    """
    last: list[T | None] = []

    def answer() -> T | None:
        last[:] = [condition()]
        return last[0]

    try:
        return wait_until(answer, seconds, what, pause=0.5)
    except TimeoutError as error:
        pytest.fail(f"{error}; last answer: {last[0]!r}")


@dataclass
class Namespace:
    """A namespace of the cluster and what tests do in it. Manifests are plain dicts, as in YAML."""

    name: str
    api: client.ApiClient

    @property
    def core(self) -> client.CoreV1Api:
        """The client of pods, Services, Secrets and the like."""
        return client.CoreV1Api(self.api)

    def create(self, manifest: dict[str, Any]) -> None:
        """Create an object in this namespace."""
        manifest.setdefault("metadata", {})["namespace"] = self.name
        utils.create_from_dict(self.api, manifest, namespace=self.name)

    def pod(
        self,
        name: str,
        command: list[str],
        *,
        labels: dict[str, str] | None = None,
        node: str = "",
        memory: str = "128Mi",
        claim: str = "",
        security: dict[str, Any] | None = None,
        image: str = IMAGE,
    ) -> None:
        """Create a pod that runs a command once.

        Args:
            node: the node's name, where it must be a certain one.
            memory: its limit.
            claim: a PersistentVolumeClaim, whose volume is /data.
            security: the container's securityContext, in place of the restricted one.
        """
        container: dict[str, Any] = {
            "name": "main",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": command,
            "resources": {"limits": {"memory": memory}},
            "securityContext": RESTRICTED if security is None else security,
        }
        spec: dict[str, Any] = {
            "containers": [container],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": False,
            "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}],
        }
        if node:
            spec["nodeSelector"] = {"kubernetes.io/hostname": node}
        if claim:
            spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
            container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        self.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}}, "spec": spec}
        )

    def status(self, pod: str) -> Any:
        """The pod's status as Kubernetes has it."""
        return self.core.read_namespaced_pod_status(pod, self.name).status

    def finished(self, pod: str) -> str:
        """Wait until a pod has ended; its phase, Succeeded or Failed."""
        return wait_for(
            lambda: (phase := self.status(pod).phase) in ("Succeeded", "Failed") and phase, f"the end of pod {pod}"
        )

    def address(self, pod: str) -> str:
        """Wait until a pod runs; its IP address."""
        wait_for(lambda: self.status(pod).phase == "Running", f"pod {pod} running")
        return str(self.status(pod).pod_ip)

    def logs(self, pod: str) -> str:
        """What the pod's container has printed so far."""
        return str(self.core.read_namespaced_pod_log(pod, self.name))

    def output(self, pod: str, code: str, **options: Any) -> str:
        """Run Python code in a pod of its own to its end; what it printed. Fails when the code fails."""
        self.pod(pod, ["python3", "-uc", code], **options)
        phase = self.finished(pod)
        printed = self.logs(pod)
        assert phase == "Succeeded", f"pod {pod}: {printed}"
        return printed.strip()

    def serve(self, pod: str, text: str, **options: Any) -> str:
        """A pod that answers every GET on port 8080 with a text and the caller's address; the pod's address."""
        code = f"""
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(f"{text} {{self.client_address[0]}}".encode())
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
        self.pod(pod, ["python3", "-uc", code], **options)
        return self.address(pod)

    def report(self) -> str:
        """What there is to know of a namespace after a failure: pods, their containers, events, last log lines."""
        lines = [f"=== namespace {self.name}"]
        for pod in self.core.list_namespaced_pod(self.name).items:
            lines.append(f"--- pod {pod.metadata.name} on {pod.spec.node_name}: {pod.status.phase}")
            for container in pod.status.container_statuses or []:
                lines.append(f"    {container.name}: ready={container.ready} restarts={container.restart_count}")
                lines.append(f"    state: {_compact(container.state)}  last: {_compact(container.last_state)}")
            try:
                log = self.core.read_namespaced_pod_log(pod.metadata.name, self.name, tail_lines=30)
                lines += [f"    | {line}" for line in (log or "").splitlines()]
            except ApiException as error:
                lines.append(f"    | no log: {error.reason}")
        lines.append("--- events")
        for event in self.core.list_namespaced_event(self.name).items:
            about = event.involved_object
            lines.append(f"    {event.type} {event.reason} {about.kind}/{about.name}: {event.message}")
        return "\n".join(lines)


def _compact(state: Any) -> str:
    return str({key: value for key, value in (state.to_dict() if state else {}).items() if value})
