"""What holds for every manifest of every profile: valid, pinned, bounded, probed, covered."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chart import Manifest, containers, job_template, named, pods, render_chart, title

ROOT_OF_ALL = {"app.kubernetes.io/instance": "mlops"}
TAG = re.compile(r":(v?\d+\.\d+(\.\d+)?)$")
UNITS = {"Mi": 1, "Gi": 1024}
ROLE = {
    ("batch", "jobs"): {"get", "list", "watch", "create", "patch", "delete"},
    ("", "pods"): {"get", "list", "watch"},
    ("", "pods/log"): {"get"},
    ("", "events"): {"get", "list", "watch"},
}


def cpu(quantity: str) -> float:
    """In cores."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


@pytest.mark.parametrize("version", ["1.34", "1.35", "1.36"])
def test_valid_against_the_schemas_of_kubernetes(version: str, manifests: list[Manifest]) -> None:
    for manifest in [*manifests, job_template(manifests)]:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{manifest['kind']}: {error}")


def test_images_have_exact_tags(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        for container in containers(pod):
            assert TAG.search(container["image"]), f"{name}: {container['image']}"
            assert container["imagePullPolicy"] == "IfNotPresent", f"{name}: {container['name']}"


def test_a_registry_is_put_before_every_image() -> None:
    for name, pod in pods(render_chart({"global": {"imageRegistry": "registry.example.com/team/"}})).items():
        for container in containers(pod):
            assert container["image"].startswith("registry.example.com/team/"), name
            assert "//" not in container["image"], name


def test_containers_have_requests_and_limits(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        for container in containers(pod):
            resources = container["resources"]
            assert set(resources["requests"]) == {"cpu", "memory"}, f"{name}: {container['name']}"
            assert "memory" in resources["limits"], f"{name}: {container['name']}"
            assert "cpu" not in resources["limits"], f"{name}: a CPU limit slows a pod on an idle node"
            assert mebibytes(resources["limits"]["memory"]) >= mebibytes(resources["requests"]["memory"]), name


def test_long_running_containers_have_all_probes_and_liveness_asks_no_peer(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        if not name.startswith(("Deployment", "StatefulSet")):
            continue
        for container in containers(pod, init=False):
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container[probe]
                if "httpGet" in asked:
                    assert asked["httpGet"]["port"] in ports, f"{name}: {probe}"
                    assert "host" not in asked["httpGet"], f"{name}: {probe}"
                else:
                    assert "127.0.0.1" in asked["exec"]["command"], f"{name}: {probe}"
            assert container["livenessProbe"].get("failureThreshold", 3) >= 4, f"{name}: killed while it is busy"


def test_the_whole_platform_asks_for_at_most_2_cpu_and_4_gibibytes() -> None:
    manifests = render_chart()
    cores, memory = 0.0, 0
    for manifest in manifests:
        if manifest["kind"] not in ("Deployment", "StatefulSet"):
            continue
        scaled = [
            m for m in manifests if m["kind"] == "HorizontalPodAutoscaler" and m["metadata"] == manifest["metadata"]
        ]
        replicas = scaled[0]["spec"]["minReplicas"] if scaled else manifest["spec"]["replicas"]
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            requests = container["resources"]["requests"]
            cores += replicas * cpu(requests["cpu"])
            memory += replicas * mebibytes(requests["memory"])
    training = job_template(manifests)["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert cores + cpu(training["cpu"]) <= 2, cores
    # kube-system asks for 0.95 of a two-core node
    assert cores + cpu(training["cpu"]) <= 1.0, cores
    assert memory + mebibytes(training["memory"]) <= 4096, memory


def test_an_autoscaled_deployment_has_no_replicas() -> None:
    assert "replicas" not in named(render_chart(), "Deployment", "mlops-model-api")["spec"]
    fixed = render_chart({"model-api": {"autoscaling": {"enabled": False}, "replicas": 3}})
    assert named(fixed, "Deployment", "mlops-model-api")["spec"]["replicas"] == 3


def test_services_lead_to_a_port_of_a_pod(manifests: list[Manifest]) -> None:
    for service in (m for m in manifests if m["kind"] == "Service"):
        chosen = [p for p in pods(manifests).values() if selects(service["spec"]["selector"], p["metadata"]["labels"])]
        assert len(chosen) == 1, title(service)
        named_ports = {port["name"] for c in containers(chosen[0], init=False) for port in c.get("ports", [])}
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in named_ports, title(service)


def test_selectors_match_their_own_pods(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            labels = manifest["spec"]["template"]["metadata"]["labels"]
            assert selects(manifest["spec"]["selector"]["matchLabels"], labels), title(manifest)


def test_every_pod_has_a_network_policy_of_its_own_in_both_directions(manifests: list[Manifest]) -> None:
    policies = [m["spec"] | {"title": title(m)} for m in manifests if m["kind"] == "NetworkPolicy"]
    for name, pod in pods(manifests).items():
        own = [
            p
            for p in policies
            if p["podSelector"]["matchLabels"] != ROOT_OF_ALL
            and selects(p["podSelector"]["matchLabels"], pod["metadata"]["labels"])
        ]
        assert own, f"{name} is under the default deny only"
        assert all(set(p["policyTypes"]) == {"Ingress", "Egress"} for p in own), name
        denied = [p for p in policies if p["podSelector"]["matchLabels"] == ROOT_OF_ALL]
        assert selects(denied[0]["podSelector"]["matchLabels"], pod["metadata"]["labels"]), f"{name} escapes it"
        assert "ingress" not in denied[0]
        assert "egress" not in denied[0]


def test_no_policy_peer_is_empty(manifests: list[Manifest]) -> None:
    """An empty list of peers allows everybody; only the way in and the way to the Kubernetes API are so."""
    for policy in (m for m in manifests if m["kind"] == "NetworkPolicy"):
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction) or []:
                if not rule.get(peers):
                    assert (title(policy), direction) in {
                        ("NetworkPolicy/mlops-ingress", "ingress"),
                        ("NetworkPolicy/mlops-prefect-worker", "egress"),
                    }


def test_only_the_worker_has_a_token(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        wanted = name == "Deployment/mlops-prefect-worker"
        assert pod["spec"]["automountServiceAccountToken"] is wanted, name
        assert pod["spec"]["enableServiceLinks"] is False, name
    for manifest in (m for m in manifests if m["kind"] == "ServiceAccount"):
        assert manifest["automountServiceAccountToken"] is False, title(manifest)


def test_rights_are_those_of_the_worker_and_no_more(manifests: list[Manifest]) -> None:
    assert not [title(m) for m in manifests if m["kind"].startswith("ClusterRole")]
    (role,) = [m for m in manifests if m["kind"] == "Role"]
    found: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found[group, resource] = set(rule["verbs"])
    assert found == ROLE


def test_no_secret_is_written_anywhere_but_in_the_secret(manifests: list[Manifest]) -> None:
    secrets = [m for m in manifests if m["kind"] == "Secret"]
    values = [value for secret in secrets for value in secret["data"].values()]
    rest = yaml.safe_dump([m for m in manifests if m["kind"] != "Secret"])
    assert not [value for value in values if value in rest]
    for name, pod in pods(manifests).items():
        for container in containers(pod):
            for variable in container.get("env", []):
                if re.search("PASSWORD|AUTH_STRING|SECRET_KEY|FEEDBACK_KEY", variable["name"]) and (
                    not variable["name"].endswith(("SECRET_NAME", "SECRET_KEY")) or "FLASK" in variable["name"]
                ):
                    assert "secretKeyRef" in variable["valueFrom"], f"{name}: {variable['name']}"


def test_the_generated_secret_has_long_random_values_and_is_kept() -> None:
    secret = named(render_chart(), "Secret", "mlops-credentials")
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert len(set(secret["data"].values())) == len(secret["data"]) == 7
    assert all(len(value) >= 40 for value in secret["data"].values())


def test_volumes_are_kept(manifests: list[Manifest]) -> None:
    for claim in (m for m in manifests if m["kind"] == "PersistentVolumeClaim"):
        assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}, title(claim)


def test_roots_are_read_only(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, f"{name}: {container['name']}"


def test_a_rolling_update_of_the_api_takes_no_pod_away_first() -> None:
    spec: dict[str, Any] = named(render_chart(), "Deployment", "mlops-model-api")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pod = spec["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause + 20 + 5


def test_postgres_moves_both_off_sqlite() -> None:
    for values, scheme in (
        ({"postgres": {"enabled": True}}, "value"),
        ({"global": {"databaseSecret": "db"}}, "valueFrom"),
    ):
        found = pods(render_chart(values))
        for name, variable in (
            ("Deployment/mlops-mlflow", "MLFLOW_BACKEND_STORE_URI"),
            ("Deployment/mlops-prefect-server", "PREFECT_SERVER_DATABASE_CONNECTION_URL"),
        ):
            (entry,) = [e for e in found[name]["spec"]["containers"][0]["env"] if e["name"] == variable]
            assert scheme in entry
            assert "sqlite" not in str(entry)
            if scheme == "value":
                assert re.fullmatch(
                    r"postgresql(\+asyncpg)?://mlops:\$\(\w+_PASSWORD\)@mlops-postgres:5432/\w+", entry["value"]
                )
