"""What holds for every manifest of every profile: valid, pinned, bounded, probed, covered."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
from chart import Manifest, containers, named, operated, pods, render_chart, template, title
from network import selects
from profiles import PROFILES
from validity import VERSIONS, all_of, invalid

TAG = re.compile(r":(v?\d+\.\d+(\.\d+)?)$")
UNITS = {"Mi": 1, "Gi": 1024}
READ = {"get", "list", "watch"}
WRITE = READ | {"create", "update", "patch", "delete"}
OPERATOR_KINDS = ("prometheuses", "prometheusagents", "alertmanagers", "thanosrulers")
CONFIGURATIONS = ("alertmanagerconfigs", "podmonitors", "probes", "prometheusrules", "scrapeconfigs", "servicemonitors")
CRDS = "monitoring.coreos.com"
# Who may do what in the namespace, or with the one object that a rule names. Beyond it: Prometheus asks the kubelets
# how full volumes are, Traefik sees classes.
ROLES: dict[str, dict[tuple[str, str], set[str]]] = {
    "Role/mlops-prefect-worker": {
        ("batch", "jobs"): {"get", "list", "watch", "create", "patch", "delete"},
        ("", "pods"): READ,
        ("", "pods/log"): {"get"},
        ("", "events"): READ,
    },
    "Role/mlops-credentials": {("", "secrets"): {"create"}, ("", "secrets/mlops-credentials"): {"get", "patch"}},
    "Role/mlops-operator": {
        **{(CRDS, kind): READ | {"update", "patch"} for kind in (*OPERATOR_KINDS, *CONFIGURATIONS)},
        **{(CRDS, f"{kind}/status"): {"get", "update", "patch"} for kind in (*OPERATOR_KINDS, *CONFIGURATIONS)},
        **{(CRDS, f"{kind}/finalizers"): {"get", "update", "patch"} for kind in OPERATOR_KINDS},
        **{("", kind): WRITE for kind in ("configmaps", "secrets", "services")},
        ("apps", "statefulsets"): WRITE,
        ("", "services/finalizers"): {"update"},
        ("", "pods"): READ | {"delete"},
        ("", "namespaces"): {"get"},
    },
    "Role/mlops-prometheus": {
        **{("", kind): READ for kind in ("services", "endpoints", "pods")},
        ("discovery.k8s.io", "endpointslices"): READ,
    },
    "Role/mlops-kube-state-metrics": {
        **{("", kind): READ for kind in ("pods", "persistentvolumeclaims")},
        **{("apps", kind): READ for kind in ("deployments", "statefulsets")},
        **{("batch", kind): READ for kind in ("cronjobs", "jobs")},
    },
    "Role/mlops-traefik": {
        **{("", kind): READ for kind in ("services", "secrets")},
        ("discovery.k8s.io", "endpointslices"): {"list", "watch"},
        ("networking.k8s.io", "ingresses"): READ,
        ("networking.k8s.io", "ingresses/status"): {"update"},
    },
    "ClusterRole/mlops-traefik-mlops": {
        ("networking.k8s.io", "ingressclasses"): {"list", "watch"},
        ("", "nodes"): {"list", "watch"},
    },
    "ClusterRole/mlops-prometheus-mlops": {("", "nodes"): READ, ("", "nodes/metrics"): {"get"}},
}
TOKENS = {
    *("Deployment/mlops-prefect-worker", "Deployment/mlops-operator", "Deployment/mlops-kube-state-metrics"),
    *("Deployment/mlops-traefik", "Prometheus/mlops", "Job/mlops-credentials"),
}


def cpu(quantity: str) -> float:
    """In cores."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


