"""The settings that people expect of every chart: for all pods by `global`, for one chart's by the same name there."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from chart import CHART, Manifest, containers, job_template, named, operated, pods, render_chart, template, title

TOLERATION = {"key": "team", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}
SPREAD = {
    "maxSkew": 1,
    "topologyKey": "topology.kubernetes.io/zone",
    "whenUnsatisfiable": "ScheduleAnyway",
    "labelSelector": {"matchLabels": {"app.kubernetes.io/part-of": "mlops"}},
}
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "arch", "operator": "In", "values": ["amd64"]}]}]
        }
    }
}
EVERYWHERE: dict[str, Any] = {
    "affinity": AFFINITY,
    "nodeSelector": {"pool": "ml"},
    "tolerations": [TOLERATION],
    "topologySpreadConstraints": [SPREAD],
    "priorityClassName": "batch",
    "podAnnotations": {"example.com/owner": "ml"},
    "podLabels": {"team": "ml", "app.kubernetes.io/component": "mine"},
    "podSecurityContext": {"fsGroupChangePolicy": "Always"},
    "securityContext": {"runAsUser": 4321},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraEnvFrom": [{"configMapRef": {"name": "proxy"}}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/ours"}],
    "imagePullSecrets": ["pull", {"name": "other"}],
    "runtimeClassName": "gvisor",
    "schedulerName": "ours",
    "hostAliases": [{"ip": "10.0.0.5", "hostnames": ["git.corp.example"]}],
    "dnsPolicy": "Default",
    "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
    "terminationGracePeriodSeconds": 77,
    "revisionHistoryLimit": 0,
    "extraContainers": [{"name": "sidecar", "image": "sidecar:1"}],
}
# Of one value for each pod, as they are.
PLAIN = ("affinity", "nodeSelector", "priorityClassName", "schedulerName", "hostAliases", "dnsPolicy", "dnsConfig")
PLAIN = (*PLAIN, "terminationGracePeriodSeconds")
POSTGRES = {"postgres": {"enabled": True}}


def made_by_operator(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Title -> spec of the objects that the Prometheus Operator makes pods of."""
    return {title(m): m for m in manifests if m["kind"] in ("Prometheus", "Alertmanager")}


def main_container(pod: Manifest) -> Manifest:
    return dict(pod["spec"]["containers"][0])


@pytest.fixture(scope="module")
def everywhere() -> list[Manifest]:
    return render_chart({"global": EVERYWHERE, **POSTGRES})


def test_global_settings_reach_every_pod(everywhere: list[Manifest]) -> None:
    for name, pod in pods(everywhere).items():
        spec, metadata = pod["spec"], pod["metadata"]
        for field in (*PLAIN, "runtimeClassName"):
            assert spec[field] == EVERYWHERE[field], f"{name}: {field}"
        assert TOLERATION in spec["tolerations"], name
        assert SPREAD in spec["topologySpreadConstraints"], name
        assert [secret["name"] for secret in spec["imagePullSecrets"]] == ["pull", "other"], name
        assert metadata["annotations"]["example.com/owner"] == "ml", name
        assert metadata["labels"]["team"] == "ml", name
        assert spec["securityContext"]["fsGroupChangePolicy"] == "Always", name
        for container in containers(pod):
            if container == EVERYWHERE["extraContainers"][0]:
                continue
            assert container["securityContext"]["runAsUser"] == 4321, name
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        if name in ("Pod/mlops-loop", "Job/mlops-credentials"):
            continue  # the test of the loop and what makes the Secret need none of these
        container = main_container(pod)
        assert EVERYWHERE["extraEnv"][0] in container["env"], name
        assert container["envFrom"][-1] == EVERYWHERE["extraEnvFrom"][0], name
        assert EVERYWHERE["extraVolumes"][0] in spec["volumes"], name
        assert EVERYWHERE["extraVolumeMounts"][0] in container["volumeMounts"], name
        assert EVERYWHERE["extraContainers"][0] in spec["containers"], name


