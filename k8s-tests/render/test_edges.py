"""Who may connect to whom: the table of docs/security.md, and not one connection more."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from chart import Manifest, containers, operated, pods, render_chart
from network import Edge, Party, edges
from profiles import PROFILES

API = 8086
# The Job that makes the Secret, and the Kubernetes API, wherever that is.
CREDENTIALS: set[Edge] = {
    ("credentials", "dns", 53),
    ("credentials", "outside", 443),
    ("credentials", "data", 443),
}
# Others that could be connected to, or try to: with a port each that stands for all of theirs.
DNS = Party("dns", (53,), {"k8s-app": "kube-dns"}, "kube-system")
DATA = Party("data", (80, 443, 5432), address="203.0.113.5")  # in the egressCIDRs of some profiles
STRANGERS = (
    DNS,
    Party("neighbour", (80,), {"app": "theirs"}),  # in the same namespace, of no release
    Party("elsewhere", (80,), {"app": "theirs"}, "theirs"),
    Party("controller", (80,), {"app": "nginx"}, "nginx"),
    Party("stack", (80,), {"app": "prometheus"}, "observability"),
    Party("outside", (80, 443), address="198.51.100.7"),
    DATA,
)
FREE = {party.name for party in STRANGERS}
TARGETS = (
    *(("model-api", API), ("mlflow", 5000), ("prefect-server", 4200), ("prefect-worker", 4201), ("retrainer", 8090)),
)
EVERYBODY = ("mlflow", "prefect-server", "prefect-worker", "training", "loop", "model-api", "ui", "retrainer")

COMMON: set[Edge] = {
    *(("ui", "mlflow", 5000), ("ui", "model-api", API), ("model-api", "mlflow", 5000)),
    *(("training", "prefect-server", 4200), ("training", "mlflow", 5000)),
    *(("loop", "prefect-server", 4200), ("loop", "mlflow", 5000), ("loop", "model-api", API)),
    *(("prefect-worker", "prefect-server", 4200), ("prefect-worker", "model-api", API)),
    *(("retrainer", "prefect-server", 4200), ("retrainer", "mlflow", 5000)),
    # the Kubernetes API, wherever that is
    *(("prefect-worker", "outside", 443), ("prefect-worker", "data", 443)),
    *((name, "dns", 53) for name in EVERYBODY),
}
WAYS_IN = (("mlflow", 5000), ("prefect-server", 4200), ("model-api", API), ("ui", 8501), ("grafana", 3000))
TRAEFIK: set[Edge] = {
    *(("traefik", name, port) for name, port in WAYS_IN),
    *((name, "traefik", port) for name in FREE for port in (8000, 8443)),
    *(("traefik", "dns", 53), ("traefik", "prometheus", 9090), ("prometheus", "traefik", 9000)),
    # the Kubernetes API, wherever that is
    *(("traefik", "outside", 443), ("traefik", "data", 443)),
}
GRAFANA: set[Edge] = {("grafana", "dns", 53)}
MONITORING: set[Edge] = {
    *(("prometheus", name, port) for name, port in (*TARGETS, ("alertmanager", 9093), ("kube-state-metrics", 8080))),
    *(
        ("grafana", "prometheus", 9090),
        ("ui", "prometheus", 9090),
        ("loop", "prometheus", 9090),
        ("alertmanager", "retrainer", 8090),
    ),
    *((name, "dns", 53) for name in ("operator", "prometheus", "alertmanager", "kube-state-metrics")),
    # the Kubernetes API, wherever that is
    *((name, "outside", 443) for name in ("operator", "prometheus", "kube-state-metrics")),
    *((name, "data", 443) for name in ("operator", "prometheus", "kube-state-metrics")),
}
ALL: set[Edge] = COMMON | CREDENTIALS | MONITORING | TRAEFIK | GRAFANA
POSTGRES: set[Edge] = {("mlflow", "postgres", 5432), ("prefect-server", "postgres", 5432)}
EXPECTED: dict[str, set[Edge]] = {
    "defaults": ALL,
    "postgres": ALL | POSTGRES,
    # S3 is AWS', and Redis where `egressCIDRs` says
    "replicas": ALL | POSTGRES | {(name, "data", port) for name in ("mlflow", "prefect-server") for port in DATA.ports},
    "external": COMMON
    | GRAFANA
    | {("stack", name, port) for name, port in TARGETS}
    | {("controller", name, port) for name, port in WAYS_IN}
    # grafana.prometheusUrl is outside, wherever that is
    | {("grafana", "outside", 443), ("grafana", "data", 443)}
    | {("mlflow", "data", port) for port in (80, 443, 5432)}
    # jobs.egressCIDRs is 0.0.0.0/0: anywhere, but for the pods of the platform
    | {("training", party.name, port) for party in STRANGERS for port in party.ports},
    "development": {edge for edge in COMMON | CREDENTIALS if "retrainer" not in edge},
}


def parties(manifests: list[Manifest]) -> list[Party]:
    """The pods of a profile, by component, and the strangers."""
    own_parties = []
    for pod in (pods(manifests) | operated(manifests)).values():
        labels = pod["metadata"]["labels"]
        ports = {port["containerPort"] for container in containers(pod) for port in container.get("ports", [])}
        own_parties.append(Party(labels["app.kubernetes.io/component"], tuple(sorted(ports)), labels))
    return [*own_parties, *STRANGERS]


def allowed(manifests: list[Manifest]) -> set[Edge]:
    """The connections that the policies allow, but for those among strangers."""
    policies = [m for m in manifests if m["kind"] == "NetworkPolicy"]
    return {edge for edge in edges(policies, parties(manifests)) if not {edge[0], edge[1]} <= FREE}


def test_connections_are_those_of_the_table(profile: str, manifests: list[Manifest]) -> None:
    connections = allowed(manifests)
    assert not connections - EXPECTED[profile], "allowed, and in no table"
    assert not EXPECTED[profile] - connections, "denied, and needed"


def test_names_are_asked_for_by_udp_and_tcp(manifests: list[Manifest]) -> None:
    for policy in (m for m in manifests if m["kind"] == "NetworkPolicy"):
        for rule in policy["spec"].get("egress") or []:
            ports = [(port["port"], port["protocol"]) for port in rule.get("ports", [])]
            if 53 in dict(ports):
                assert ports == [(53, "UDP"), (53, "TCP")], f"{policy['metadata']['name']}: spec.egress {ports}"


def test_every_profile_has_a_table() -> None:
    assert set(EXPECTED) == set(PROFILES)


def _policy(manifests: list[Manifest], name: str) -> Any:
    (policy,) = [m for m in manifests if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] == f"mlops-{name}"]
    return policy["spec"]


@pytest.mark.parametrize(
    ("name", "direction", "rule", "opened"),
    [
        ("mlflow", "ingress", {}, ("neighbour", "mlflow", 5000)),
        ("mlflow", "ingress", {"from": [{"podSelector": {}}]}, ("neighbour", "mlflow", 5000)),
        ("mlflow", "ingress", {"from": [{"namespaceSelector": {}}]}, ("elsewhere", "mlflow", 5000)),
        ("mlflow", "ingress", {"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}, ("outside", "mlflow", 5000)),
        ("ui", "egress", {}, ("ui", "outside", 443)),
        ("training", "egress", {"ports": [{"port": 443}]}, ("training", "data", 443)),
    ],
)
def test_a_policy_that_is_too_wide_is_seen(name: str, direction: str, rule: dict[str, Any], opened: Edge) -> None:
    manifests = copy.deepcopy(render_chart())
    assert opened not in allowed(manifests)
    _policy(manifests, name)[direction].append(rule)
    assert opened in allowed(manifests)


def test_without_the_default_deny_or_a_type_more_is_allowed() -> None:
    manifests = copy.deepcopy(render_chart())
    _policy(manifests, "ui")["policyTypes"] = ["Ingress"]
    assert ("ui", "outside", 443) not in allowed(manifests), "the default deny is about this pod, too"
    _policy(manifests, "default-deny")["policyTypes"] = ["Ingress"]
    assert ("ui", "outside", 443) in allowed(manifests)
