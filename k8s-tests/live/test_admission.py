"""What Kubernetes lets the worker make: the chart's trainings and nothing else. Nothing runs: requests are dry ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from namespace import Namespace, wait_for
from release import CHART, CONTEXT, Platform, run

from app.testing.training_job import training_job

Change = Callable[[dict[str, Any]], Any]


pytestmark = pytest.mark.quiet


def _pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def _container(job: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = _pod(job)["containers"][0]
    return container


def _security(job: dict[str, Any]) -> dict[str, Any]:
    context: dict[str, Any] = _container(job)["securityContext"]
    return context


def _labels(job: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = job["spec"]["template"]["metadata"]["labels"]
    return labels


def _secret(key: str, name: str = "mlops-credentials") -> dict[str, Any]:
    return {"name": "STOLEN", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def _volume(**source: Any) -> dict[str, Any]:
    return {"name": "more", **source}


# What whoever may change Prefect's work pool could ask for -> (the change of a training's Job, what the refusal names).
FORBIDDEN: dict[str, tuple[Change, str]] = {
    "the operator's account": (
        lambda job: _pod(job).update(serviceAccountName="mlops-operator", serviceAccount="mlops-operator"),
        "serviceAccountName",
    ),
    "a token": (lambda job: _pod(job).update(automountServiceAccountToken=True), "automountServiceAccountToken"),
    "a token by a volume": (
        lambda job: _pod(job)["volumes"].append(
            _volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]})
        ),
        "volumes",
    ),
    "an image of its own": (lambda job: _container(job).update(image="evil.example.com/x:1"), "containers[].image"),
    "an image of its own before": (
        lambda job: _pod(job)["initContainers"][0].update(image="evil.example.com/x:1"),
        "containers[].image",
    ),
    "a further container": (
        lambda job: _pod(job)["containers"].append({**_container(job), "name": "more"}),
        "spec.template.spec.containers, initContainers",
    ),
    "the host's files": (lambda job: _pod(job)["volumes"].append(_volume(hostPath={"path": "/"})), "volumes"),
    "MLflow's volume": (
        lambda job: _pod(job)["volumes"].append(_volume(persistentVolumeClaim={"claimName": "mlops-mlflow"})),
        "volumes",
    ),
    "all passwords in a volume": (
        lambda job: _pod(job)["volumes"].append(_volume(secret={"secretName": "mlops-credentials"})),
        "volumes",
    ),
    "the admin's password": (
        lambda job: _container(job)["env"].append(_secret("mlflow-admin-password")),
        "mlops-credentials/mlflow-admin-password",
    ),
    "another Secret": (lambda job: _container(job)["env"].append(_secret("k", "theirs")), "theirs/k"),
    "all passwords": (
        lambda job: _container(job).update(envFrom=[{"secretRef": {"name": "mlops-credentials"}}]),
        "the Secret mlops-credentials",
    ),
    "the host's network": (lambda job: _pod(job).update(hostNetwork=True), "hostNetwork"),
    "the host's processes": (lambda job: _pod(job).update(hostPID=True), "hostPID"),
    "the host's memory": (lambda job: _pod(job).update(hostIPC=True), "hostIPC"),
    "a port of the host": (
        lambda job: _container(job).update(ports=[{"containerPort": 80, "hostPort": 80}]),
        "hostPort",
    ),
    "a node": (lambda job: _pod(job).update(nodeName="mlops-control-plane"), "nodeName"),
    "the control plane's nodes": (lambda job: _pod(job).update(tolerations=[{"operator": "Exists"}]), "tolerations"),
    "to go before all others": (
        lambda job: _pod(job).update(priorityClassName="system-cluster-critical"),
        "priorityClassName",
    ),
    "privilege": (
        lambda job: _security(job).update(privileged=True, allowPrivilegeEscalation=True),
        "must not be privileged",
    ),
    "more privilege by a program": (
        lambda job: _security(job).update(allowPrivilegeEscalation=True),
        "allowPrivilegeEscalation",
    ),
    "a capability": (
        lambda job: _security(job).update(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}),
        "capabilities",
    ),
    "to be root": (lambda job: _security(job).update(runAsUser=0), "runAsUser"),
    "to be root, maybe": (lambda job: _pod(job)["securityContext"].update(runAsNonRoot=False), "runAsNonRoot"),
    "every system call": (
        lambda job: _security(job).update(seccompProfile={"type": "Unconfined"}),
        "seccompProfile",
    ),
    "another SELinux type": (
        lambda job: _security(job).update(seLinuxOptions={"type": "spc_t"}),
        "seLinuxOptions",
    ),
    "the labels of MLflow": (
        lambda job: _labels(job).update({"app.kubernetes.io/component": "mlflow"}),
        "app.kubernetes.io/component=training",
    ),
    "no labels of policies": (
        lambda job: _labels(job).pop("app.kubernetes.io/instance"),
        "app.kubernetes.io/instance=mlops",
    ),
    "the labels of a neighbour": (lambda job: _labels(job).update(app="theirs"), "must not have app"),
    "the kubelet's connections": (
        lambda job: _container(job).update(
            startupProbe={"httpGet": {"host": "metadata.example.com", "port": 80, "path": "/"}}
        ),
        "no probes",
    ),
    "many pods": (lambda job: job["spec"].update(parallelism=50, completions=50), "parallelism"),
    "to be another's": (
        lambda job: job["metadata"].update(
            ownerReferences=[{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]
        ),
        "ownerReferences",
    ),
}


def worker_of(platform: Platform) -> client.BatchV1Api:
    """A client with the rights of a release's worker."""
    api = client.ApiClient(platform.api.configuration)
    api.set_default_header(
        "Impersonate-User", f"system:serviceaccount:{platform.name}:{platform.release}-prefect-worker"
    )
    return client.BatchV1Api(api)


