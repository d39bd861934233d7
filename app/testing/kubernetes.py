"""A stand-in for the Kubernetes API, for what app/clients/kubernetes.py asks: Secrets and their versions; restarts."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

Answer = tuple[int, dict[str, Any]]


@dataclass
class FakeKubernetes:
    """What is in its one namespace, `team`.

    Attributes:
        secrets, deployments, statefulsets, pods: the objects by name, as in YAML.
        refused: requests, such as "PATCH deployments", that are answered by 403.
        together: where the first reads of a Secret wait for each other, so that all callers see the same.
    """

    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    deployments: dict[str, dict[str, Any]] = field(default_factory=dict)
    statefulsets: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    together: threading.Barrier | None = None
    conflicts: int = 0
    reads: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add_secret(self, name: str, values: dict[str, str], owner: str = "") -> None:
        """A Secret with these values, kept by an ExternalSecret where `owner` names one."""
        owners = [{"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "name": owner, "uid": "1"}]
        metadata = {"name": name, "resourceVersion": "1", "ownerReferences": owners if owner else []}
        self.secrets[name] = {"metadata": metadata, "data": _encoded(values)}

    def values(self, name: str) -> dict[str, str]:
        """The values of a Secret."""
        return {key: base64.b64decode(value).decode() for key, value in self.secrets[name]["data"].items()}

    def add_workload(self, kind: str, name: str, reads: dict[str, str], claim: str = "") -> None:
        """A workload of `deployments` or `statefulsets`. reads: key -> Secret; claim: its volume, "" for none."""
        env = [{"name": key, "valueFrom": {"secretKeyRef": {"name": of, "key": key}}} for key, of in reads.items()]
        env.append({"name": "PLAIN", "value": "x"})
        pod: dict[str, Any] = {"containers": [{"name": "main", "env": env}]}
        if claim:
            pod["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
        selector = {"matchLabels": {"app": name}}
        spec = {"selector": selector, "serviceName": name, "template": {"metadata": {}, "spec": pod}}
        getattr(self, kind)[name] = {"metadata": {"name": name}, "spec": spec}

    def restarted(self) -> set[str]:
        """The names of the workloads that were restarted."""
        everything = {**self.deployments, **self.statefulsets}
        return {name for name, item in everything.items() if item["spec"]["template"]["metadata"].get("annotations")}

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        """Status and body of the answer to a request."""
        words = path.partition("/namespaces/team/")[2].split("/")
        kind, name = words[0], words[1] if len(words) > 1 else ""
        if f"{method} {kind}" in self.refused:
            return _status(403, f"{kind} is forbidden")
        if kind == "secrets" and method == "GET" and self.together:
            with self.lock:
                found, self.reads = self._secret(method, name, body), self.reads + 1
                early = self.reads <= self.together.parties
            if early:
                self.together.wait(10)
            return found
        with self.lock:
            if kind == "secrets":
                return self._secret(method, name, body)
            objects = getattr(self, kind)
            if method == "PATCH":
                metadata = body["spec"]["template"]["metadata"]
                objects[name]["spec"]["template"]["metadata"].update(metadata)
            return 200, objects[name] if name else {"items": list(objects.values())}

    def _secret(self, method: str, name: str, body: dict[str, Any]) -> Answer:
        if method == "POST":
            name = body["metadata"]["name"]
            if name in self.secrets:
                self.conflicts += 1
                return _status(409, f'secrets "{name}" already exists')
            self.secrets[name] = {
                "metadata": {**body["metadata"], "resourceVersion": "1"},
                "data": _encoded(body["stringData"]),
            }
        if name not in self.secrets:
            return _status(404, f'secrets "{name}" not found')
        secret = self.secrets[name]
        if method == "PATCH":
            version = secret["metadata"]["resourceVersion"]
            if body["metadata"]["resourceVersion"] != version:
                self.conflicts += 1
                return _status(409, "the object has been modified")
            secret["data"].update(body["data"])
            secret["metadata"]["resourceVersion"] = str(int(version) + 1)
        return 200, json.loads(json.dumps(secret))


def _encoded(values: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


def _status(code: int, message: str) -> Answer:
    return code, {"kind": "Status", "code": code, "message": message}


@contextmanager
def fake_kubernetes(kubeconfig: Path, port: int = 0) -> Iterator[FakeKubernetes]:
    """Serve a stand-in, on a free port unless one is given, and write the kubeconfig by which it is reached."""
    fake = FakeKubernetes()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
            status, content = fake.answer(self.command, self.path, body)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = _serve

        def log_message(self, *_: Any) -> None:
            """Nothing: pytest shows what matters."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    write_kubeconfig(kubeconfig, f"http://127.0.0.1:{server.server_port}")
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_kubeconfig(path: Path, url: str) -> None:
    """A kubeconfig with the one context `fake`, without an account."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "fake", "user": {}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
    }
    path.write_text(yaml.safe_dump(content))