def test_how_much_of_its_past_a_deployment_keeps(everywhere: list[Manifest]) -> None:
    kept = {
        title(m): m["spec"].get("revisionHistoryLimit")
        for m in everywhere
        if m["kind"] in ("Deployment", "StatefulSet")
    }
    assert set(kept.values()) == {0}, kept
    own = render_chart({"ui": {"revisionHistoryLimit": 3}})
    assert named(own, "Deployment", "mlops-ui")["spec"]["revisionHistoryLimit"] == 3


def test_global_settings_reach_what_the_operator_makes(everywhere: list[Manifest]) -> None:
    objects = made_by_operator(everywhere)
    assert len(objects) == 2
    for name, manifest in objects.items():
        spec = manifest["spec"]
        for field in (*PLAIN, "tolerations", "topologySpreadConstraints"):
            assert spec[field] == EVERYWHERE[field], f"{name}: {field}"
        assert spec["podMetadata"]["labels"]["team"] == "ml", name
        assert spec["podMetadata"]["annotations"] == EVERYWHERE["podAnnotations"], name
        assert (spec["volumes"], spec["volumeMounts"]) == (EVERYWHERE["extraVolumes"], EVERYWHERE["extraVolumeMounts"])
        container, sidecar = spec["containers"]
        assert sidecar == EVERYWHERE["extraContainers"][0]
        assert "runtimeClassName" not in spec, "their kinds have no such field"
        assert container["name"] == manifest["kind"].lower()
        assert (container["env"], container["envFrom"]) == (EVERYWHERE["extraEnv"], EVERYWHERE["extraEnvFrom"])


def test_no_label_of_ours_can_be_taken(everywhere: list[Manifest]) -> None:
    """Selectors and policies would miss the pods."""
    plain = {name: pod["metadata"]["labels"] for name, pod in pods(render_chart(POSTGRES)).items()}
    for name, pod in pods(everywhere).items():
        assert pod["metadata"]["labels"] == {**plain[name], "team": "ml"}, name
    labels = [pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in operated(everywhere).values()]
    assert sorted(labels) == ["alertmanager", "prometheus"]


CHARTS = {
    "mlflow": "Deployment/mlops-mlflow",
    "prefect-server": "Deployment/mlops-prefect-server",
    "prefect-worker": "Deployment/mlops-prefect-worker",
    "model-api": "Deployment/mlops-model-api",
    "ui": "Deployment/mlops-ui",
    "postgres": "StatefulSet/mlops-postgres",
    "grafana": "Deployment/mlops-grafana",
    "retrainer": "Deployment/mlops-retrainer",
    "monitoring.operator": "Deployment/mlops-operator",
    "monitoring.kubeStateMetrics": "Deployment/mlops-kube-state-metrics",
    "prefect-worker.jobs": "training Job",
}


def settings_of(chart: str, values: dict[str, Any]) -> dict[str, Any]:
    for part in reversed(chart.split(".")):
        values = {part: values}
    return {**POSTGRES, **values} if chart != "postgres" else {"postgres": {"enabled": True, **values["postgres"]}}


@pytest.mark.parametrize("chart", CHARTS)
def test_a_charts_own_settings_are_for_its_pods_alone(chart: str) -> None:
    own = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "extraEnv": [{"name": "A", "value": "b"}],
        "priorityClassName": "high",
    }
    values = settings_of(chart, own)
    values["global"] = {"nodeSelector": {"pool": "ml"}, "priorityClassName": "low"}
    rendered = pods(render_chart(values))
    spec = rendered[CHARTS[chart]]["spec"]
    assert spec["nodeSelector"] == {"pool": "ml", "disk": "ssd"}
    assert spec["priorityClassName"] == "high"
    assert spec["tolerations"] == own["tolerations"]
    assert own["extraEnv"][0] in main_container(rendered[CHARTS[chart]])["env"]
    for name, pod in rendered.items():
        if name != CHARTS[chart] and (name, chart) != ("Job/mlops-credentials", "prefect-worker"):  # it runs there
            assert pod["spec"]["nodeSelector"] == {"pool": "ml"}, name
            assert pod["spec"]["priorityClassName"] == "low", name


