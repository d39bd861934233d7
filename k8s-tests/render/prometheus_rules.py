"""What the tests of rules and dashboards share: promtool, the chart's rules, and the metrics that there are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from chart import Manifest, render_chart

from app.api.metrics import Metrics

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}
# Of Prometheus itself.
BUILT_IN = {"up", "ALERTS", "ALERTS_FOR_STATE"}
RETRAINER = {
    *("mlops_retrain_total", "mlops_retrain_cooldown_seconds", "mlops_flow_runs", "mlops_flow_run_duration_seconds"),
    *("mlops_deployment_last_success_timestamp_seconds", "mlops_deployment_last_failure_timestamp_seconds"),
}
WORKER = {"mlops_model_file_broken", "mlops_models_repository_read_timestamp_seconds"}
# github.com/kubernetes/kube-state-metrics/tree/v2.18.0/docs/metrics
KUBE_STATE = {
    *("kube_pod_status_phase", "kube_pod_status_ready", "kube_pod_container_status_restarts_total"),
    *("kube_pod_container_resource_requests", "kube_deployment_spec_replicas"),
    *("kube_deployment_status_replicas_available", "kube_persistentvolumeclaim_resource_requests_storage_bytes"),
    *("kube_persistentvolumeclaim_status_phase", "kube_cronjob_status_last_schedule_time"),
    "kube_cronjob_status_last_successful_time",
}
# kubernetes.io/docs/reference/instrumentation/metrics
KUBELET = {"kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool. Fails where there is none."""
    program = shutil.which("promtool")
    assert program, "promtool is needed: `make test` builds it, in .tools/bin"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def of_api() -> set[str]:
    """The names of the time series that the API exposes."""
    families = Metrics().registry.collect()
    return {family.name + suffix for family in families for suffix in SUFFIXES.get(family.type, ("",))}


def prometheus_rule(values: dict[str, Any] | None = None) -> Manifest:
    """The chart's one PrometheusRule."""
    (manifest,) = render_chart(values, show_only=["charts/monitoring/templates/prometheusrule.yaml"])
    return manifest


def rules(kind: str, values: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """The rules of a kind, `alert` or `record`, by name; fails if a name comes twice."""
    entries = [rule for group in prometheus_rule(values)["spec"]["groups"] for rule in group["rules"] if kind in rule]
    assert len({rule[kind] for rule in entries}) == len(entries), "two rules of one name"
    return {rule[kind]: rule for rule in entries}


def known() -> set[str]:
    """Every metric that rules and dashboards may ask for."""
    return of_api() | BUILT_IN | RETRAINER | WORKER | KUBE_STATE | KUBELET | set(rules("record"))
