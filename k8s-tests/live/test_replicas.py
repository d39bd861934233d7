"""Two pods of MLflow and two of Prefect on PostgreSQL, S3 and Redis, as OpenShift's users: one of each goes.

Beside the platform, in a namespace of its own; S3 and Redis are those of stand-ins/.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kubernetes import client
from load import FLOWER
from namespace import IMAGE, RESTRICTED, wait_for
from release import CHART, CONTEXT, ROOT, Platform, run
from runs import NEVER, ROWS, port_forward, registry_of, runs_of, slow_source
from stand_ins import PASSWORD, secret, stand_in

pytestmark = pytest.mark.drill

USER = 1000680000  # the first of a namespace's range; OpenShift's `restricted-v2` adds it to each pod
SERVERS = ("mlflow", "prefect-server")
CHARTS = (*SERVERS, "prefect-worker", "model-api", "postgres", "ui")
TRIAL = {"promote": False}
# Asks both servers in turn, a new connection each, until it is told to stop; prints how many it asked, and what failed.
LOAD = """
import base64, os, signal, time, urllib.request

stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
asked, failed = 0, []
while not stopped:
    for name, address, account, body in (
        ("mlflow", "mlflow:5000/api/2.0/mlflow/registered-models/search", "admin:" + os.environ["MLFLOW"], None),
        ("prefect", "prefect-server:4200/api/flow_runs/count", os.environ["PREFECT"], b"{}"),
    ):
        account = base64.b64encode(account.encode()).decode()
        headers = {"Authorization": f"Basic {account}", "Content-Type": "application/json"}
        begin = time.time()
        try:
            urllib.request.urlopen(urllib.request.Request(f"http://mlops-{address}", body, headers), timeout=30).read()
        except OSError as error:
            failed.append(f"{name} at {begin:.1f} after {time.time() - begin:.1f} s: {error!r}")
        asked += 1
    time.sleep(0.05)
for line in (asked, *failed):
    print(line)
"""


def settings(platform: Platform) -> dict[str, Any]:
    """On top of the values file for OpenShift: what this cluster is, and what the platform stands on."""
    s3 = stand_in(platform, "s3", 7070, {"ROOT_ACCESS_KEY": "mlflow", "ROOT_SECRET_KEY": PASSWORD})
    redis = stand_in(platform, "redis", 6379, {"PASSWORD": PASSWORD})
    # next to no CPU is reserved: the machine has two cores, and the platform is there, too
    values: dict[str, Any] = {name: {"resources": {"requests": {"cpu": "10m"}}} for name in CHARTS}
    defaults = yaml.safe_load((ROOT / CHART / "values.yaml").read_text())["global"]
    values["global"] = {
        "podSecurityContext": {"runAsUser": USER, "fsGroup": USER},
        "networkPolicy": {"dns": defaults["networkPolicy"]["dns"]},
    }
    values |= {"monitoring": {"enabled": False}, "retrainer": {"enabled": False}}
    values["prefect-worker"]["jobs"] = {"cpu": "10m"}
    values["postgres"]["enabled"] = True
    values["model-api"] |= {"replicas": 1, "autoscaling": {"enabled": False}}
    values["mlflow"] |= {
        "replicas": 2,
        "artifacts": {
            "destination": "s3://mlflow/artifacts",
            "endpointUrl": f"http://{s3}:7070",
            "existingSecret": secret(
                platform, "s3", {"AWS_ACCESS_KEY_ID": "mlflow", "AWS_SECRET_ACCESS_KEY": PASSWORD}
            ),
        },
        "egressCIDRs": [f"{s3}/32"],
    }
    values["prefect-server"] |= {
        "replicas": 2,
        "redis": {"existingSecret": secret(platform, "redis", {"redis-url": f"redis://:{PASSWORD}@{redis}:6379/0"})},
        "egressCIDRs": [f"{redis}/32"],
    }
    return values


@pytest.fixture(scope="module")
def replicated(api: client.ApiClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The platform with two pods of each server, in a namespace under Pod Security `restricted`."""
    core, platform = client.CoreV1Api(api), Platform("mlops-replicas", api)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace({"metadata": {"name": platform.name, "labels": labels}})
    try:
        values = tmp_path_factory.mktemp("values") / "values.yaml"
        values.write_text(yaml.safe_dump(settings(platform)))
        openshift = ROOT / "k8s-tests/render/clusters/openshift.yaml"
        options = ["--values", str(openshift), "--values", str(values), "--wait", "--timeout", "10m"]
        platform.helm("install", platform.release, CHART, *options)
        platform.ready(600)
        yield platform
    finally:
        platform.helm("uninstall", platform.release, "--ignore-not-found")  # what is not in the namespace, too
        core.delete_namespace(platform.name)


def predicts(platform: Platform) -> str:
    """The version that answers, "" where none does."""
    with port_forward(platform, "model-api", 8086) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}{FLOWER}", timeout=30)
        return str(answer.json()["version"]) if answer.status_code == 200 else ""


