"""`mlops backup` and `mlops restore` on the cluster: all is there again, within five minutes.

After the volumes were destroyed, and in an empty namespace.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from backups import NAME, backup, mlops, restore
from kept import assert_the_same, kept, predicts
from kubernetes import client
from load import FLOWER
from namespace import Namespace, wait_for
from release import CHART, Platform
from runs import port_forward, scale, settled
from stand_ins import PASSWORD, secret, stand_in
from upgraded import Upgraded

from app.clients.model_api import WITH_TOKENS

SECONDS = 300
SERVERS = ("mlflow", "prefect-server")
S3_ACCOUNT = "backup-s3"  # the Secret with it


def send_feedback(platform: Platform) -> None:
    """A true label, which the API has acknowledged."""
    with platform.client("api") as http:
        token = http.get(FLOWER, headers=WITH_TOKENS).json()["feedback_token"]
        answer = http.post("/feedback", json={"feedback_token": token, "label": "setosa"})
        assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
def backed_up(upgraded: Upgraded) -> Platform:
    """The platform with backups, and feedback that is to be in them."""
    platform = upgraded.platform
    wait_for(lambda: predicts(platform), "a prediction", 120)
    send_feedback(platform)
    return platform


def destroy_volumes(platform: Platform) -> None:
    """Both claims, and with them all that MLflow and Prefect know; then new, empty ones, as a reinstall makes them."""
    core, names = platform.core, [f"{platform.release}-{component}" for component in SERVERS]
    made = []
    for component, name in zip(SERVERS, names, strict=True):
        claim: Any = core.read_namespaced_persistent_volume_claim(name, platform.name)
        kept_annotations = {k: v for k, v in claim.metadata.annotations.items() if "kubernetes.io" not in k}
        metadata = {"name": name, "labels": claim.metadata.labels, "annotations": kept_annotations}
        spec = {"accessModes": claim.spec.access_modes, "resources": {"requests": claim.spec.resources.requests}}
        made.append({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
        scale(platform, component, 0)
        core.delete_namespaced_persistent_volume_claim(name, platform.name)

    def are_gone() -> bool:
        claims = {claim.metadata.name for claim in core.list_namespaced_persistent_volume_claim(platform.name).items}
        return not claims & set(names)

    wait_for(are_gone, "the claims are gone", 180)
    for claim in made:
        platform.create(claim)
    for component in SERVERS:
        scale(platform, component, 1)


def test_after_the_volumes_were_destroyed_all_is_there_again(
    backed_up: Platform, upgraded: Upgraded, tmp_path: Path
) -> None:
    before = kept(backed_up, tmp_path)
    assert before.feedback
    credentials = backed_up.credentials
    name = backup(backed_up)
    listed = mlops(backed_up, "mlops backup --list")
    assert all(f"{component} " in listed for component in ("mlflow", "prefect", "secrets")), listed
    assert "nothing was changed" in mlops(backed_up, f"mlops restore {NAME} --dry-run", name=name)
    destroy_volumes(backed_up)
    assert not kept(backed_up, tmp_path).versions, "it was not destroyed"
    began = time.monotonic()
    print(restore(backed_up, name, upgraded.identity))
    seconds = time.monotonic() - began
    assert_the_same(before, kept(backed_up, tmp_path))
    assert backed_up.credentials == credentials
    assert seconds < SECONDS
    wait_for(lambda: predicts(backed_up), "a prediction", 60)


@pytest.fixture
def every_minute(backed_up: Platform) -> Iterator[None]:
    """Backups by schedule come every minute; then as it was, or the next upgrade would meet another schedule."""
    batch = client.BatchV1Api(backed_up.api)
    names = [f"{backed_up.release}-backup-{component}" for component in ("mlflow", "prefect", "secrets")]
    before = {name: batch.read_namespaced_cron_job(name, backed_up.name).spec.schedule for name in names}

    def schedule(cron: dict[str, str]) -> None:
        for name, when in cron.items():
            batch.patch_namespaced_cron_job(name, backed_up.name, {"spec": {"schedule": when}})

    schedule(dict.fromkeys(names, "* * * * *"))
    yield
    schedule(before)


@pytest.mark.drill
@pytest.mark.usefixtures("every_minute")
def test_the_cron_job_makes_backups_of_one_name(backed_up: Platform) -> None:
    def complete() -> str | None:
        # named after the minute that it was due, unlike those that somebody asked for
        lines = mlops(backed_up, "mlops backup --list").splitlines()
        return next((line for line in lines if line.count(" MB") == 3 and line.split()[0].endswith("00Z")), None)

    line = wait_for(complete, "a backup of all three", 240)
    assert line.startswith(f"{backed_up.name}.{backed_up.release}-")


@pytest.mark.drill
def test_a_damaged_backup_is_refused_and_the_servers_go_on(backed_up: Platform) -> None:
    name = backup(backed_up)
    claim = f"{backed_up.release}-backup"
    code = f"p = '/data/{name}.prefect.tar.gz'; b = open(p, 'rb').read(); open(p, 'wb').write(b[: len(b) // 2])"
    backed_up.output("damage", code, claim=claim)
    backed_up.core.delete_namespaced_pod("damage", backed_up.name)
    apps = client.AppsV1Api(backed_up.api)
    generation = [apps.read_namespaced_deployment(f"{backed_up.release}-{s}", backed_up.name).metadata for s in SERVERS]
    with pytest.raises(AssertionError, match="cut off"):
        restore(backed_up, name)
    after = [apps.read_namespaced_deployment(f"{backed_up.release}-{s}", backed_up.name).metadata for s in SERVERS]
    assert [m.generation for m in generation] == [m.generation for m in after], "they were stopped"


def to_s3(namespace: Namespace, address: str) -> dict[str, Any]:
    """The settings of backups that go to the stand-in."""
    account = {"AWS_ACCESS_KEY_ID": "backup", "AWS_SECRET_ACCESS_KEY": PASSWORD, "AWS_DEFAULT_REGION": "us-east-1"}
    return {
        "enabled": True,
        "destination": "s3://mlflow/backups",
        "endpointUrl": f"http://{address}:7070",
        "existingSecret": secret(namespace, S3_ACCOUNT, account),
        "egressCIDRs": [f"{address}/32"],
    }


@pytest.fixture
def empty(platform: Platform) -> Iterator[Platform]:
    """An empty namespace, under Pod Security `restricted`."""
    core, other = client.CoreV1Api(platform.api), Platform("mlops-restored", platform.api)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace({"metadata": {"name": other.name, "labels": labels}})
    yield other
    other.helm("uninstall", other.release, "--ignore-not-found")  # what is not in the namespace, too
    core.delete_namespace(other.name)


@pytest.fixture
def in_s3(backed_up: Platform, upgraded: Upgraded, namespace: Namespace, tmp_path: Path) -> Iterator[str]:
    """The address of an S3 that the platform's backups go to; afterwards they go where they went before."""
    address = stand_in(namespace, "s3", 7070, {"ROOT_ACCESS_KEY": "backup", "ROOT_SECRET_KEY": PASSWORD})
    values = tmp_path / "in-s3.yaml"
    values.write_text(yaml.safe_dump({"backup": {**to_s3(backed_up, address), "recipient": upgraded.recipient}}))
    try:
        backed_up.helm("upgrade", backed_up.release, CHART, "--reset-then-reuse-values", "--values", str(values))
        backed_up.ready()
        yield address
        backed_up.helm("rollback", backed_up.release)
        backed_up.ready()
    finally:
        backed_up.core.delete_namespaced_secret(S3_ACCOUNT, backed_up.name)