@pytest.mark.parametrize("version", VERSIONS)
def test_valid_against_the_schemas_of_kubernetes(version: str, manifests: list[Manifest]) -> None:
    assert not [problem for manifest in all_of(manifests) if (problem := invalid(manifest, version))]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_not_valid_is_seen(version: str) -> None:
    """For each kind: a field that is unknown, one of the wrong type, and an API that there is not."""
    for manifest in all_of(render_chart(PROFILES["postgres"])):
        unknown, mistyped, gone = (copy.deepcopy(manifest) for _ in range(3))
        unknown["metadata"]["nmae"] = "x"
        mistyped["metadata"]["labels"] = ["x"]
        gone["apiVersion"] = "extensions/v1beta1"
        assert "nmae" in invalid(unknown, version), title(manifest)
        assert "labels" in invalid(mistyped, version), title(manifest)
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            kubernetes_validate.validate(gone, version, strict=True)
    for manifest in all_of(render_chart(PROFILES["postgres"])):
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
            deep = copy.deepcopy(manifest)
            deep["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
            assert "readynessProbe" in invalid(deep, version), title(manifest)


def each_container(manifests: list[Manifest], init: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
    """(pod and container, container) of everything that runs."""
    for name, pod in pods(manifests).items():
        for container in containers(pod, init=init):
            yield f"{name}: containers[{container['name']}]", container


def test_images_have_exact_tags(manifests: list[Manifest]) -> None:
    for where, container in each_container(manifests):
        assert TAG.search(container["image"]), f"{where}.image: {container['image']}"
        # tags are never given to another image
        assert container["imagePullPolicy"] == "IfNotPresent", f"{where}.imagePullPolicy"


def test_containers_have_requests_and_limits(manifests: list[Manifest]) -> None:
    for where, container in each_container(manifests):
        resources = container["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}, f"{where}.resources.requests"
        # no limit of CPU: it would slow a pod down on an idle node
        assert set(resources["limits"]) == {"memory"}, f"{where}.resources.limits"
        assert cpu(resources["requests"]["cpu"]) > 0, f"{where}.resources.requests.cpu"
        low, high = mebibytes(resources["requests"]["memory"]), mebibytes(resources["limits"]["memory"])
        assert 0 < low <= high, f"{where}.resources: requests {low} Mi of a limit of {high} Mi"


def test_what_is_in_memory_fits_the_limit(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        limit = sum(mebibytes(c["resources"]["limits"]["memory"]) for c in containers(pod, init=False))
        for volume in pod["spec"].get("volumes", []):
            if (volume.get("emptyDir") or {}).get("medium") == "Memory":
                assert mebibytes(volume["emptyDir"]["sizeLimit"]) < limit, f"{name}: volumes[{volume['name']}]"


def test_long_running_containers_have_all_probes_and_none_asks_a_peer(manifests: list[Manifest]) -> None:
    peers = [m["metadata"]["name"] for m in manifests if m["kind"] == "Service"]
    long_running = [m for m in manifests if m["kind"] in ("Deployment", "StatefulSet", "DaemonSet")]
    assert len(long_running) >= 5
    for manifest in long_running:
        for container in containers(manifest["spec"]["template"], init=False):
            ports = {port["name"] for port in container["ports"]}
            for field in ("startupProbe", "readinessProbe", "livenessProbe"):
                where = f"{title(manifest)}: containers[{container['name']}].{field}"
                assert field in container, f"{where} is missing"
                probe = container[field]
                assert not [peer for peer in peers if peer in str(probe)], f"{where} asks a peer"
                if "httpGet" in probe:
                    assert set(probe["httpGet"]) == {"path", "port"}, f"{where}.httpGet"
                    assert probe["httpGet"]["port"] in ports, f"{where}.httpGet.port"
                else:
                    assert "127.0.0.1" in probe["exec"]["command"], f"{where}.exec"
            where = f"{title(manifest)}: containers[{container['name']}]"
            patience = {f: span(container[f]) for f in ("startupProbe", "livenessProbe")}
            assert patience["startupProbe"] >= 60, f"{where}.startupProbe gives {patience['startupProbe']} s to start"
            assert patience["livenessProbe"] >= 60, f"{where}.livenessProbe kills after {patience['livenessProbe']} s"


def span(probe: dict[str, Any]) -> int:
    """Seconds for which a probe may fail."""
    return int(probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3))


def requests(pod: Manifest) -> tuple[float, int]:
    """Cores and MiB that are reserved for a pod: of its containers, or of an init container that asks for more."""
    amounts = [
        [(cpu(c["resources"]["requests"]["cpu"]), mebibytes(c["resources"]["requests"]["memory"])) for c in group]
        for group in (pod["spec"]["containers"], pod["spec"].get("initContainers", []))
    ]
    (cores, memory), first = map(sum, zip(*amounts[0], strict=True)), amounts[1]
    return max([cores, *(c for c, _ in first)]), max([memory, *(m for _, m in first)])


@pytest.mark.parametrize("profile", ["defaults", "postgres"])
def test_the_whole_platform_asks_for_at_most_2_cpu_and_4_gibibytes(profile: str) -> None:
    """With the pod of `helm test` and a training that runs, too."""
    manifests = render_chart(PROFILES[profile])
    scaled = {
        m["spec"]["scaleTargetRef"]["name"]: m["spec"]["minReplicas"]
        for m in manifests
        if m["kind"] == "HorizontalPodAutoscaler"
    }
    replicas = {
        title(m): scaled.get(m["metadata"]["name"]) or m["spec"]["replicas"]
        for m in manifests
        if m["kind"] in ("Deployment", "StatefulSet")
    }
    assert replicas["Deployment/mlops-model-api"] == 2
    each = {name: (replicas.get(name, 1), *requests(pod)) for name, pod in pods(manifests).items()}
    assert "training Job" in each
    cores = sum(count * one for count, one, _ in each.values())
    memory = sum(count * one for count, _, one in each.values())
    assert cores <= 2, each
    assert memory <= 4096, each
    if profile == "defaults":  # a node of two cores has room for it beside kube-system, which asks for 0.95
        assert cores <= 1, each


def test_an_autoscaled_deployment_has_no_replicas() -> None:
    """Else each upgrade would take pods away under load."""
    assert "replicas" not in named(render_chart(), "Deployment", "mlops-model-api")["spec"]
    fixed = render_chart({"model-api": {"autoscaling": {"enabled": False}, "replicas": 3}})
    assert named(fixed, "Deployment", "mlops-model-api")["spec"]["replicas"] == 3
    assert not [title(m) for m in fixed if m["kind"] == "HorizontalPodAutoscaler"]


def test_pods_are_added_by_requests_a_second_where_an_adapter_tells_of_them() -> None:
    def metrics(**values: Any) -> list[Any]:
        manifests = render_chart({"model-api": {"autoscaling": values}})
        return named(manifests, "HorizontalPodAutoscaler", "mlops-model-api")["spec"]["metrics"]

    assert [metric["type"] for metric in metrics()] == ["Resource"]
    cpu, requests = metrics(targetRequestsPerSecond=4000, requestsMetric="rps")
    assert cpu["resource"]["name"] == "cpu"
    assert requests["pods"] == {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "4000"}}


def test_services_lead_to_a_port_of_a_pod(manifests: list[Manifest]) -> None:
    for service in (m for m in manifests if m["kind"] == "Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        everything = pods(manifests) | operated(manifests)
        chosen = {n: pod for n, pod in everything.items() if selects(selector, pod["metadata"]["labels"])}
        assert len(chosen) == 1, f"{title(service)}: spec.selector chooses {sorted(chosen)}"
        (pod,) = chosen.values()
        of_pod = [port for c in containers(pod, init=False) for port in c.get("ports", [])]
        known = {port.get("name") for port in of_pod} | {port["containerPort"] for port in of_pod}
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in known, f"{title(service)}: spec.ports[{port['name']}].targetPort"


def test_only_the_ingress_is_reached_from_outside_the_cluster(manifests: list[Manifest]) -> None:
    for service in (m for m in manifests if m["kind"] == "Service"):
        if service["metadata"]["name"] != "mlops-traefik":
            assert service["spec"].get("type", "ClusterIP") == "ClusterIP", f"{title(service)}: spec.type"
            assert "externalIPs" not in service["spec"], f"{title(service)}: spec.externalIPs"


def test_selectors_choose_their_own_pods_and_no_others(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            chosen = [
                n
                for n, pod in pods(manifests).items()
                if selects(manifest["spec"]["selector"], pod["metadata"]["labels"])
            ]
            assert chosen == [title(manifest)], f"{title(manifest)}: spec.selector"


def test_every_pod_has_a_network_policy_of_its_own_in_both_directions(manifests: list[Manifest]) -> None:
    """Besides the default deny; test_edges.py says what they allow."""
    policies = {title(m): m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"}
    deny = policies.pop("NetworkPolicy/mlops-default-deny")
    assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
    assert not deny.get("ingress"), "NetworkPolicy/mlops-default-deny: spec.ingress"
    assert not deny.get("egress"), "NetworkPolicy/mlops-default-deny: spec.egress"
    # What lets Prometheus in is of the chart monitoring, one for each target; some targets may be off.
    for policy in [p for p in policies if p.endswith("-metrics") and p != "NetworkPolicy/mlops-kube-state-metrics"]:
        assert policies.pop(policy)["policyTypes"] == ["Ingress"], policy
    policies.pop("NetworkPolicy/mlops-acme", None)  # of cert-manager's pods
    used = set()
    for name, pod in (pods(manifests) | operated(manifests)).items():
        labels = pod["metadata"]["labels"]
        assert selects(deny["podSelector"], labels), f"{name}: metadata.labels escape the default deny"
        own = [policy for policy, spec in policies.items() if selects(spec["podSelector"], labels)]
        assert len(own) == 1, f"{name} is under {own}"
        assert set(policies[own[0]]["policyTypes"]) == {"Ingress", "Egress"}, f"{own[0]}: spec.policyTypes"
        assert {"ingress", "egress"} <= set(policies[own[0]]), f"{own[0]}: a direction has no word"
        used.add(own[0])
    assert used == set(policies), "a policy is about no pod"


def test_only_who_asks_the_kubernetes_api_has_a_token(manifests: list[Manifest]) -> None:
    for name, pod in (pods(manifests) | operated(manifests)).items():
        spec = pod["spec"]
        expected = name in TOKENS
        assert spec["automountServiceAccountToken"] is expected, f"{name}: spec.automountServiceAccountToken"
        assert spec["enableServiceLinks"] is False, f"{name}: spec.enableServiceLinks"
        for volume in spec.get("volumes", []):
            assert "serviceAccountToken" not in str(volume), f"{name}: volumes[{volume['name']}]"
    for manifest in (m for m in manifests if m["kind"] == "ServiceAccount"):
        assert manifest["automountServiceAccountToken"] is False, f"{title(manifest)}: automountServiceAccountToken"


def test_rights_are_those_of_the_tables_and_no_more(manifests: list[Manifest]) -> None:
    for role in [m for m in manifests if m["kind"] in ("Role", "ClusterRole")]:
        rights: dict[tuple[str, str], set[str]] = {}
        for rule in role["rules"]:
            assert set(rule) - {"resourceNames"} == {"apiGroups", "resources", "verbs"}, f"{title(role)}: {rule}"
            names = [f"/{name}" for name in rule.get("resourceNames", [])] or [""]
            assert "*" not in str(rule), f"{title(role)}: {rule}"
            for group in rule["apiGroups"]:
                for resource in [resource + name for resource in rule["resources"] for name in names]:
                    rights.setdefault((group, resource), set()).update(rule["verbs"])
        assert rights == ROLES[title(role)], title(role)


def test_the_right_to_ask_kubelets_can_be_left_out() -> None:
    manifests = render_chart({"monitoring": {"kubelet": {"enabled": False}}})
    assert [title(m) for m in manifests if m["kind"] == "ClusterRole"] == ["ClusterRole/mlops-traefik-mlops"]
    assert "additionalScrapeConfigs" not in named(manifests, "Prometheus", "mlops")["spec"]


def test_volumes_are_kept(manifests: list[Manifest]) -> None:
    for claim in (m for m in manifests if m["kind"] == "PersistentVolumeClaim"):
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", (
            f"{title(claim)}: metadata.annotations"
        )


def test_a_volume_of_one_node_has_one_pod_at_a_time(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] == "Deployment" and "persistentVolumeClaim" in str(manifest["spec"]["template"]):
            assert manifest["spec"]["strategy"] == {"type": "Recreate"}, f"{title(manifest)}: spec.strategy"
            assert manifest["spec"]["replicas"] == 1, f"{title(manifest)}: spec.replicas"


def test_roots_are_read_only_and_tmp_is_a_volume(manifests: list[Manifest]) -> None:
    for where, container in each_container(manifests):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True, f"{where}.securityContext.readOnlyRootFilesystem"
    for where, container in each_container(manifests, init=False):
        assert "/tmp" in [m["mountPath"] for m in container["volumeMounts"]], f"{where}.volumeMounts"  # noqa: S108


def test_everything_runs_as_a_user_of_its_own(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        user = 999 if name == "StatefulSet/mlops-postgres" else 10001
        context = pod["spec"]["securityContext"]
        for field in ("runAsUser", "runAsGroup", "fsGroup"):
            assert context[field] == user, f"{name}: spec.securityContext.{field}"
        for container in containers(pod):
            assert "runAsUser" not in container["securityContext"], f"{name}: containers[{container['name']}]"


def test_a_changed_configuration_starts_the_pods_that_read_it_anew() -> None:
    for name, values in (
        ("mlops-grafana", {"grafana": {"prometheusUrl": "http://prometheus.example.com"}}),
        ("mlops-prefect-worker", {"prefect-worker": {"jobs": {"ttlSecondsAfterFinished": 900}}}),
    ):
        before, after = (
            named(render_chart(v), "Deployment", name)["spec"]["template"]["metadata"] for v in ({}, values)
        )
        assert before["annotations"] != after["annotations"], f"Deployment/{name}: metadata.annotations"


def test_two_renderings_are_the_same(profile: str) -> None:
    """So an upgrade that changes nothing restarts nothing, and Argo CD and `kubectl apply` find no difference."""
    first, second = template(PROFILES[profile]), template(PROFILES[profile])
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout


def test_a_rolling_update_of_the_api_takes_no_pod_away_first() -> None:
    spec: dict[str, Any] = named(render_chart(), "Deployment", "mlops-model-api")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pod = spec["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 5, "nodes learn of a pod that goes within some seconds"
    assert pod["terminationGracePeriodSeconds"] >= pause + 20 + 5


def test_databases_move_off_sqlite() -> None:
    address = re.compile(r"postgresql\+(asyncpg|psycopg2)://mlops:\$\(\w+_PASSWORD\)@mlops-postgres:5432/\w+")
    for name, variable in (
        ("Deployment/mlops-mlflow", "MLFLOW_BACKEND_STORE_URI"),
        ("Deployment/mlops-mlflow", "MLOPS_AUTH_DATABASE_URI"),
        ("Deployment/mlops-prefect-server", "PREFECT_SERVER_DATABASE_CONNECTION_URL"),
    ):
        for profile in ("postgres", "external"):
            for container in containers(pods(render_chart(PROFILES[profile]))[name]):
                where = f"{profile}: {name}: containers[{container['name']}].env[{variable}]"
                (entry,) = [e for e in container["env"] if e["name"] == variable]
                assert "sqlite" not in str(container["env"]), where
                if profile == "postgres":
                    assert address.fullmatch(entry["value"]), where
                else:
                    assert entry["valueFrom"]["secretKeyRef"]["name"] == "database", where


def test_databases_that_are_asked_for_are_made() -> None:
    manifests = render_chart(PROFILES["postgres"])
    text = named(manifests, "ConfigMap", "mlops-postgres")["data"]["databases.sql"]
    made = set(re.findall(r"CREATE DATABASE (\w+)", text))
    databases = {
        match[1]
        for _, container in each_container(manifests)
        for entry in container.get("env", [])
        if (match := re.search(r"@mlops-postgres:5432/(\w+)", entry.get("value", "")))
    }
    assert databases == made
