"""Several pods of MLflow and of Prefect: only where what they know is elsewhere, and then none is missed that goes."""

from __future__ import annotations

from typing import Any

import pytest
from chart import Manifest, named, render_chart, template
from profiles import PROFILES

SERVERS = ("mlflow", "prefect-server")
DATABASE: dict[str, Any] = {"postgres": {"enabled": True}}
EXTERNAL: dict[str, Any] = {"global": {"databaseSecret": "database"}}
S3: dict[str, Any] = {"artifacts": {"destination": "s3://bucket/mlflow"}}
MANY: dict[str, Any] = {"persistence": {"accessModes": ["ReadWriteMany"]}}
REDIS: dict[str, Any] = {"redis": {"existingSecret": "redis"}}


def deployment(name: str, values: dict[str, Any]) -> Manifest:
    return named(render_chart(values), "Deployment", f"mlops-{name}")


def pod_of(name: str, values: dict[str, Any]) -> dict[str, Any]:
    return dict(deployment(name, values)["spec"]["template"]["spec"])


@pytest.mark.parametrize(
    ("chart", "values", "field", "cure"),
    [
        ("mlflow", {}, "mlflow.replicas is 2", "postgres.enabled=true"),
        ("mlflow", {"mlflow": S3}, "mlflow.replicas is 2", "global.databaseSecret"),
        ("mlflow", DATABASE, "mlflow.replicas is 2", "mlflow.artifacts.destination=s3://"),
        ("mlflow", EXTERNAL, "mlflow.replicas is 2", "mlflow.persistence.accessModes=[ReadWriteMany]"),
        ("prefect-server", {}, "prefect-server.replicas is 2", "postgres.enabled=true"),
        ("prefect-server", {"prefect-server": REDIS}, "prefect-server.replicas is 2", "global.databaseSecret"),
        ("prefect-server", DATABASE, "prefect-server.replicas is 2", "prefect-server.redis.existingSecret"),
    ],
)
def test_what_pods_do_not_share_is_named(chart: str, values: dict[str, Any], field: str, cure: str) -> None:
    done = template({**values, chart: {**values.get(chart, {}), "replicas": 2}})
    assert done.returncode != 0
    assert field in done.stderr
    assert cure in done.stderr


@pytest.mark.parametrize("database", [DATABASE, EXTERNAL], ids=["ours", "external"])
@pytest.mark.parametrize(
    ("chart", "shared"), [("mlflow", S3), ("mlflow", MANY), ("prefect-server", REDIS)], ids=["s3", "volume", "redis"]
)
def test_pods_that_share_all_are_replaced_one_by_one(
    chart: str, shared: dict[str, Any], database: dict[str, Any]
) -> None:
    spec = deployment(chart, {**database, chart: {**shared, "replicas": 2}})["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    pod = spec["template"]["spec"]
    assert pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] == spec["selector"]["matchLabels"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 5, "nodes learn of a pod that goes within some seconds"
    assert pod["terminationGracePeriodSeconds"] >= pause + 20


@pytest.mark.parametrize("chart", SERVERS)
def test_one_pod_at_a_time_is_taken_away(chart: str) -> None:
    manifests = render_chart(PROFILES["replicas"])
    budget = named(manifests, "PodDisruptionBudget", f"mlops-{chart}")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == named(manifests, "Deployment", f"mlops-{chart}")["spec"]["selector"]


@pytest.mark.parametrize("chart", SERVERS)
def test_a_spread_of_ones_own_replaces_the_chart_s(chart: str) -> None:
    zones = [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}]
    values = {**PROFILES["replicas"], chart: {**PROFILES["replicas"][chart], "topologySpreadConstraints": zones}}
    assert pod_of(chart, values)["topologySpreadConstraints"] == zones


@pytest.mark.parametrize("values", [{}, DATABASE, PROFILES["replicas"]], ids=["sqlite", "postgres", "replicas"])
@pytest.mark.parametrize("chart", SERVERS)
def test_databases_are_prepared_before_a_server_starts(chart: str, values: dict[str, Any]) -> None:
    """By a program that has the pods take turns, images/<name>/prepare.py; it has the server's databases and volume."""
    pod = pod_of(chart, values)
    (prepare,), server = pod["initContainers"], pod["containers"][0]
    assert prepare["command"] == ["python", "/srv/prepare.py"]
    assert prepare["image"] == server["image"]
    env = [{entry["name"]: entry for entry in container["env"]} for container in (prepare, server)]
    names = {"mlflow": {"MLFLOW_BACKEND_STORE_URI", "MLOPS_AUTH_DATABASE_URI"}, "prefect-server": {"PREFECT_HOME"}}
    for name in names[chart] | ({"PREFECT_SERVER_DATABASE_CONNECTION_URL"} & env[1].keys()):
        assert env[0][name] == env[1][name]
    data = [[mount for mount in c["volumeMounts"] if mount["mountPath"] == "/data"] for c in (prepare, server)]
    assert data[0] == data[1]
    if chart == "prefect-server":
        assert env[1]["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"]["value"] == "false", "it would migrate without a copy"


@pytest.mark.parametrize("chart", SERVERS)
def test_a_refusal_is_in_the_pod_s_status_with_the_command_for_this_release(chart: str) -> None:
    manifests = render_chart({"global": {"fullnameOverride": "ours"}})
    deployment = named(manifests, "Deployment", f"ours-{chart}")
    (prepare,) = deployment["spec"]["template"]["spec"]["initContainers"]
    assert prepare["terminationMessagePolicy"] == "FallbackToLogsOnError"
    command = f"kubectl -n mlops set env deployment/ours-{chart} --containers={prepare['name']}"
    assert {"name": "MLOPS_SET_ENV", "value": command} in prepare["env"]


def test_prefects_pods_tell_each_other_by_redis() -> None:
    server = pod_of("prefect-server", PROFILES["replicas"])["containers"][0]
    env = {entry["name"]: entry for entry in server["env"]}
    for name in (
        *("PREFECT_REDIS_MESSAGING_URL", "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL"),
        "PREFECT_SERVER_DOCKET_URL",
    ):
        assert env[name]["valueFrom"]["secretKeyRef"] == {"name": "redis", "key": "redis-url"}, name
    for name in (
        *("PREFECT_MESSAGING_BROKER", "PREFECT_MESSAGING_CACHE", "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING"),
        *("PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE"),
    ):
        assert env[name]["value"].startswith("prefect_redis."), name
    for name in ("PREFECT_SERVER_DATABASE_MIGRATE_ON_START", "PREFECT_SERVER_REGISTER_BLOCKS_ON_START"):
        assert env[name]["value"] == "false", f"{name}: pods that start together would race"


@pytest.mark.parametrize("values", [{}, DATABASE], ids=["sqlite", "postgres"])
def test_without_redis_a_server_is_as_it_was(values: dict[str, Any]) -> None:
    pod = pod_of("prefect-server", values)
    assert not [
        entry for entry in pod["containers"][0]["env"] if "REDIS" in entry["name"] or "MESSAGING" in entry["name"]
    ]