@pytest.mark.parametrize("chart", ["prometheus", "alertmanager"])
def test_own_settings_of_what_the_operator_makes(chart: str) -> None:
    manifests = render_chart({"monitoring": {chart: {"nodeSelector": {"disk": "ssd"}}}})
    for manifest in made_by_operator(manifests).values():
        assert manifest["spec"].get("nodeSelector") == ({"disk": "ssd"} if manifest["kind"].lower() == chart else None)


ACCOUNTS = {**CHARTS, "traefik": "Deployment/mlops-traefik"}


@pytest.mark.parametrize("chart", ACCOUNTS)
def test_an_account_of_ones_own(chart: str) -> None:
    annotation = {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/mlops"}
    annotated = render_chart(settings_of(chart, {"serviceAccount": {"annotations": annotation}}))
    account = pods(annotated)[ACCOUNTS[chart]]["spec"]["serviceAccountName"]
    assert named(annotated, "ServiceAccount", account)["metadata"]["annotations"] == annotation

    theirs = render_chart(settings_of(chart, {"serviceAccount": {"create": False, "name": "theirs"}}))
    assert pods(theirs)[ACCOUNTS[chart]]["spec"]["serviceAccountName"] == "theirs"
    assert account not in {m["metadata"]["name"] for m in theirs if m["kind"] == "ServiceAccount"}
    subjects = [s["name"] for m in theirs if m["kind"].endswith("RoleBinding") for s in m["subjects"]]
    assert account not in subjects, "rights of an account that is not used"

    none = render_chart(settings_of(chart, {"serviceAccount": {"create": False}}))
    assert pods(none)[ACCOUNTS[chart]]["spec"]["serviceAccountName"] == "default"


def test_on_openshift_the_namespace_gives_the_users() -> None:
    manifests = render_chart({"global": {"openshift": True}, **POSTGRES})
    specs = {name: pod["spec"] for name, pod in pods(manifests).items()}
    specs |= {name: manifest["spec"] for name, manifest in made_by_operator(manifests).items()}
    for name, spec in specs.items():
        context = spec["securityContext"]
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(context), name
        assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"}), name


def test_without_policies() -> None:
    rest = render_chart({"global": {"networkPolicy": {"enabled": False}}, **POSTGRES})
    assert not [title(m) for m in rest if m["kind"] == "NetworkPolicy"]
    every = render_chart(POSTGRES)
    assert {title(m) for m in rest} == {title(m) for m in every if m["kind"] != "NetworkPolicy"}


def test_another_dns() -> None:
    node_local = {"to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}], "ports": [53, 5353]}
    manifests = render_chart({"global": {"networkPolicy": {"dns": node_local}}})
    policies = [m for m in manifests if m["kind"] == "NetworkPolicy" and m["spec"].get("egress")]
    ports = [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]
    for policy in policies:
        assert {"to": node_local["to"], "ports": ports} in policy["spec"]["egress"], title(policy)
        assert "kube-dns" not in str(policy), title(policy)


# -- names ---------------------------------------------------------------------------------------------------------


def rendered(values: dict[str, Any], release: str) -> list[Manifest]:
    done = template(values, release=release)
    assert done.returncode == 0, done.stderr
    return [m for m in yaml.safe_load_all(done.stdout) if m]


@pytest.mark.parametrize(
    ("values", "begin"),
    [({"fullnameOverride": "ml"}, "ml-"), ({"nameOverride": "iris"}, "mlops-iris-"), ({}, "mlops-")],
)
def test_names_begin_as_they_are_told_to(values: dict[str, Any], begin: str) -> None:
    manifests = rendered({**values, **POSTGRES}, "mlops")
    for manifest in manifests:
        # what is in no namespace begins with one
        name = manifest["metadata"]["name"].removeprefix("mlops-" if manifest["kind"] == "IngressClass" else "mlops.")
        assert f"{name}-".startswith(begin), title(manifest)
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == begin.removesuffix("-"), title(manifest)


def test_what_is_handed_down_is_so_before_any_chart_is_rendered() -> None:
    """Helm renders the templates of deeper folders first; two of one depth come in no order."""
    (first,) = CHART.glob("templates/**/handed-down.yaml")
    depths = {path: len(path.parts) for path in CHART.rglob("*.yaml") if "templates" in path.parts and path != first}
    assert len(first.parts) > max(depths.values())


def test_labels_and_annotations_of_all_objects() -> None:
    labels, annotations = (
        {"cost-center": "42", "app.kubernetes.io/owner": "ml"},
        {"example.com/contact": "ml@example.com"},
    )
    plain = {title(m): m for m in render_chart(POSTGRES)}
    manifests = render_chart({"commonLabels": labels, "commonAnnotations": annotations, **POSTGRES})
    assert {title(m) for m in manifests} == set(plain)
    job = job_template(manifests)
    for manifest in [*manifests, {**job, "metadata": {"name": "training", **job["metadata"]}}]:
        assert labels.items() <= manifest["metadata"]["labels"].items(), title(manifest)
        assert annotations.items() <= manifest["metadata"]["annotations"].items(), title(manifest)
        before = plain.get(title(manifest), {"metadata": {}})["metadata"]
        assert before.get("labels", {}).items() <= manifest["metadata"]["labels"].items(), title(manifest)
        assert before.get("annotations", {}).items() <= manifest["metadata"]["annotations"].items(), title(manifest)
    for name, pod in {**pods(manifests), **operated(manifests)}.items():
        assert labels.items() <= pod["metadata"]["labels"].items(), name
    claim = named(manifests, "Prometheus", "mlops")["spec"]["storage"]["volumeClaimTemplate"]
    assert claim["metadata"]["labels"] == labels
    for manifest in manifests:
        selector = manifest.get("spec", {}).get("selector", {}) if isinstance(manifest.get("spec"), dict) else {}
        assert "cost-center" not in str(selector), title(manifest)


def test_a_label_of_the_charts_cannot_be_common() -> None:
    done = template({"commonLabels": {"app.kubernetes.io/instance": "x"}})
    assert done.returncode != 0
    assert "commonLabels has app.kubernetes.io/instance=x, but the chart sets" in done.stderr


def test_objects_of_ones_own() -> None:
    manifests = render_chart(
        {
            "extraObjects": [
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": '{{ include "lib.fullname" . }}-extra'},
                    "data": {"namespace": "{{ .Release.Namespace }}"},
                },
                "apiVersion: v1\nkind: Secret\nmetadata: {name: as-text}\n",
            ]
        }
    )
    assert named(manifests, "ConfigMap", "mlops-extra")["data"] == {"namespace": "mlops"}
    assert named(manifests, "Secret", "as-text")


def test_no_name_is_too_long() -> None:
    releases = [f"{'a-very-long-name-of-a-release-' * 2}"[:52] + digit for digit in "12"]
    names = []
    for release in releases:
        manifests = rendered(POSTGRES, release)
        names.append({title(m) for m in manifests})
        for manifest in manifests:
            assert len(manifest["metadata"]["name"]) <= 63, title(manifest)
            for value in manifest["metadata"]["labels"].values():
                assert len(value) <= 63, title(manifest)
            if manifest["kind"] == "Prometheus":  # its pods: prometheus-<name>-0, their hash's label as long again
                assert len(f"prometheus-{manifest['metadata']['name']}-0123456789") <= 63
    assert not names[0] & names[1], "two releases share an object"


# -- probes, services, the way out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("chart", [chart for chart in ACCOUNTS if chart != "prefect-worker.jobs"])
def test_when_a_probe_asks(chart: str) -> None:
    before = main_container(pods(render_chart(POSTGRES))[ACCOUNTS[chart]])
    own = {"startupProbe": {"failureThreshold": 500}, "livenessProbe": {"initialDelaySeconds": 0, "timeoutSeconds": 33}}
    after = main_container(pods(render_chart(settings_of(chart, own)))[ACCOUNTS[chart]])
    assert after["startupProbe"] == {**before["startupProbe"], "failureThreshold": 500}
    assert after["livenessProbe"] == {**before["livenessProbe"], "initialDelaySeconds": 0, "timeoutSeconds": 33}
    assert after["readinessProbe"] == before["readinessProbe"]


REACHED = ("mlflow", "prefect-server", "model-api", "ui", "grafana", "monitoring.prometheus", "traefik")


@pytest.mark.parametrize("chart", REACHED)
def test_a_service_as_it_is_wanted(chart: str) -> None:
    own = {
        "type": "LoadBalancer",
        "nodePort": 30123,
        "annotations": {"lb": "internal"},
        "loadBalancerClass": "example.com/internal",
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
        "externalTrafficPolicy": "Local",
    }
    values = settings_of(chart, {"service": own})
    values["global"] = {
        "service": {"annotations": {"all": "yes"}, "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}
    }
    manifests = render_chart(values)
    name = f"mlops-{chart.rpartition('.')[2]}"
    service = named(manifests, "Service", name)
    plain = named(render_chart(), "Service", name)["spec"]
    assert service["metadata"]["annotations"] == {"all": "yes", "lb": "internal"}
    assert service["spec"]["ports"][0].pop("nodePort") == 30123
    expected = {**plain, **{k: v for k, v in own.items() if k not in ("annotations", "nodePort")}}
    expected |= {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}
    expected["ports"] = [{k: v for k, v in port.items() if k != "nodePort"} for port in plain["ports"]]
    assert service["spec"] == expected
    if chart != "traefik":  # which lets everybody in
        (rule,) = named(manifests, "NetworkPolicy", name)["spec"]["ingress"]
        assert {"ipBlock": {"cidr": "0.0.0.0/0"}} in rule["from"], "the way in that was asked for"


def test_a_proxy_is_for_the_outside_alone() -> None:
    proxy = {"httpsProxy": "http://proxy.corp.example:3128", "noProxy": ".corp.example,10.0.0.0/8"}
    manifests = render_chart({"global": {"proxy": proxy}, **POSTGRES})
    found = {name: main_container(pod) for name, pod in pods(manifests).items()}
    found |= {name: m["spec"]["containers"][0] for name, m in made_by_operator(manifests).items()}
    services = {m["metadata"]["name"] for m in manifests if m["kind"] == "Service" and "clusterIP" not in m["spec"]}
    for name, container in found.items():
        if name in ("Pod/mlops-loop", "Job/mlops-credentials"):
            continue  # they ask nobody outside
        env = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert env["HTTPS_PROXY"] == env["https_proxy"] == proxy["httpsProxy"], name
        assert "HTTP_PROXY" not in env, name
        direct = env["NO_PROXY"].split(",")
        assert {*proxy["noProxy"].split(","), ".svc", "localhost", "$(KUBERNETES_SERVICE_HOST)"} <= set(direct), name
        for service in services - {"mlops-traefik", "mlops-kube-state-metrics"}:  # nobody asks these by name
            assert {service, f"{service}.mlops"} <= set(direct), name


def test_how_many_pods_drained_nodes_may_take() -> None:
    def budget(**own: Any) -> Any:
        found = [
            m for m in render_chart({"model-api": {"podDisruptionBudget": own}}) if m["kind"] == "PodDisruptionBudget"
        ]
        return {k: v for m in found for k, v in m["spec"].items() if k != "selector"}

    assert budget(enabled=True) == {"maxUnavailable": 1}
    assert budget(maxUnavailable="50%") == {"maxUnavailable": "50%"}
    assert budget(minAvailable=0) == {"minAvailable": 0}
    assert budget(enabled=False) == {}


def test_an_image_for_trainings_alone() -> None:
    own = {
        "registry": "registry.example.com/team",
        "repository": "ml/flows-torch",
        "tag": "2.1",
        "pullPolicy": "Always",
    }
    manifests = render_chart({"prefect-worker": {"jobs": {"image": own}}, "global": {"imageRegistry": "other.example"}})
    rendered = pods(manifests)
    for container in containers(rendered["training Job"]):
        assert container["image"] == "registry.example.com/team/ml/flows-torch:2.1"
        assert container["imagePullPolicy"] == "Always"
    env = main_container(rendered["training Job"])["env"]
    assert {"name": "MLOPS_IMAGE", "value": "registry.example.com/team/ml/flows-torch:2.1"} in env
    worker = main_container(rendered["Deployment/mlops-prefect-worker"])
    assert worker["image"].startswith("other.example/mlops/flows:")


def test_half_an_image_for_trainings_is_refused() -> None:
    done = template({"prefect-worker": {"jobs": {"image": {"tag": "2.1"}}}})
    assert done.returncode != 0
    assert "prefect-worker.jobs.image has no repository" in done.stderr


# -- volumes -------------------------------------------------------------------------------------------------------

VOLUMES = {"mlflow": "Deployment", "prefect-server": "Deployment", "postgres": "StatefulSet", "grafana": "Deployment"}


def volume(chart: str, persistence: dict[str, Any]) -> tuple[list[Manifest], Manifest]:
    """All manifests, and the volume `data` of the chart's pod."""
    manifests = render_chart(settings_of(chart, {"persistence": persistence}))
    spec = named(manifests, VOLUMES[chart], f"mlops-{chart}")["spec"]["template"]["spec"]
    (data,) = (each for each in spec["volumes"] if each["name"] == "data")
    return manifests, data


@pytest.mark.parametrize("chart", VOLUMES)
def test_a_claim_as_it_is_wanted(chart: str) -> None:
    wanted = {
        "enabled": True,
        "size": "20Gi",
        "storageClass": "fast",
        "accessModes": ["ReadWriteMany"],
        "annotations": {"backup": "daily"},
    }
    manifests, data = volume(chart, wanted)
    claim = named(manifests, "PersistentVolumeClaim", f"mlops-{chart}")
    assert data["persistentVolumeClaim"] == {"claimName": f"mlops-{chart}"}
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "20Gi"}},
    }
    assert claim["metadata"]["annotations"]["backup"] == "daily"
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("chart", VOLUMES)
def test_a_claim_that_is_there_or_none(chart: str) -> None:
    manifests, data = volume(chart, {"enabled": True, "existingClaim": "theirs"})
    assert data["persistentVolumeClaim"] == {"claimName": "theirs"}
    assert f"PersistentVolumeClaim/mlops-{chart}" not in {title(m) for m in manifests}
    manifests, data = volume(chart, {"enabled": False, "size": "1Gi"})
    assert data["emptyDir"] == {"sizeLimit": "1Gi"}
    assert f"PersistentVolumeClaim/mlops-{chart}" not in {title(m) for m in manifests}


def test_prometheus_volume() -> None:
    wanted = {"size": "20Gi", "storageClass": "-", "annotations": {"backup": "daily"}}
    manifests = render_chart({"monitoring": {"prometheus": {"persistence": wanted}}})
    claim = named(manifests, "Prometheus", "mlops")["spec"]["storage"]["volumeClaimTemplate"]
    assert claim["spec"]["storageClassName"] == ""
    assert claim["metadata"]["annotations"]["backup"] == "daily"
    theirs = render_chart({"monitoring": {"prometheus": {"persistence": {"existingClaim": "theirs"}}}})
    spec = named(theirs, "Prometheus", "mlops")["spec"]
    assert spec["storage"] == {"emptyDir": {}}
    assert spec["volumes"] == [{"name": "theirs", "persistentVolumeClaim": {"claimName": "theirs"}}]
    assert spec["containers"] == [
        {"name": "prometheus", "volumeMounts": [{"name": "theirs", "mountPath": "/prometheus"}]}
    ]
    off = render_chart({"monitoring": {"prometheus": {"persistence": {"enabled": False, "size": "2Gi"}}}})
    assert named(off, "Prometheus", "mlops")["spec"]["storage"] == {"emptyDir": {"sizeLimit": "2Gi"}}
