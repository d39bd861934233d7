"""What an installation consists of: every object by kind and name, and nothing else."""

from __future__ import annotations

import re

import yaml
from chart import Loader, Manifest, notes, render_chart, template, title
from profiles import PROFILES

SERVICES = ("mlflow", "model-api", "prefect-server", "prefect-worker", "retrainer", "ui")
SERVERS = ("mlflow", "prefect-server")
# What makes the Secret before each install and upgrade.
CREDENTIALS = {
    f"{kind}/mlops-credentials" for kind in ("Job", "NetworkPolicy", "Role", "RoleBinding", "ServiceAccount")
}
COMMON = {
    "NetworkPolicy/mlops-default-deny",
    "NetworkPolicy/mlops-loop",
    "ConfigMap/mlops-dashboards",
    "NetworkPolicy/mlops-training",
    "Pod/mlops-loop",
    "ServiceAccount/mlops-training",
    "ConfigMap/mlops-prefect-worker",
    "Role/mlops-prefect-worker",
    "RoleBinding/mlops-prefect-worker",
    "ValidatingAdmissionPolicy/mlops.mlops-prefect-worker",
    "ValidatingAdmissionPolicyBinding/mlops.mlops-prefect-worker",
    "PersistentVolumeClaim/mlops-mlflow",
    "PersistentVolumeClaim/mlops-prefect-server",
    "HorizontalPodAutoscaler/mlops-model-api",
    "PodDisruptionBudget/mlops-model-api",
    *CREDENTIALS,
    *(f"Service/mlops-{name}" for name in SERVICES),
    *(f"{kind}/mlops-{name}" for name in SERVICES for kind in ("Deployment", "ServiceAccount", "NetworkPolicy")),
}
TRAEFIK = {
    f"{kind}/mlops-traefik"
    for kind in ("ConfigMap", "Deployment", "NetworkPolicy", "Role", "RoleBinding", "Service", "ServiceAccount")
} | {
    *("Service/mlops-traefik-metrics", "ServiceMonitor/mlops-traefik", "NetworkPolicy/mlops-traefik-metrics"),
    *("IngressClass/mlops-mlops", "ClusterRole/mlops-traefik-mlops", "ClusterRoleBinding/mlops-traefik-mlops"),
    "Ingress/mlops-prometheus",
}
INGRESSES = {f"Ingress/mlops-{name}" for name in ("api", "api-docs", "mlflow", "prefect", "ui")} | {
    "NetworkPolicy/mlops-acme"
}
POSTGRES = {
    f"{kind}/mlops-postgres"
    for kind in ("ConfigMap", "NetworkPolicy", "PersistentVolumeClaim", "Service", "ServiceAccount", "StatefulSet")
}
TARGETS = ("mlflow", "model-api", "prefect-server", "prefect-worker", "retrainer")
OWN = ("alertmanager", "kube-state-metrics", "prometheus")
WATCHED = {
    *(f"ServiceMonitor/mlops-{name}" for name in TARGETS),
    *(f"NetworkPolicy/mlops-{name}-metrics" for name in TARGETS),
    "AlertmanagerConfig/mlops-retrainer",
    "PrometheusRule/mlops-monitoring",
}
MONITORING = {
    *WATCHED,
    *("Prometheus/mlops", "Alertmanager/mlops", "Secret/mlops-prometheus", "Deployment/mlops-kube-state-metrics"),
    *(
        f"{kind}/mlops-{name}"
        for name in OWN
        for kind in ("Service", "ServiceAccount", "NetworkPolicy", "ServiceMonitor")
    ),
    *(f"{kind}/mlops-{name}" for name in OWN[1:] for kind in ("Role", "RoleBinding")),
    *("ClusterRole/mlops-prometheus-mlops", "ClusterRoleBinding/mlops-prometheus-mlops"),
    *(f"{kind}/mlops-operator" for kind in ("Deployment", "NetworkPolicy", "Role", "RoleBinding", "ServiceAccount")),
}
RETRAINER = {f"{kind}/mlops-retrainer" for kind in ("Deployment", "NetworkPolicy", "Service", "ServiceAccount")}
GRAFANA = {
    f"{kind}/mlops-grafana"
    for kind in ("ConfigMap", "Deployment", "Ingress", "NetworkPolicy", "Service", "ServiceAccount")
}
BACKUP = {
    *(f"CronJob/mlops-backup-{component}" for component in ("mlflow", "prefect", "secrets")),
    "Job/mlops-backup-volume",
    *(f"{kind}/mlops-backup" for kind in ("NetworkPolicy", "PersistentVolumeClaim", "ServiceAccount")),
}
EXPECTED = {
    "defaults": COMMON | MONITORING | TRAEFIK | INGRESSES | GRAFANA,
    "postgres": COMMON | MONITORING | TRAEFIK | INGRESSES | GRAFANA | POSTGRES,
    "external": COMMON - {*CREDENTIALS, "HorizontalPodAutoscaler/mlops-model-api", "PersistentVolumeClaim/mlops-mlflow"}
    | GRAFANA
    | WATCHED
    | {"PersistentVolumeClaim/mlops-grafana"}
    | INGRESSES,
    "replicas": (COMMON | MONITORING | TRAEFIK | INGRESSES | GRAFANA | POSTGRES)
    - {f"PersistentVolumeClaim/mlops-{name}" for name in SERVERS}
    | {f"PodDisruptionBudget/mlops-{name}" for name in SERVERS},
    "development": COMMON - RETRAINER,
    "backup": (COMMON - RETRAINER) | BACKUP,
    "backup of postgres": (COMMON - RETRAINER) | POSTGRES | BACKUP - {"CronJob/mlops-backup-secrets"},
}


