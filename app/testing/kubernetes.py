"""A stand-in for the Kubernetes API, for what app/clients asks: Secrets; restarts; Jobs of CronJobs."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Answer = tuple[int, Any]
COMPONENT = "app.kubernetes.io/component"


@dataclass
class FakeKubernetes:
    """What is in its one namespace, `team`.

    Attributes:
        secrets, deployments, statefulsets, pods: the objects by name, as in YAML.
        refused: requests, such as "PATCH deployments", that are answered by 403.
        cronjobs: by name; what a Job made of one does: run_job(container) gives its exit code and what it printed.
        together: where the first reads of a Secret wait for each other, so that all callers see the same.
    """

    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    deployments: dict[str, dict[str, Any]] = field(default_factory=dict)
    statefulsets: dict[str, dict[str, Any]] = field(default_factory=dict)
    cronjobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[str, tuple[int, str]] = field(default_factory=dict)
    run_job: Callable[[dict[str, Any]], tuple[int, str]] = lambda _: (0, "")
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

    def add_workload(self, kind: str, name: str, reads: dict[str, str], claim: str = "", mounts: str = "") -> None:
        """A workload of `deployments` or `statefulsets`.

        Args:
            reads: key -> Secret of its variables.
            claim: its volume, "" for none.
            mounts: a Secret that it has as files, "" for none.
        """
        env = [{"name": key, "valueFrom": {"secretKeyRef": {"name": of, "key": key}}} for key, of in reads.items()]
        env.append({"name": "PLAIN", "value": "x"})
        pod: dict[str, Any] = {"containers": [{"name": "main", "env": env}]}
        if claim:
            pod["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
        if mounts:
            sources = [{"configMap": {"name": "x"}}, {"secret": {"name": mounts, "optional": True}}]
            pod["volumes"] = [*pod.get("volumes", []), {"name": "files", "projected": {"sources": sources}}]
        selector = {"matchLabels": {"app": name}}
        spec = {"selector": selector, "serviceName": name, "replicas": 1, "template": {"metadata": {}, "spec": pod}}
        metadata = {"name": name, "generation": 1, "labels": {COMPONENT: name.removeprefix("mlops-")}}
        getattr(self, kind)[name] = {"metadata": metadata, "spec": spec}

    def add_cron_job(self, name: str, env: dict[str, str]) -> None:
        """A CronJob whose container has these variables."""
        container = {"name": "main", "env": [{"name": key, "value": value} for key, value in env.items()]}
        template = {"metadata": {}, "spec": {"containers": [container], "restartPolicy": "Never"}}
        spec = {"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}
        self.cronjobs[name] = {"metadata": {"name": name}, "spec": spec}

    def restarted(self) -> set[str]:
        """The names of the workloads that were restarted."""
        everything = {**self.deployments, **self.statefulsets}
        return {name for name, item in everything.items() if item["spec"]["template"]["metadata"].get("annotations")}

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        """Status and body of the answer to a request."""
        parts = urlsplit(path)
        words = parts.path.partition("/namespaces/team/")[2].split("/")
        selector = dict(
            pair.split("=") for pair in parse_qs(parts.query).get("labelSelector", [""])[0].split(",") if pair
        )
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
        if kind == "jobs" and method == "POST":
            (container,) = body["spec"]["template"]["spec"]["containers"]
            self.jobs[body["metadata"]["name"]] = self.run_job(container)
            return 201, body
        with self.lock:
            if kind == "secrets":
                return self._secret(method, name, body)
            if kind == "jobs":
                return self._job(method, name)
            if kind == "pods":
                return self._pods(words, selector)
            objects = getattr(self, kind)
            if method == "PATCH":
                _patch(objects[name], body)
            wanted = selector.get(COMPONENT)
            if name:
                return 200, objects[name] | {"status": _status_of(objects[name])}
            has = [
                o
                for o in objects.values()
                if kind == "cronjobs" or o["metadata"]["labels"][COMPONENT] == wanted or not wanted
            ]
            return 200, {"items": has}

    def _job(self, method: str, name: str) -> Answer:
        if name not in self.jobs:
            return _status(404, f'jobs "{name}" not found')
        code, _ = self.jobs[name]
        end = {
            "type": "Failed" if code else "Complete",
            "status": "True",
            "reason": "BackoffLimitExceeded",
            "message": "x",
        }
        return 200, {"metadata": {"name": name}, "status": {"conditions": [end]}}

    def _pods(self, words: list[str], selector: dict[str, str]) -> Answer:
        if words[-1] == "log":
            output = self.jobs[words[1]][1]
            return (200, output) if output else _status(400, "the container is waiting to start")
        if not selector:
            return 200, {"items": list(self.pods.values())}
        if job := selector.get("batch.kubernetes.io/job-name"):
            return 200, {"items": [{"metadata": {"name": job}, "status": {"phase": "Succeeded"}}]}
        deployments = [
            d for d in self.deployments.values() if d["metadata"]["labels"][COMPONENT] == selector[COMPONENT]
        ]
        return 200, {"items": [{"metadata": {"name": "p"}} for d in deployments if d["spec"]["replicas"]]}

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
            merged = {**secret["data"], **body["data"]}
            secret["data"] = {key: value for key, value in merged.items() if value is not None}
            secret["metadata"]["resourceVersion"] = str(int(version) + 1)
        return 200, json.loads(json.dumps(secret))


def _patch(item: dict[str, Any], body: dict[str, Any]) -> None:
    annotations = item["metadata"].setdefault("annotations", {})
    annotations.update(body.get("metadata", {}).get("annotations", {}))
    item["metadata"]["annotations"] = {key: value for key, value in annotations.items() if value is not None}
    spec = body.get("spec", {})
    item["spec"]["replicas"] = spec.get("replicas", item["spec"]["replicas"])
    item["spec"]["template"]["metadata"].update(spec.get("template", {}).get("metadata", {}))


def _status_of(item: dict[str, Any]) -> dict[str, Any]:
    replicas = item["spec"].get("replicas", 1)
    return {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas}


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
            is_text = isinstance(content, str)
            data = content.encode() if is_text else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "text/plain" if is_text else "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve

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
