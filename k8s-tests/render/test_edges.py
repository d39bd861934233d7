"""Who may connect to whom: the table of docs/security.md, and not one connection more."""

from __future__ import annotations

import copy
import ipaddress
from typing import Any

import pytest
import yaml
from chart import Loader, Manifest, containers, operated, pods, render_chart, template
from network import Edge, Party, edges
from profiles import PROFILES

API, GRPC = 8086, 8087
SHARED = {"global": {"networkPolicy": {"wholeNamespace": False}}}  # with the neighbour
# Where clouds hand a machine its rights: no pod reaches them.
METADATA = ("169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254")


def asks_kubernetes(*names: str) -> set[Edge]:
    """Edges to the Kubernetes API. Its address is not known here, so it is any of a private network, on its ports."""
    return {
        (name, *target) for name in names for target in (("kubernetes", 443), ("kubernetes", 6443), ("intranet", 443))
    }


CREDENTIALS: set[Edge] = {("credentials", "dns", 53), *asks_kubernetes("credentials")}
# Others that could be connected to, or try to: with a port each that stands for all of theirs.
DNS = Party("dns", (53,), {"k8s-app": "kube-dns"}, "kube-system")
DATA = Party("data", (80, 443, 5432), address="203.0.113.5")  # in the egressCIDRs of some profiles
STRANGERS = (
    DNS,
    Party("neighbour", (80,), {"app": "theirs"}),  # in the same namespace, of no release: cut off
    Party("elsewhere", (80,), {"app": "theirs"}, "theirs"),
    Party("controller", (80,), {"app": "nginx"}, "nginx"),
    Party("stack", (80,), {"app": "prometheus"}, "observability"),
    Party("outside", (80, 443), address="198.51.100.7"),
    DATA,
    Party("kubernetes", (443, 6443), address="172.18.0.2"),
    Party("node", (22, 10250), address="172.18.0.3"),
    Party("intranet", (80, 443), address="192.168.7.7"),
    Party("metadata", (80, 443), address=METADATA[0]),
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
    *asks_kubernetes("prefect-worker"),
    *((name, "dns", 53) for name in EVERYBODY),
}
WAYS_IN = (("mlflow", 5000), ("prefect-server", 4200), ("model-api", API), ("ui", 8501), ("grafana", 3000))
TRAEFIK: set[Edge] = {
    *(("traefik", name, port) for name, port in WAYS_IN),
    *((name, "traefik", port) for name in FREE - {"neighbour"} for port in (8000, 8443)),
    *(("traefik", "dns", 53), ("traefik", "prometheus", 9090), ("prometheus", "traefik", 9000)),
    *asks_kubernetes("traefik"),
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
    *asks_kubernetes("operator", "prometheus", "kube-state-metrics"),
    ("prometheus", "node", 10250),
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
    | {("controller", name, port) for name, port in (*WAYS_IN, ("model-api", GRPC))}
    # grafana.prometheusUrl is outside, wherever that is
    | {("grafana", name, 443) for name in ("outside", "data", "kubernetes", "intranet")}
    | {("mlflow", "data", port) for port in (80, 443, 5432)}
    # jobs.egressCIDRs is 0.0.0.0/0: anywhere, but for the pods of the namespace and what a cloud tells its machines
    | {
        ("training", party.name, port)
        for party in STRANGERS
        if party.name not in ("neighbour", "metadata")
        for port in party.ports
    },
    "development": {edge for edge in COMMON | CREDENTIALS if "retrainer" not in edge},
    # onto its volume a backup needs no network
    "backup": {edge for edge in COMMON | CREDENTIALS if "retrainer" not in edge},
    "backup of postgres": {edge for edge in COMMON | CREDENTIALS | POSTGRES if "retrainer" not in edge}
    | {("backup", "postgres", 5432), ("backup", "dns", 53)},
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
    return {edge for edge in edges(policies(manifests), parties(manifests)) if not {edge[0], edge[1]} <= FREE}


def test_connections_are_those_of_the_table(profile: str, manifests: list[Manifest]) -> None:
    connections = allowed(manifests)
    assert not connections - EXPECTED[profile], "allowed, and in no table"
    assert not EXPECTED[profile] - connections, "denied, and needed"


def policies(manifests: list[Manifest]) -> list[Manifest]:
    return [m for m in manifests if m["kind"] == "NetworkPolicy"]


def blocks(policy: Manifest) -> list[Any]:
    """The addresses that a policy's egress rules name. Fails where a rule names nobody, which is everybody."""
    rules = policy["spec"].get("egress") or []
    assert all(rule.get("to") for rule in rules), f"{policy['metadata']['name']}: egress to anywhere"
    return [peer["ipBlock"] for rule in rules for peer in rule["to"] if "ipBlock" in peer]


def test_no_egress_is_open_to_any_address(profile: str, manifests: list[Manifest]) -> None:
    """But for jobs.egressCIDRs and grafana.prometheusUrl of the profile that says so."""
    wide = {p["metadata"]["name"] for p in policies(manifests) for block in blocks(p) if block["cidr"].endswith("/0")}
    assert wide == ({"mlops-training", "mlops-grafana"} if profile == "external" else set())


WIDE = ["0.0.0.0/0", "0.0.0.0/1", "100.64.0.0/10", "128.0.0.0/1", "168.0.0.0/6", "169.254.0.0/16", "169.254.168.0/22"]
WIDE += ["::/0", "fc00::/7", "fd00::/8"]


def test_no_setting_opens_the_way_to_a_clouds_metadata() -> None:
    slack = {"existingSecret": "slack", "key": "url", "channel": "#ml"}
    values: dict[str, Any] = {
        "global": {"networkPolicy": {"apiServer": {"cidrs": WIDE}}},
        "prefect-worker": {"jobs": {"egressCIDRs": WIDE}},
        "mlflow": {"egressCIDRs": WIDE},
        "prefect-server": {"egressCIDRs": WIDE},
        "monitoring": {
            "kubelet": {"cidrs": WIDE},
            "alertmanager": {"egressCIDRs": WIDE, "receivers": [{"name": "chat", "slack": slack}]},
        },
        "grafana": {"prometheusUrl": "http://prometheus.example.com"},
    }
    rendered = render_chart(values)
    clouds = [Party(address, (80, 443, 6443), address=address) for address in METADATA]
    found = edges(policies(rendered), [*(party for party in parties(rendered) if party not in STRANGERS), *clouds])
    assert not {edge for edge in found if edge[1] in METADATA and edge[0] not in METADATA}
    for block in (block for policy in policies(rendered) for block in blocks(policy)):
        for out in map(ipaddress.ip_network, block.get("except", [])):  # Kubernetes takes no other
            assert out != ipaddress.ip_network(block["cidr"])
            assert out.subnet_of(ipaddress.ip_network(block["cidr"]))  # type: ignore[arg-type]


def test_an_address_that_is_named_exactly_is_meant() -> None:
    """As for GKE's workload identity."""
    rendered = render_chart({"prefect-worker": {"jobs": {"egressCIDRs": [f"{METADATA[0]}/32"]}}})
    assert {edge for edge in allowed(rendered) if edge[1] == "metadata"} == {
        ("training", "metadata", 80),
        ("training", "metadata", 443),
    }


def test_who_asks_kubernetes_reaches_the_address_that_is_given() -> None:
    api = {"cidrs": ["172.18.0.2/32"], "ports": [6443]}
    values = {"global": {"networkPolicy": {"apiServer": api}}, "monitoring": {"kubelet": {"cidrs": ["172.18.0.3/32"]}}}
    found = {edge for edge in allowed(render_chart(values)) if edge[1] in ("kubernetes", "intranet", "node", "outside")}
    asking = ("credentials", "prefect-worker", "traefik", "operator", "prometheus", "kube-state-metrics")
    assert found == {*((name, "kubernetes", 6443) for name in asking), ("prometheus", "node", 10250)}


def test_cilium_is_told_of_kubernetes_by_its_name() -> None:
    """It takes no address of a node in a NetworkPolicy: https://github.com/cilium/cilium/issues/20550"""
    assert not [m for m in render_chart() if m["kind"] == "CiliumNetworkPolicy"]
    done = template({}, "--api-versions", "cilium.io/v2/CiliumNetworkPolicy")
    manifests = [m for m in yaml.load_all(done.stdout, Loader) if m]
    labels = [pod["metadata"]["labels"] for pod in (pods(manifests) | operated(manifests)).values()]
    told: set[tuple[str, str]] = set()
    for policy in (m for m in manifests if m["kind"] == "CiliumNetworkPolicy"):
        wanted = {e["key"]: e["values"] for e in policy["spec"]["endpointSelector"]["matchExpressions"]}
        chosen = [each for each in labels if all(each.get(key) in values for key, values in wanted.items())]
        for rule in policy["spec"]["egress"]:
            assert rule["toPorts"], "open on every port"
            told |= {(e["app.kubernetes.io/component"], entity) for e in chosen for entity in rule["toEntities"]}
    asking = {name for name, to, _ in allowed(manifests) if to == "kubernetes"}
    nodes = {("prometheus", "host"), ("prometheus", "remote-node")}
    assert told == {(name, "kube-apiserver") for name in asking} | nodes


def test_a_pod_without_labels_has_a_network_only_where_the_namespace_is_shared() -> None:
    shared = render_chart(SHARED)
    for rendered, has_network in ((render_chart(), False), (shared, True)):
        found = edges(policies(rendered), STRANGERS)
        assert (("neighbour", "outside", 443) in found) is has_network
        assert (("elsewhere", "neighbour", 80) in found) is has_network
    titles = {p["metadata"]["name"] for p in policies(render_chart())} - {
        p["metadata"]["name"] for p in policies(shared)
    }
    assert titles == {"mlops-acme"}, "which lets cert-manager's pods be reached"


def test_certificates_can_be_had() -> None:
    solver = Party("solver", (8089,), {"acme.cert-manager.io/http01-solver": "true"})
    for values, controller in (({}, "traefik"), (PROFILES["external"], "controller")):
        rendered = render_chart(values)
        found = edges(policies(rendered), [solver, *parties(rendered)])
        assert {edge for edge in found if "solver" in edge} == {
            (controller, "solver", 8089),
        }


def test_names_are_asked_for_by_udp_and_tcp(manifests: list[Manifest]) -> None:
    for policy in policies(manifests):
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
    manifests = copy.deepcopy(render_chart(SHARED))
    assert opened not in allowed(manifests)
    _policy(manifests, name)[direction].append(rule)
    assert opened in allowed(manifests)


def test_without_the_default_deny_or_a_type_more_is_allowed() -> None:
    manifests = copy.deepcopy(render_chart())
    _policy(manifests, "ui")["policyTypes"] = ["Ingress"]
    assert ("ui", "outside", 443) not in allowed(manifests), "the default deny is about this pod, too"
    _policy(manifests, "default-deny")["policyTypes"] = ["Ingress"]
    assert ("ui", "outside", 443) in allowed(manifests)
