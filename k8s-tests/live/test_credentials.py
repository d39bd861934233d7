"""The Secret of passwords and keys: made once, kept by all that is applied again, rotated by the command."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from load import FLOWER
from namespace import RESTRICTED, Namespace, wait_for
from release import CHART, CONTEXT, Platform, run

from app.cli.credentials import BY_KEY
from app.clients.kubernetes import RESTARTED
from app.clients.model_api import WITH_TOKENS
from app.clients.prometheus import PrometheusClient

OTHER = "other"  # the name of a release of which there is nothing but what makes its Secret
SECRET = JOB = f"{OTHER}-credentials"
HOOKS = ("networkpolicy", "serviceaccount", "role", "rolebinding", "job")


def values_of(namespace: Namespace, name: str = SECRET) -> dict[str, str]:
    """The values of a Secret as they are now."""
    data = namespace.core.read_namespaced_secret(name, namespace.name).data
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """The keys that have another value, or are only in one of the two."""
    return {key for key in before | after if before.get(key) != after.get(key)}


def rotate(namespace: Namespace, *keys: str, name: str = SECRET) -> str:
    """Run the command on this machine, as people do."""
    where = ["--context", CONTEXT, "--namespace", namespace.name, "--name", name]
    return run([sys.executable, "-m", "app.cli", "credentials", "rotate", *keys, *where])


@pytest.fixture
def rendered(platform: Platform, namespace: Namespace, tmp_path: Path) -> Path:
    """What `helm template` makes of the hooks, with the values of the release that runs: so the images are there."""
    values, manifests = tmp_path / "values.json", tmp_path / "rendered.yaml"
    values.write_text(platform.helm("get", "values", platform.release, "--output", "json"))
    only = [f"--show-only=templates/credentials/{name}.yaml" for name in HOOKS]
    manifests.write_text(
        run(["helm", "template", OTHER, CHART, "--namespace", namespace.name, "--values", str(values), *only])
    )
    return manifests


def apply(namespace: Namespace, manifests: Path) -> None:
    """`kubectl apply` without Helm, until the Job has succeeded."""
    run(["kubectl", "--context", CONTEXT, "apply", "--server-side", "-n", namespace.name, "-f", str(manifests)])
    batch = client.BatchV1Api(namespace.api)
    wait_for(lambda: batch.read_namespaced_job_status(JOB, namespace.name).status.succeeded, f"Job {JOB}", 180)


def remove_job(namespace: Namespace) -> None:
    """What its ttlSecondsAfterFinished does after five minutes."""
    batch = client.BatchV1Api(namespace.api)
    batch.delete_namespaced_job(JOB, namespace.name, propagation_policy="Foreground")

    def is_gone() -> bool:
        try:
            batch.read_namespaced_job(JOB, namespace.name)
        except ApiException as error:
            return error.status == 404
        return False

    wait_for(is_gone, f"no Job {JOB} is left")


def sleeping_deployment(name: str, key: str) -> dict[str, Any]:
    """A Deployment without pods that reads a key of the Secret."""
    variable = {"name": "VALUE", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}}
    container = {"name": "main", "image": "none", "env": [variable], "securityContext": RESTRICTED}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def restarted(namespace: Namespace) -> set[str]:
    """The Deployments whose pods were replaced by the command or `kubectl rollout restart`."""
    deployments = client.AppsV1Api(namespace.api).list_namespaced_deployment(namespace.name).items
    return {d.metadata.name for d in deployments if RESTARTED in (d.spec.template.metadata.annotations or {})}


def test_applied_twice_no_value_changes_and_a_rotation_changes_one(namespace: Namespace, rendered: Path) -> None:
    apply(namespace, rendered)
    made = values_of(namespace)
    assert set(made) == set(BY_KEY)
    apply(namespace, rendered)  # the Job is still there
    remove_job(namespace)
    apply(namespace, rendered)  # it runs a second time
    assert values_of(namespace) == made

    patch = [{"op": "remove", "path": "/data/feedback-key"}]
    namespace.core.patch_namespaced_secret(SECRET, namespace.name, patch)
    remove_job(namespace)
    apply(namespace, rendered)
    assert changed(made, values_of(namespace)) == {"feedback-key"}, "what lacks is added, and nothing else"

    before = values_of(namespace)
    for name, key in (("reader", "pages-users"), ("bystander", "retrainer-token")):
        namespace.create(sleeping_deployment(name, key))
    said = rotate(namespace, "pages-password")
    after = values_of(namespace)
    assert changed(before, after) == {"pages-password", "pages-users"}
    assert restarted(namespace) == {"reader"}
    assert "restarted deployment/reader" in said
    assert after["pages-password"] not in said


def test_the_release_knows_the_secret_no_more(platform: Platform) -> None:
    """Neither Helm nor what it has rendered; else an uninstall or a rollback would remove it."""
    manifest = platform.helm("get", "manifest", platform.release)
    assert "kind: Secret\nmetadata:\n  name: mlops-credentials" not in manifest
    names = [job.metadata.name for job in client.BatchV1Api(platform.api).list_namespaced_job(platform.name).items]
    assert f"{platform.release}-credentials" not in names, "the hook was not removed"
    accounts = platform.core.list_namespaced_service_account(platform.name).items
    assert f"{platform.release}-credentials" not in [account.metadata.name for account in accounts]


def test_rotated_passwords_are_those_that_count(platform: Platform, prometheus: PrometheusClient) -> None:
    """People's at Traefik, the admin's and the reader's at MLflow; Prometheus and the API take their new ones up."""
    keys = ("pages-password", "mlflow-admin-password", "mlflow-reader-password")
    secret = f"{platform.release}-credentials"
    before = values_of(platform, secret)
    said = rotate(platform, *keys, name=secret)
    platform.__dict__.pop("credentials", None)  # read anew
    platform.ready()
    after = platform.credentials
    assert changed(before, after) == {*keys, "pages-users"}
    for name in ("traefik", "mlflow", "model-api", "ui", "retrainer"):
        assert f"restarted deployment/{platform.release}-{name}" in said

    for name, key, path in (
        ("prometheus", "pages-password", "/api/v1/status/buildinfo"),
        ("mlflow", "mlflow-admin-password", "/api/2.0/mlflow/users/get?username=admin"),
    ):
        with platform.client(name) as http:
            wait_for(lambda http=http, path=path: http.get(path).status_code == 200, f"{name}: the new password")
            http.auth = httpx.BasicAuth("admin", before[key])
            assert http.get(path).status_code == 401, f"{name}: the old password"

    with platform.client("api") as http:
        prediction = http.get(FLOWER, headers=WITH_TOKENS).raise_for_status().json()
        feedback = {"feedback_token": prediction["feedback_token"], "label": "setosa"}
        wait_for(lambda: http.post("/feedback", json=feedback).status_code == 201, "feedback with the reader's account")
    up = f'up{{job="{platform.release}-mlflow"}} == 1'
    wait_for(lambda: prometheus.query(up), "Prometheus reads MLflow's metrics with the admin's new password", 180)