def test_every_object_is_known(profile: str, manifests: list[Manifest]) -> None:
    # a Job that asks for a volume is named by what is in it
    titles = [re.sub(r"(?<=^Job/mlops-backup-volume)-[0-9a-f]{8}$", "", title(manifest)) for manifest in manifests]
    assert len(titles) == len(set(titles)), "an object comes twice"
    assert not set(titles) - EXPECTED[profile], "rendered, and not expected"
    assert not EXPECTED[profile] - set(titles), "expected, and not rendered"


def test_every_object_is_in_the_namespace_and_labelled(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        metadata = manifest["metadata"]
        if not manifest["kind"].startswith(("Cluster", "IngressClass", "ValidatingAdmission")):
            assert metadata["namespace"] == "mlops", title(manifest)
        labels = metadata["labels"]
        assert labels["app.kubernetes.io/part-of"] == "mlops", title(manifest)
        assert {"app.kubernetes.io/name", "app.kubernetes.io/instance", "helm.sh/chart"} <= set(labels), title(manifest)


def test_another_release_name_shares_no_object() -> None:
    other = template(release="second")
    assert other.returncode == 0, other.stderr
    titles = {title(manifest) for manifest in yaml.load_all(other.stdout, Loader) if manifest}
    assert not titles & {title(manifest) for manifest in render_chart()}


def test_notes_say_the_next_commands() -> None:
    text = notes()
    for service, port in (
        ("ui", 8501),
        ("model-api", 8086),
        ("mlflow", 5000),
        ("prefect-server", 4200),
        ("grafana", 3000),
    ):
        assert f"kubectl -n mlops port-forward svc/mlops-{service} {port}" in text
    for name in ("ui", "api", "mlflow", "prefect", "grafana"):
        assert f"http://{name}.localhost:8080" in text
    for command in (
        "kubectl -n mlops get secret mlops-credentials -o jsonpath='{.data.mlflow-admin-password}' | base64 -d",
        "kubectl -n mlops get secret mlops-credentials -o jsonpath='{.data.prefect-auth-string}' | base64 -d",
        "kubectl -n mlops get secret mlops-credentials -o jsonpath='{.data.grafana-admin-password}' | base64 -d",
        "kubectl -n mlops exec deployment/mlops-prefect-worker -- prefect deployment run train/iris",
        "curl 'http://api.localhost:8080/predict?sepal_length=5.1",
        "helm test mlops -n mlops",
    ):
        assert command in text


def test_all_profiles_are_in_the_inventory() -> None:
    assert set(PROFILES) == set(EXPECTED)
