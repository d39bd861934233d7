"""The cluster of `make cluster` does what the platform's charts rely on."""

from __future__ import annotations

import http.client
import tomllib
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from namespace import IMAGE, RESTRICTED, wait_for

from conftest import Namespace
from images import registry

ROOT = Path(__file__).parents[2]
ROUNDS, AT_ONCE = 10, 40
INGRESS = 30080  # the NodePort that kind-config.yaml maps to 127.0.0.1:8080
GET = "import urllib.request; print(urllib.request.urlopen('{}', timeout=3).read().decode())"
TRY = """
import sys, time, urllib.request
wanted, deadline, seen = sys.argv[1] == "answer", time.monotonic() + 60, None
while time.monotonic() < deadline and seen is not wanted:
    try:
        urllib.request.urlopen(sys.argv[2], timeout=2).read()
        seen = True
    except OSError as error:
        seen = False
    time.sleep(0.2)
print("answer" if seen else "none")
"""


def _expect(namespace: Namespace, pod: str, url: str, expected: str, node: str, labels: dict[str, str]) -> None:
    """Policies reach the nodes a moment after they were made: the client tries until it sees what is expected."""
    namespace.pod(pod, ["python3", "-uc", TRY, expected, url], node=node, labels=labels)
    namespace.finished(pod)
    assert namespace.logs(pod).strip() == expected


def _service(namespace: Namespace, name: str, **spec: object) -> None:
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    namespace.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})


def test_nodes_are_ready(api: client.ApiClient) -> None:
    for node in client.CoreV1Api(api).list_node().items:
        conditions = {condition.type: condition.status for condition in node.status.conditions}
        assert conditions["Ready"] == "True", node.metadata.name


@pytest.mark.drill
def test_forty_pods_at_once_all_start(namespace: Namespace, nodes: list[str]) -> None:
    """With systemd as the driver of cgroup v1, runc could not start one to eleven of forty."""
    if len(nodes) > 1:
        pytest.skip("for one node, which starts them all")
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["true"],
        "resources": {"requests": {"cpu": "1m"}, "limits": {"memory": "32Mi"}},
        "securityContext": RESTRICTED,
    }
    spec = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 0}
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {**spec, "enableServiceLinks": False}}

    def ended(number: int) -> list[Any]:
        round_pods = namespace.core.list_namespaced_pod(namespace.name, label_selector=f"round={number}").items
        return round_pods if all(item.status.phase in ("Succeeded", "Failed") for item in round_pods) else []

    for number in range(ROUNDS):
        labels = {"round": str(number)}
        for each in range(AT_ONCE):
            namespace.create({**pod, "metadata": {"name": f"pod-{number}-{each}", "labels": labels}})
        pods = wait_for(lambda number=number: ended(number), f"the end of {AT_ONCE} pods", 180)
        states = [status for item in pods for status in item.status.container_statuses]
        wrong = [s.state.terminated for s in states if s.state.terminated.reason != "Completed" or s.restart_count]
        assert len(states) == AT_ONCE
        assert not wrong, f"round {number}: {wrong}"
        namespace.core.delete_collection_namespaced_pod(
            namespace.name, label_selector=f"round={number}", grace_period_seconds=0
        )


def test_the_registry_has_the_images_of_the_list(api: client.ApiClient) -> None:
    if any("kindest" in node.status.node_info.os_image for node in client.CoreV1Api(api).list_node().items):
        pytest.skip("this cluster pulls them from where they are published")
    listed = tomllib.loads((ROOT / "images/offline/images.toml").read_text())
    expected = {name for name, entry in listed.items() if entry.get("push")}
    assert expected
    assert {name for name in expected if not registry.has(name)} == set()


def test_people_and_tools_find_the_registry(api: client.ApiClient) -> None:
    """As KEP 1755 has it, which kind's documentation follows."""
    hosting = client.CoreV1Api(api).read_namespaced_config_map("local-registry-hosting", "kube-public").data
    assert registry.ADDRESS in hosting["localRegistryHosting.v1"]


def test_a_name_with_another_build_is_pulled_again(namespace: Namespace) -> None:
    """What `make images` and `make up` do after a change; a pod would not, as the node has that name."""
    image = f"mlops/test:{namespace.name}"
    ask = ["python3", "-c", "import os; print(os.environ['BUILD'])"]
    for build in ("one", "two"):
        dockerfile = f"FROM {IMAGE}\nENV BUILD={build}\n"
        command = ["docker", "buildx", "build", "--provenance=false", "--load", "-t", image, "-"]
        registry.run(command, dockerfile)
        registry.push(image)
        assert registry.pull(image) == (build == "two")
        namespace.pod(build, ask, image=image)
        assert namespace.finished(build) == "Succeeded"
        assert namespace.logs(build).strip() == build
    registry.run(["docker", "image", "rm", image, registry.local(image)])


def test_dns_inside_and_outside(namespace: Namespace) -> None:
    """Names of Services, and of the world: the archive that the image's own packages come from."""
    code = r"""
import pathlib, re, socket, urllib.parse
print("inside", socket.gethostbyname("kubernetes.default.svc.cluster.local"))
sources = [*pathlib.Path("/etc/apt").glob("sources.list"), *pathlib.Path("/etc/apt/sources.list.d").glob("*.sources")]
url = urllib.parse.urlparse(re.search(r"https?://\S+", "".join(s.read_text() for s in sources))[0])
with socket.create_connection((url.hostname, url.port or {"http": 80, "https": 443}[url.scheme]), timeout=10):
    print("outside", "connected")
"""
    inside, outside = namespace.output("client", code).splitlines()
    assert inside.startswith("inside 10.96.")
    assert outside == "outside connected"