def test_every_pod_runs_as_the_namespaces_user_and_a_prediction_is_made(replicated: Platform) -> None:
    assert wait_for(lambda: predicts(replicated), "a prediction", 300)
    of_release = f"app.kubernetes.io/instance={replicated.release}"
    pods = replicated.core.list_namespaced_pod(replicated.name, label_selector=of_release).items
    assert {len(replicated.pods(name)) for name in SERVERS} == {2}
    assert {(p.spec.security_context.run_as_user, p.spec.security_context.run_as_group) for p in pods} == {(USER, None)}
    for pod in (pod for name in CHARTS for pod in replicated.pods(name)):
        where = ["--context", CONTEXT, "-n", replicated.name, pod.metadata.name]
        assert run(["kubectl", "exec", *where, "--", "id"]).startswith(f"uid={USER} gid=0(root)"), pod.metadata.name
    claims = replicated.core.list_namespaced_persistent_volume_claim(replicated.name).items
    assert [claim.metadata.name for claim in claims] == ["mlops-postgres"]


def test_both_pods_of_mlflow_have_every_version_and_its_files(replicated: Platform) -> None:
    found = []
    for pod in replicated.pods("mlflow"):
        with registry_of(replicated, "reader", pod.metadata.name) as registry:
            version = registry.version_by_alias("iris")
            assert version
            found.append((version.version, sorted(registry.list_artifacts(registry.bundle_path(version)))))
    assert found[0] == found[1]
    assert found[0][1], "no files"


def load(platform: Platform) -> None:
    """Start the pod `load`, which may ask what the pod of `helm test` may."""

    def from_secret(name: str, key: str) -> dict[str, Any]:
        reference = {"name": f"{platform.release}-credentials", "key": key}
        return {"name": name, "valueFrom": {"secretKeyRef": reference}}

    container = {
        "name": "load",
        "image": IMAGE,
        "command": ["python3", "-uc", LOAD],
        "env": [from_secret("MLFLOW", "mlflow-admin-password"), from_secret("PREFECT", "prefect-auth-string")],
        "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "128Mi"}},
        "securityContext": RESTRICTED,
    }
    labels = {"app.kubernetes.io/component": "loop", "app.kubernetes.io/instance": platform.release}
    spec = {"containers": [container], "restartPolicy": "Never", "enableServiceLinks": False}
    platform.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load", "labels": labels}, "spec": spec})
    platform.address("load")


def loaded(platform: Platform) -> tuple[int, list[str]]:
    """Stop the load; how many requests there were, and those that failed."""
    where = ["--context", CONTEXT, "-n", platform.name, "load"]
    run(["kubectl", "exec", *where, "--", "python3", "-c", "import os; os.kill(1, 15)"])
    assert platform.finished("load") == "Succeeded"
    asked, *failed = platform.logs("load").splitlines()
    return int(asked), failed


def replaced(platform: Platform, name: str, gone: str) -> bool:
    pods = platform.pods(name)
    ready = [p for p in pods if any(c.type == "Ready" and c.status == "True" for c in p.status.conditions or [])]
    return gone not in [pod.metadata.name for pod in pods] and len(ready) == len(pods) == 2


def test_a_pod_of_each_goes_and_nobody_notices(replicated: Platform, tmp_path: Path) -> None:
    """While both are asked, and a training is under way, which goes on to its version."""
    stays = {name: replicated.pods(name)[0].metadata.name for name in SERVERS}
    goes = {name: replicated.pods(name)[1].metadata.name for name in SERVERS}
    load(replicated)
    with runs_of(replicated, tmp_path, stays["prefect-server"]) as runs:
        parameters, variables = slow_source(f"sleep 45; {ROWS}")
        training = runs.start("train/iris", {**TRIAL, **parameters}, variables)
        runs.reading(training)
        for pod in goes.values():
            replicated.core.delete_namespaced_pod(pod, replicated.name)
        for name, pod in goes.items():
            wait_for(lambda name=name, pod=pod: replaced(replicated, name, pod), f"{name} has two pods again", 400)
        runs.wait(training, "COMPLETED", seconds=400)
    asked, failed = loaded(replicated)
    assert failed == []
    assert asked > 100
    with registry_of(replicated, "reader", stays["mlflow"]) as registry:
        assert [v.version for v in registry.versions("iris") if v.tags.get("flow_run_id") == training]
    assert predicts(replicated)


def test_what_one_pod_of_prefect_is_told_the_other_acts_on(replicated: Platform, tmp_path: Path) -> None:
    """A run that is cancelled by either pod ends, whichever of them it listens to: events go by Redis."""
    pods = [pod.metadata.name for pod in replicated.pods("prefect-server")]
    for number, pod in enumerate(pods):
        home = tmp_path / str(number)
        with runs_of(replicated, home, pod) as runs:
            parameters, variables = slow_source(NEVER)
            training = runs.start("train/iris", {**TRIAL, **parameters}, variables)
            runs.reading(training)
            runs.cli("flow-run", "cancel", training)
            runs.wait(training, "CANCELLED", seconds=60)
            wait_for(lambda: all(p.status.phase != "Running" for p in runs.pods(training)), "its pod's end", 60)  # noqa: B023