def template_of(platform: Platform) -> dict[str, Any]:
    """The base job template that a release's worker gives Prefect."""
    config = platform.core.read_namespaced_config_map(f"{platform.release}-prefect-worker", platform.name)
    return dict(json.loads(config.data["base-job-template.json"]))


@pytest.fixture(scope="module")
def worker(platform: Platform) -> client.BatchV1Api:
    """A client with the rights of the platform's worker."""
    return worker_of(platform)


@pytest.fixture(scope="module")
def template(platform: Platform) -> dict[str, Any]:
    """The base job template of the platform's trainings."""
    return template_of(platform)


@pytest.fixture
def training(platform: Platform, template: dict[str, Any]) -> dict[str, Any]:
    """The Job of a flow run."""
    address = f"http://{platform.release}-prefect-server:4200/api"
    return training_job(template, {"PREFECT_API_URL": address}, cpu="250m", memory="2Gi")


def _create(batch: client.BatchV1Api, platform: Platform, job: dict[str, Any]) -> None:
    batch.create_namespaced_job(platform.name, job, dry_run="All")


def test_a_training_may_be_made(platform: Platform, worker: client.BatchV1Api, training: dict[str, Any]) -> None:
    _create(worker, platform, training)


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_else_may_be_made(
    what: str, platform: Platform, worker: client.BatchV1Api, training: dict[str, Any]
) -> None:
    change, named = FORBIDDEN[what]
    job = copy.deepcopy(training)
    change(job)
    with pytest.raises(ApiException) as refused:
        _create(worker, platform, job)
    message = json.loads(refused.value.body)["message"]
    assert refused.value.status == 422, message  # at 403 Prefect would tell of missing rights
    assert "ValidatingAdmissionPolicy" in message
    assert named in message


def test_others_are_not_asked(platform: Platform, training: dict[str, Any]) -> None:
    """Whoever may make Jobs in the namespace makes them as before: the policy is about the worker's account."""
    FORBIDDEN["an image of its own"][0](training)
    _create(client.BatchV1Api(platform.api), platform, training)


@pytest.fixture
def suspended(platform: Platform, training: dict[str, Any]) -> Iterator[str]:
    """The name of a Job that starts no pod."""
    batch = client.BatchV1Api(platform.api)
    training["spec"]["suspend"] = True
    name = batch.create_namespaced_job(platform.name, training).metadata.name
    yield name
    batch.delete_namespaced_job(name, platform.name, propagation_policy="Background")


def test_a_job_that_is_there_is_not_made_another(platform: Platform, worker: client.BatchV1Api, suspended: str) -> None:
    """Of a suspended Job the pods' labels and tolerations can be changed."""
    changed = {"spec": {"template": {"spec": {"tolerations": [{"operator": "Exists"}]}}}}
    with pytest.raises(ApiException) as refused:
        worker.patch_namespaced_job(suspended, platform.name, changed, dry_run="All")
    assert "tolerations" in json.loads(refused.value.body)["message"]
    worker.patch_namespaced_job(suspended, platform.name, {"spec": {"suspend": True}}, dry_run="All")


def assert_understood(api: client.ApiClient, policy: str) -> None:
    """Kubernetes has compared every expression with the types of a Job, and found nothing that does not fit."""

    def checked() -> Any:
        return client.AdmissionregistrationV1Api(api).read_validating_admission_policy(policy).status.type_checking

    assert not wait_for(checked, f"the status of {policy}").expression_warnings


def test_the_rules_are_understood(platform: Platform) -> None:
    assert_understood(platform.api, f"{platform.name}.{platform.release}-prefect-worker")


# -- what settings add -----------------------------------------------------------------------------------------------

