"""What helm asks the cluster while it installs: where Kubernetes is, whose the namespace is, how it is labelled.

Dry runs in a namespace of their own: nothing is installed.
"""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml
from kubernetes import client
from namespace import RESTRICTED, Namespace
from release import CHART, CONTEXT, ROOT

LABEL = "pod-security.kubernetes.io/enforce"


def install(namespace: Namespace, **settings: Any) -> subprocess.CompletedProcess[str]:
    """A dry run of `helm install` that may ask the cluster."""
    chosen = [f"--set={name.replace('__', '.')}={value}" for name, value in settings.items()]
    fixed = [
        "--namespace",
        namespace.name,
        "--kube-context",
        CONTEXT,
        "--dry-run=server",
        "--set=global.existingSecret=x",
    ]
    # the CRDs that the chart brings are there already, or not to be asked for
    command = ["helm", "install", "trial", CHART, "--skip-crds", *fixed, *chosen]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def installed(namespace: Namespace, **settings: Any) -> tuple[list[dict[str, Any]], str]:
    """(manifests, notes) of such a run. Fails with helm's message."""
    done = install(namespace, **settings)
    assert done.returncode == 0, done.stderr
    manifests, _, notes = done.stdout.partition("\nMANIFEST:\n")[2].partition("\nNOTES:\n")
    return [manifest for manifest in yaml.safe_load_all(manifests) if manifest], notes


def addresses(policy: dict[str, Any]) -> set[tuple[str, int]]:
    """(CIDR, port) of the addresses that a policy lets its pods connect to."""
    return {
        (peer["ipBlock"]["cidr"], port["port"])
        for rule in policy["spec"]["egress"]
        for peer in rule["to"]
        for port in rule["ports"]
        if "ipBlock" in peer
    }


def test_policies_name_the_address_of_kubernetes_and_no_other(namespace: Namespace) -> None:
    (service,) = [s for s in namespace.core.list_namespaced_service("default").items if s.metadata.name == "kubernetes"]
    (slice_,) = (
        client.DiscoveryV1Api(namespace.api)
        .list_namespaced_endpoint_slice("default", label_selector="kubernetes.io/service-name=kubernetes")
        .items
    )
    expected = {
        (f"{address}/32", port.port)
        for endpoint in slice_.endpoints
        for address in endpoint.addresses
        for port in slice_.ports
    } | {(f"{service.spec.cluster_ip}/32", 443)}
    first, second = (installed(namespace)[0] for _ in range(2))
    assert first == second
    policies = {m["metadata"]["name"]: m for m in first if m["kind"] == "NetworkPolicy"}
    for name in ("prefect-worker", "operator", "traefik", "kube-state-metrics"):
        assert addresses(policies[f"trial-{name}"]) == expected, name
    assert {at for at in addresses(policies["trial-prometheus"]) if at[1] != 10250} == expected


def test_a_namespace_that_takes_any_pod_is_reported(namespace: Namespace) -> None:
    command = f"kubectl label namespace {namespace.name} {LABEL}=restricted --overwrite"
    assert command not in installed(namespace)[1]
    namespace.core.patch_namespace(namespace.name, {"metadata": {"labels": {LABEL: None}}})
    notes = installed(namespace)[1]
    assert "WARNING" in notes
    assert command in notes


@pytest.fixture
def neighbour(namespace: Namespace) -> str:
    """A pod of another application, which never starts; its name."""
    namespace.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}})
    owner = namespace.core.read_namespaced_config_map("theirs", namespace.name)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": owner.metadata.uid}
    container = {"name": "main", "image": "example.com/none:1", "securityContext": RESTRICTED}
    spec = {"containers": [container], "schedulerName": "nobody"}
    metadata = {"name": "neighbour", "labels": {"app": "theirs"}, "ownerReferences": [reference]}
    namespace.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return "neighbour"


def test_another_application_is_not_cut_off_without_a_word(namespace: Namespace, neighbour: str) -> None:
    refused = install(namespace)
    assert refused.returncode != 0
    assert f"the namespace {namespace.name} has pods of other applications" in refused.stderr
    assert neighbour in refused.stderr
    assert "global.networkPolicy.wholeNamespace=false" in refused.stderr
    installed(namespace, global__networkPolicy__wholeNamespace="false")
