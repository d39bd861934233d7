"""Prometheus and what it sees of the platform: found by itself, kept through restarts, replaceable by your stack."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes import client
from namespace import wait_for
from release import CHART, Platform
from runs import port_forward

from app.clients.prometheus import PrometheusClient

TARGETS = {
    *("mlops-model-api", "mlops-mlflow", "mlops-prefect-server", "mlops-prefect-worker", "mlops-traefik"),
    *("mlops-retrainer", "mlops-prometheus", "mlops-alertmanager", "mlops-kube-state-metrics", "kubelet"),
}
GROUP, VERSION = "monitoring.coreos.com", "v1"


def read(prometheus: PrometheusClient, path: str) -> Any:
    """The data of a request that the client has no method for."""
    return httpx.get(f"{prometheus.url}/api/v1/{path}", timeout=30).raise_for_status().json()["data"]


def targets(prometheus: PrometheusClient) -> list[dict[str, Any]]:
    """What Prometheus scrapes, as its page shows it."""
    return list(read(prometheus, "targets")["activeTargets"])


def custom(platform: Platform, plural: str) -> list[dict[str, Any]]:
    """The release's custom resources of a kind."""
    api = client.CustomObjectsApi(platform.api)
    return list(api.list_namespaced_custom_object(GROUP, VERSION, platform.name, plural)["items"])


def running(platform: Platform, component: str) -> bool:
    """Whether the one pod that the operator makes is ready."""
    states = [pod.status.container_statuses or [] for pod in platform.pods(component)]
    return len(states) == 1 and bool(states[0]) and all(container.ready for container in states[0])


def test_every_target_is_up_within_60_seconds(platform: Platform, prometheus: PrometheusClient) -> None:
    begin = time.monotonic()

    def down() -> list[str]:
        return [
            f"{t['labels']['job']}: {t['health']}: {t['lastError']}" for t in targets(prometheus) if t["health"] != "up"
        ]

    def all_up() -> bool:
        return {t["labels"]["job"] for t in targets(prometheus)} == TARGETS and not down()

    try:
        wait_for(all_up, "every target up", 60)
    except pytest.fail.Exception as error:
        pytest.fail(f"{error}: {down() or TARGETS ^ {t['labels']['job'] for t in targets(prometheus)}}")
    print(f"{len(targets(prometheus))} targets are up, after {time.monotonic() - begin:.0f} s of waiting")
    pods = {t["labels"]["pod"] for t in targets(prometheus) if t["labels"]["job"] == "mlops-model-api"}
    assert pods == {pod.metadata.name for pod in platform.pods("model-api")}


def test_its_page_is_open_to_who_has_the_password_alone(platform: Platform) -> None:
    assert platform.client("prometheus", account=False).get("/api/v1/targets").status_code == 401
    assert platform.client("prometheus").get("/api/v1/targets").json()["status"] == "success"


def test_every_rule_is_loaded_and_can_be_evaluated(prometheus: PrometheusClient) -> None:
    def evaluated() -> list[dict[str, Any]]:
        rules = [rule for group in read(prometheus, "rules")["groups"] for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else []

    rules = wait_for(evaluated, "every rule evaluated", 90)
    assert not [rule for rule in rules if rule["health"] != "ok"]
    assert len([rule for rule in rules if rule["type"] == "alerting"]) == 18


def test_volumes_tell_how_full_they_are(prometheus: PrometheusClient) -> None:
    query = "kubelet_volume_stats_available_bytes / kubelet_volume_stats_capacity_bytes"
    wait_for(lambda: len(prometheus.query(query)) >= 3, "the volumes of MLflow, Prefect and Prometheus", 60)


def test_prometheus_restarted_keeps_its_data(platform: Platform) -> None:
    at = time.time()

    def seen() -> dict[str, str]:
        with port_forward(platform, "prometheus", 9090) as port:
            series = PrometheusClient(f"http://127.0.0.1:{port}", 30).at("mlops_model_info", at)
        return {one.metric["pod"]: one.metric["version"] for one in series}

    before = wait_for(seen, "versions in service", 60)
    (pod,) = platform.pods("prometheus")
    core = client.CoreV1Api(platform.api)
    core.delete_namespaced_pod(pod.metadata.name, platform.name)

    def ready_again() -> bool:
        (now,) = platform.pods("prometheus") or [pod]
        return now.metadata.uid != pod.metadata.uid and running(platform, "prometheus")

    wait_for(ready_again, "a new pod of Prometheus", 120)
    assert seen() == before


@pytest.mark.drill
def test_beside_a_kube_prometheus_stack_nothing_of_ours_watches(platform: Platform, tmp_path: Path) -> None:
    """Against the bare CRDs, which are there; and back again."""
    values = tmp_path / "values.json"
    values.write_text(platform.helm("get", "values", platform.release, "--output", "json"))
    stack = ["monitoring.operator.enabled=false", "monitoring.namespace=observability"]
    monitored = ("monitoring.serviceMonitor", "monitoring.prometheusRule", "model-api.serviceMonitor")
    stack += [f"{kind}.labels.release=stack" for kind in monitored]
    options = ["--values", str(values), "--wait", "--timeout", "5m"]
    try:
        sets = [f"--set={setting}" for setting in [*stack, "grafana.enabled=false"]]
        platform.helm("upgrade", platform.release, CHART, *options, *sets)
        watchers = ("operator", "prometheus", "alertmanager", "kube-state-metrics")
        wait_for(lambda: not [c for c in watchers if platform.pods(c)], "no pod of ours watches", 120)
        assert not custom(platform, "prometheuses") + custom(platform, "alertmanagers")
        monitors = custom(platform, "servicemonitors")
        assert len(monitors) == 6
        for resource in (*monitors, *custom(platform, "prometheusrules")):
            assert resource["metadata"]["labels"]["release"] == "stack"
    finally:
        platform.helm("upgrade", platform.release, CHART, *options, "--reset-values")
    wait_for(lambda: running(platform, "prometheus") and running(platform, "alertmanager"), "ours again", 120)
    platform.ready()