@pytest.mark.drill
def test_from_s3_into_an_empty_namespace_all_is_there_again(
    backed_up: Platform, upgraded: Upgraded, empty: Platform, in_s3: str, tmp_path: Path
) -> None:
    before, credentials = kept(backed_up, tmp_path), backed_up.credentials
    assert before.feedback
    name = backup(backed_up)

    values = tmp_path / "values.yaml"
    given = yaml.safe_load(backed_up.helm("get", "values", backed_up.release, "--output", "yaml"))
    small = {"resources": {"requests": {"cpu": "10m"}}}
    off = {"enabled": False}
    for chart in (*SERVERS, "prefect-worker", "model-api", "ui"):
        given[chart] = {**(given.get(chart) or {}), **small}
    given |= {"backup": {**to_s3(empty, in_s3), "image": given["backup"].get("image", {})}}
    given |= {chart: {**(given.get(chart) or {}), **off} for chart in ("monitoring", "retrainer", "grafana", "traefik")}
    given["prefect-worker"]["bootstrap"] = off
    given["model-api"] |= {"replicas": 1, "autoscaling": off}
    given.setdefault("global", {})["ingress"] = off
    values.write_text(yaml.safe_dump(given))
    empty.helm("install", empty.release, CHART, "--values", str(values), "--timeout", "10m")
    wait_for(lambda: all(settled(empty, server) for server in SERVERS), "MLflow and Prefect", 300)

    began = time.monotonic()
    print(restore(empty, name, upgraded.identity))
    seconds = time.monotonic() - began
    assert_the_same(before, kept(empty, tmp_path))
    assert empty.credentials == credentials
    assert seconds < SECONDS
    # its pod is replaced, as it reads the passwords; a port-forward would end with the old one
    wait_for(lambda: settled(empty, "model-api"), "the API with what was restored", 180)
    with port_forward(empty, "model-api", 8086) as port:

        def answer() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}{FLOWER}", timeout=30).status_code == 200
            except httpx.HTTPError:
                return False

        wait_for(answer, "a prediction of what was restored", 180)