def test_service_is_reached_by_name(namespace: Namespace) -> None:
    namespace.serve("server", "hello", labels={"app": "server"})
    _service(namespace, "server")
    namespace.pod("client", ["python3", "-uc", TRY, "answer", "http://server"])
    namespace.finished("client")
    assert namespace.logs("client").strip() == "answer"
    assert namespace.output("reader", GET.format(f"http://server.{namespace.name}.svc")).startswith("hello ")


def test_pods_of_different_nodes_talk_with_their_own_addresses(namespace: Namespace, nodes: list[str]) -> None:
    if len(nodes) < 2:
        pytest.skip("one node: `make cluster KIND_CONFIG=kind-config-multinode.yaml` has three")
    address = namespace.serve("server", "hello", node=nodes[0])
    for number, node in enumerate(nodes[1:]):
        code = (
            GET.format(f"http://{address}:8080") + "; import socket; print(socket.gethostbyname(socket.gethostname()))"
        )
        answer, own = namespace.output(f"client-{number}", code, node=node).splitlines()
        assert answer == f"hello {own}", node


def test_node_port_through_the_mapped_port(api: client.ApiClient, namespace: Namespace) -> None:
    """http://127.0.0.1:8080 on this machine is NodePort 30080: the ingress where it is installed, else our server."""
    services = client.CoreV1Api(api).list_service_for_all_namespaces().items
    port_is_free = not any(port.node_port == INGRESS for service in services for port in service.spec.ports or [])
    if port_is_free:
        namespace.serve("server", "from the cluster", labels={"app": "server"})
        _service(namespace, "server", type="NodePort", ports=[{"port": 80, "targetPort": 8080, "nodePort": INGRESS}])

    def answer() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=3)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode() or "(empty)"
        except OSError:
            return ""
        finally:
            connection.close()

    text = wait_for(answer, "an answer on 127.0.0.1:8080")
    assert text.startswith("from the cluster ") or not port_is_free


def test_volume_survives_its_pod(namespace: Namespace) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
    namespace.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec})
    namespace.output("writer", "open('/data/kept', 'w').write('still here')", claim="data")
    namespace.core.delete_namespaced_pod("writer", namespace.name)
    assert namespace.output("reader", "print(open('/data/kept').read())", claim="data") == "still here"


def test_restricted_namespace_refuses_a_root_pod(namespace: Namespace) -> None:
    with pytest.raises(Exception, match="violates PodSecurity") as refused:
        namespace.pod("root", ["id"], security={"runAsUser": 0})
    assert "runAsNonRoot" in str(refused.value)
    assert namespace.output("user", "import os; print(os.getuid())") == "10001"


def test_out_of_memory_is_reported_as_such(namespace: Namespace) -> None:
    namespace.pod("greedy", ["python3", "-c", "b = bytearray(512 << 20)"], memory="64Mi")
    assert namespace.finished("greedy") == "Failed"
    state = namespace.status("greedy").container_statuses[0].state.terminated
    assert (state.reason, state.exit_code) == ("OOMKilled", 137)


@pytest.mark.parametrize("client_node", ["same", "other"])
def test_network_policies_are_enforced(namespace: Namespace, nodes: list[str], client_node: str) -> None:
    """Without a policy everyone gets through, under default deny no one, then those that a policy names."""
    if client_node == "other" and len(nodes) < 2:
        pytest.skip("one node: `make cluster KIND_CONFIG=kind-config-multinode.yaml` has three")
    node = nodes[0] if client_node == "same" else nodes[-1]
    url = f"http://{namespace.serve('server', 'hello', labels={'app': 'server'}, node=nodes[0])}:8080"
    friend, stranger = {"app": "friend"}, {"app": "stranger"}
    _expect(namespace, "before", url, "answer", node, stranger)
    deny = {"podSelector": {}, "policyTypes": ["Ingress"]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    namespace.create({**policy, "metadata": {"name": "default-deny"}, "spec": deny})
    _expect(namespace, "denied", url, "none", node, friend)
    allow = {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": friend}}], "ports": [{"port": 8080}]}],
    }
    namespace.create({**policy, "metadata": {"name": "allow-friend"}, "spec": allow})
    _expect(namespace, "allowed", url, "answer", node, friend)
    _expect(namespace, "still-denied", url, "none", node, stranger)


def test_egress_policies_are_enforced(namespace: Namespace) -> None:
    url = f"http://{namespace.serve('server', 'hello', labels={'app': 'server'})}:8080"
    _expect(namespace, "before", url, "answer", "", {"app": "caged"})
    spec = {"podSelector": {"matchLabels": {"app": "caged"}}, "policyTypes": ["Egress"]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "cage"}}
    namespace.create({**policy, "spec": spec})
    _expect(namespace, "caged", url, "none", "", {"app": "caged"})
    _expect(namespace, "free", url, "answer", "", {"app": "free"})


def test_resource_metrics_are_there(api: client.ApiClient, nodes: list[str]) -> None:
    """What HorizontalPodAutoscaler reads: CPU and memory of every node."""
    metrics = client.CustomObjectsApi(api)

    def measured() -> dict[str, dict[str, str]]:
        try:
            node_metrics = metrics.list_cluster_custom_object("metrics.k8s.io", "v1beta1", "nodes")["items"]
        except ApiException:
            return {}
        return {node["metadata"]["name"]: node["usage"] for node in node_metrics}

    wait_for(lambda: set(measured()) == set(nodes), "metrics of all nodes")
    assert all(usage["cpu"] and usage["memory"] for usage in measured().values())