VOLUMES = [
    {"name": "ca", "configMap": {"name": "ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    {"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
    {"name": "vault", "csi": {"driver": "csi.example.com", "volumeAttributes": {"secret-class": "vault"}}},
    {"name": "both", "projected": {"sources": [{"secret": {"name": "theirs"}}, {"configMap": {"name": "ca"}}]}},
    {"name": "scratch", "emptyDir": {"sizeLimit": "1024Mi"}},
]
SETTINGS: dict[str, Any] = {
    "allowedImages": ["registry.example.com/models/*", "example.com/exact:1"],
    "extraVolumes": VOLUMES,
    "extraVolumeMounts": [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in VOLUMES],
    "extraEnv": [_secret("token", "theirs")],
    "extraEnvFrom": [{"secretRef": {"name": "data"}}, {"configMapRef": {"name": "plain"}}],
    "podLabels": {"team": "a"},
    "tolerations": [{"key": "batch", "operator": "Exists", "effect": "NoSchedule"}],
    "imagePullSecrets": ["pull"],
    "priorityClassName": "batch",
    "podSecurityContext": {"seLinuxOptions": {"level": "s0:c1"}},
    "serviceAccount": {"name": "data-reader", "create": False},
}
# Change -> what the refusal names; "" where it is none.
WITH_SETTINGS: dict[str, tuple[Change, str]] = {
    "as it is": (lambda job: None, ""),
    "an allowed image": (lambda job: _container(job).update(image="registry.example.com/models/iris:3"), ""),
    "an image that begins so": (
        lambda job: _container(job).update(image="example.com/exact:12"),
        "example.com/exact:12",
    ),
    "an image whose name only looks so": (
        lambda job: _container(job).update(image="registryXexample.com/models/iris:3"),
        "registryXexample.com",
    ),
    "another key of a Secret": (lambda job: _container(job)["env"].append(_secret("more", "theirs")), "theirs/more"),
    "another claim by the name": (
        lambda job: _pod(job)["volumes"][2].update(persistentVolumeClaim={"claimName": "mlops-mlflow"}),
        "unlike data",
    ),
    "another kind by the name": (
        lambda job: _pod(job)["volumes"].__setitem__(1, {"name": "ca", "hostPath": {"path": "/"}}),
        "unlike ca",
    ),
    "more in a volume": (
        lambda job: _pod(job)["volumes"][4]["projected"]["sources"].append({"secret": {"name": "more"}}),
        "unlike both",
    ),
    "another attribute": (
        lambda job: _pod(job)["volumes"][3]["csi"]["volumeAttributes"].update({"secret-class": "more"}),
        "unlike vault",
    ),
    "another label": (lambda job: _labels(job).update(team="b"), "team=a"),
    "another toleration": (
        lambda job: _pod(job)["tolerations"].append({"key": "more", "operator": "Exists"}),
        "tolerations",
    ),
    "another SELinux level": (
        lambda job: _pod(job)["securityContext"].update(seLinuxOptions={"type": "spc_t"}),
        "seLinuxOptions",
    ),
}
OF_WORKER = "charts/prefect-worker/templates"
PARTS = ("validatingadmissionpolicy", "configmap", "role", "rolebinding", "serviceaccount")


@pytest.fixture
def settled(namespace: Namespace, tmp_path: Path) -> Iterator[str]:
    """The worker's account, rights and policy with SETTINGS, in a namespace of their own; the policy's name."""
    values = tmp_path / "values.json"
    values.write_text(json.dumps({"prefect-worker": {"jobs": SETTINGS}}))
    parts = [f"--show-only={OF_WORKER}/{part}.yaml" for part in PARTS]
    rendered = run(["helm", "template", "trial", CHART, "--namespace", namespace.name, "--values", str(values), *parts])
    (manifests := tmp_path / "manifests.yaml").write_text(rendered)
    kubectl = ["kubectl", "--context", CONTEXT]
    run([*kubectl, "apply", "--filename", str(manifests)])
    yield f"{namespace.name}.trial-prefect-worker"
    run([*kubectl, "delete", "--ignore-not-found", "--filename", str(manifests)])


def test_what_settings_give_may_be_made_and_no_more(namespace: Namespace, settled: str) -> None:
    platform = Platform(namespace.name, namespace.api, release="trial")
    batch, made_of = worker_of(platform), template_of(platform)
    assert_understood(namespace.api, settled)

    def answer(change: Change) -> str:
        job = training_job(made_of, {"PREFECT_API_URL": "http://trial-prefect-server:4200/api"})
        change(job)
        try:
            _create(batch, platform, job)
        except ApiException as refused:
            return str(json.loads(refused.body)["message"])
        return ""

    wait_for(lambda: answer(FORBIDDEN["a node"][0]), "the policy in force")
    for what, (change, named) in WITH_SETTINGS.items():
        message = answer(change)
        assert named in message if named else not message, f"{what}: {message}"
