"""The network of the platform: who reaches whom, and nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from namespace import IMAGE, RESTRICTED
from release import PORTS, Platform

# What listens, besides what people are shown: component -> port.
LISTENING = PORTS | {
    "prefect-worker": 4201,
    "traefik": 9000,
    "retrainer": 8090,
    "prometheus": 9090,
    "alertmanager": 9093,
    "kube-state-metrics": 8080,
}
# From -> the components it may reach. Whoever is not named may reach nothing.
EDGES = {
    "traefik": {"mlflow", "prefect-server", "model-api", "ui", "prometheus", "kubernetes"},
    "ui": {"mlflow", "model-api", "prometheus"},
    "model-api": {"mlflow"},
    "mlflow": set(),
    "prefect-server": set(),
    "prefect-worker": {"prefect-server", "model-api", "kubernetes"},
    "training": {"mlflow", "prefect-server"},
    "loop": {"mlflow", "prefect-server", "model-api", "prometheus"},
    "retrainer": {"mlflow", "prefect-server"},
    "alertmanager": {"retrainer"},
    "prometheus": {*LISTENING, "kubernetes"} - {"ui"},
    "operator": {"kubernetes"},
    "kube-state-metrics": {"kubernetes"},
    "stranger": set(),
    "nobody": set(),  # without labels
}
# Prints what of {name: [host, port]} can be connected to, after the policies have had time to be put in place for this
# pod: until then a connection may be refused that is allowed, and for the first moment the other way round.
PROBE = """
import json, socket, sys, time
targets, expected = json.loads(sys.argv[1]), set(json.loads(sys.argv[2]))
def reach():
    reached = set()
    for name, (host, port) in targets.items():
        try:
            socket.create_connection((host, port), timeout=1.5).close()
            reached.add(name)
        except OSError:
            pass
    return reached
deadline, same = time.monotonic() + 60, 0
while time.monotonic() < deadline and same < 2:
    reached = reach()
    same = same + 1 if reached == expected else 0
print(json.dumps(sorted(reached)))
"""


def targets(platform: Platform) -> dict[str, tuple[str, int]]:
    """Addresses rather than names: whether DNS may be asked is another edge."""
    addresses = {s.metadata.name: s.spec.cluster_ip for s in platform.core.list_namespaced_service(platform.name).items}
    addresses_by_name = {}
    for name, port in LISTENING.items():
        of_service = addresses.get(f"{platform.release}-{name}", "None")
        # a Service without an address, or one that does not serve this port, leaves the pod's
        direct = of_service == "None" or name == "traefik"
        addresses_by_name[name] = (platform.pods(name)[0].status.pod_ip if direct else of_service, port)
    api = platform.core.read_namespaced_service("kubernetes", "default").spec.cluster_ip
    return {**addresses_by_name, "kubernetes": (api, 443)}


@pytest.fixture(scope="module")
def reached(platform: Platform) -> Iterator[dict[str, set[str]]]:
    """For each source, what it reached: one pod each, with the labels of the source, all at once."""
    names = {source: f"reach-{source}" for source in EDGES}
    addresses = json.dumps(targets(platform))
    for source, name in names.items():
        labels = {"app.kubernetes.io/component": source, "app.kubernetes.io/instance": platform.release}
        if source == "nobody":
            labels.clear()
        if source in LISTENING:
            labels["mlops-test"] = "not-in-a-service"
        command = ["python3", "-c", PROBE, addresses, json.dumps(sorted(EDGES[source]))]
        container = {
            "name": "main",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": command,
            "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "1m"}},
            "securityContext": RESTRICTED,
            # never ready: a Service must not send it requests that are meant for the real pods
            "readinessProbe": {"exec": {"command": ["false"]}},
        }
        spec = {"containers": [container], "restartPolicy": "Never", "enableServiceLinks": False}
        platform.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})
    try:
        for name in names.values():
            assert platform.finished(name) == "Succeeded", platform.logs(name)
        yield {source: set(json.loads(platform.logs(name))) for source, name in names.items()}
    finally:
        for name in names.values():
            platform.core.delete_namespaced_pod(name, platform.name, grace_period_seconds=0)


@pytest.mark.parametrize("source", EDGES)
def test_the_network_has_these_edges_and_no_other(source: str, reached: dict[str, set[str]]) -> None:
    assert reached[source] == EDGES[source]


def test_another_namespace_reaches_nothing(platform: Platform, namespace: Any) -> None:
    printed = namespace.output(
        "stranger",
        PROBE.replace("sys.argv[1]", repr(json.dumps(targets(platform)))).replace("sys.argv[2]", "'[\"kubernetes\"]'"),
    )
    assert set(json.loads(printed)) - {"kubernetes"} == set()
