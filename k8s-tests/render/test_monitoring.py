"""What watches the platform: custom resources, targets, and the fit with a kube-prometheus-stack."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import custom_resources
import pytest
from chart import (
    CHART,
    NAMESPACE,
    RELEASE,
    Manifest,
    helm,
    named,
    render_chart,
    rendered_text,
    template,
    title,
)
from custom_resources import GROUP, crds
from profiles import PROFILES

WITHOUT_GRAFANA: dict[str, Any] = {"grafana": {"enabled": False}}
STACK: dict[str, Any] = {
    **WITHOUT_GRAFANA,
    "monitoring": {
        "operator": {"enabled": False},
        "namespace": "observability",
        **{
            kind: {"labels": {"release": "stack"}}
            for kind in ("serviceMonitor", "prometheusRule", "alertmanagerConfig")
        },
    },
    "model-api": {"serviceMonitor": {"labels": {"release": "stack"}}},
}


def bare(*options: str) -> str:
    """What helm says for a cluster without the operator's CRDs."""
    done = helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--set=grafana.enabled=false", *options)
    assert done.returncode != 0, "accepted"
    return done.stderr


def descriptions(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(text := schema.get("description"), str):  # and not a property of that name
            yield text
        for value in schema.values():
            yield from descriptions(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from descriptions(value)


def test_all_kinds_of_the_operator_are_installed_without_descriptions() -> None:
    assert set(crds()) == {
        *("Alertmanager", "AlertmanagerConfig", "PodMonitor", "Probe", "Prometheus", "PrometheusAgent"),
        *("PrometheusRule", "ScrapeConfig", "ServiceMonitor", "ThanosRuler"),
    }
    assert not [text for crd in crds().values() for text in descriptions(crd["spec"]["versions"][0]["schema"])]


def test_a_field_that_the_operator_does_not_know_is_seen() -> None:
    known = named(render_chart(), "Prometheus", "mlops")
    assert not custom_resources.invalid(known)
    for field, value in (("retentionsize", "4GB"), ("retentionSize", 4), ("serviceDiscoveryRole", "Pod")):
        wrong = copy.deepcopy(known)
        wrong["spec"][field] = value
        assert field in custom_resources.invalid(wrong)


def test_every_service_with_metrics_is_a_target_once() -> None:
    manifests = render_chart()
    watched = {}
    for monitor in (m for m in manifests if m["kind"] == "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (endpoint,) = monitor["spec"]["endpoints"]
        ports = [
            (service["metadata"]["name"], port["name"])
            for service in manifests
            if service["kind"] == "Service" and wanted <= service["metadata"]["labels"].items()
            for port in service["spec"]["ports"]
        ]
        (service_name,) = [service for service, port in ports if port == endpoint["port"]]
        watched[service_name] = endpoint["path"]
        (relabeling,) = endpoint["relabelings"]
        assert relabeling == {"targetLabel": "job", "replacement": monitor["metadata"]["name"]}
    assert watched == {
        **dict.fromkeys(
            [
                *("mlops-model-api", "mlops-mlflow", "mlops-prefect-worker", "mlops-traefik-metrics"),
                *("mlops-retrainer", "mlops-prometheus", "mlops-alertmanager", "mlops-kube-state-metrics"),
            ],
            "/metrics",
        ),
        "mlops-prefect-server": "/api/metrics",
    }


def test_prometheus_takes_what_is_of_this_release_alone() -> None:
    manifests = render_chart()
    spec = named(manifests, "Prometheus", "mlops")["spec"]
    for kind, field in (("ServiceMonitor", "serviceMonitorSelector"), ("PrometheusRule", "ruleSelector")):
        chosen = spec[field]["matchLabels"].items()
        assert all(chosen <= m["metadata"]["labels"].items() for m in manifests if m["kind"] == kind)
        other = {"app.kubernetes.io/instance": "another"}
        assert not chosen <= other.items()
    assert spec["alerting"]["alertmanagers"] == [
        {"name": "mlops-alertmanager", "namespace": "mlops", "port": named_port(manifests, "mlops-alertmanager")}
    ]


def named_port(manifests: list[Manifest], service: str) -> str:
    (port,) = named(manifests, "Service", service)["spec"]["ports"]
    return str(port["name"])


def test_alerts_that_ask_for_a_retraining_reach_the_retrainer_with_its_token() -> None:
    spec = named(render_chart(), "AlertmanagerConfig", "mlops-retrainer")["spec"]
    assert spec["route"]["matchers"] == [{"name": "action", "value": "retrain", "matchType": "="}]
    ((receiver,),) = [receiver["webhookConfigs"] for receiver in spec["receivers"]]
    assert receiver["url"] == "http://mlops-retrainer.mlops:8090/alerts"
    assert receiver["httpConfig"]["authorization"] == {
        "type": "Bearer",
        "credentials": {"name": "mlops-credentials", "key": "retrainer-token"},
    }


def test_beside_a_kube_prometheus_stack_nothing_is_installed_twice() -> None:
    standalone, beside = (render_chart(values) for values in (WITHOUT_GRAFANA, STACK))
    kinds = {m["kind"] for m in beside if m["apiVersion"].startswith(GROUP)}
    assert kinds == {"ServiceMonitor", "PrometheusRule", "AlertmanagerConfig"}
    gone = {title(m) for m in standalone} - {title(m) for m in beside}
    for name in ("Deployment/mlops-operator", "Deployment/mlops-kube-state-metrics", "Service/mlops-prometheus"):
        assert name in gone
    for manifest in (m for m in beside if m["apiVersion"].startswith(GROUP)):
        assert manifest["metadata"]["labels"]["release"] == "stack", title(manifest)
    assert named(beside, "ConfigMap", "mlops-dashboards")["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_beside_a_stack_its_namespace_is_let_in_and_ours_is_not_asked_for() -> None:
    for manifest in render_chart(STACK):
        if manifest["kind"] == "NetworkPolicy" and manifest["metadata"]["name"].endswith("-metrics"):
            ((peer,),) = [rule["from"] for rule in manifest["spec"]["ingress"]]
            assert peer == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}
    assert "MLOPS_PROMETHEUS_URL" not in str(named(render_chart(STACK), "Deployment", "mlops-ui"))


def test_without_the_crds_the_chart_says_what_to_do() -> None:
    off = ("--set=monitoring.operator.enabled=false", "--set=monitoring.namespace=observability")
    cluster = "--api-versions=apiregistration.k8s.io/v1"  # which every cluster has
    assert "Install kube-prometheus-stack first" in bare(*off, cluster)
    folder = "charts/platform/charts/monitoring/charts/operator/crds"
    assert f"kubectl apply --server-side -f {folder}" in bare("--is-upgrade", cluster)
    assert "no matches for kind" not in bare(*off, cluster) + bare("--is-upgrade", cluster)
    elsewhere = helm("template", RELEASE, str(CHART), "--set=grafana.enabled=false", *off)
    assert elsewhere.returncode == 0, "it may be rendered for a cluster that has them"
    has = f"--api-versions={GROUP}/v1/ServiceMonitor"
    assert "monitoring.namespace: that of the Prometheus" in bare(off[0], has)


@pytest.mark.parametrize("profile", ["defaults", "postgres"])
def test_the_images_that_the_operator_starts_are_the_values(profile: str) -> None:
    manifests = render_chart(PROFILES[profile] | {"global": {"mirrorRegistry": "registry.example.com/mirror"}})
    for kind in ("Prometheus", "Alertmanager"):
        spec = named(manifests, kind, "mlops")["spec"]
        assert spec["image"] == f"registry.example.com/mirror/prometheus/{kind.lower()}:{spec['version']}"
    (operator,) = named(manifests, "Deployment", "mlops-operator")["spec"]["template"]["spec"]["containers"]
    reloader = "registry.example.com/mirror/prometheus-operator/prometheus-config-reloader:v0.93.0"
    assert f"--prometheus-config-reloader={reloader}" in operator["args"]


def test_no_other_operator_reconciles_what_ours_does() -> None:
    """An operator without an id leaves alone what is annotated, and ours, with its own, all else."""
    manifests = render_chart()
    (operator,) = named(manifests, "Deployment", "mlops-operator")["spec"]["template"]["spec"]["containers"]
    assert "--controller-id=mlops/mlops" in operator["args"]
    for kind in ("Prometheus", "Alertmanager"):
        annotations = named(manifests, kind, "mlops")["metadata"]["annotations"]
        assert annotations == {"operator.prometheus.io/controller-id": "mlops/mlops"}


def test_a_label_that_the_chart_sets_itself_is_refused() -> None:
    label = {"labels": {"app.kubernetes.io/instance": "stack"}}
    for chart, section in (
        ("monitoring", "serviceMonitor"),
        ("monitoring", "prometheusRule"),
        ("model-api", "serviceMonitor"),
    ):
        done = template({chart: {section: label}})
        assert done.returncode != 0
        assert f"{chart}.{section}.labels has app.kubernetes.io/instance=stack" in done.stderr


def monitor(values: dict[str, Any]) -> list[Manifest]:
    """The API's ServiceMonitor, if there is one."""
    return [m for m in render_chart(values) if title(m) == "ServiceMonitor/mlops-model-api"]


OFF: dict[str, Any] = {**WITHOUT_GRAFANA, "monitoring": {"enabled": False}}


def test_the_apis_monitor_is_there_where_monitoring_is_on_or_a_prometheus_is_named() -> None:
    assert monitor({})
    assert monitor(STACK)
    assert not monitor(OFF)
    assert not monitor({"model-api": {"serviceMonitor": {"enabled": False}}})
    of_others = {"namespace": "theirs", "labels": {"team": "ml"}, "interval": 30}
    (made,) = monitor({**OFF, "model-api": {"serviceMonitor": of_others}})
    assert made["metadata"]["labels"]["team"] == "ml"
    assert made["spec"]["endpoints"][0]["interval"] == "30s"
    assert "interval" not in monitor({})[0]["spec"]["endpoints"][0], "as often as monitoring.interval says"
    policy = named(
        render_chart({**OFF, "model-api": {"serviceMonitor": of_others}}), "NetworkPolicy", "mlops-model-api"
    )
    peers = [peer for rule in policy["spec"]["ingress"] for peer in rule["from"] if "namespaceSelector" in peer]
    assert peers == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "theirs"}}}]


def test_a_monitor_in_a_cluster_without_the_kind_is_refused() -> None:
    cluster = "--api-versions=apiregistration.k8s.io/v1"
    message = bare(cluster, "--set=monitoring.enabled=false", "--set=model-api.serviceMonitor.namespace=theirs")
    assert "model-api.serviceMonitor.namespace=theirs is for a cluster with the Prometheus Operator" in message


@pytest.mark.parametrize("values", [{}, STACK, PROFILES["postgres"]], ids=["ours", "stack", "postgres"])
def test_without_the_retrainer_nothing_is_left_of_it(values: dict[str, Any]) -> None:
    off = {**values, "retrainer": {"enabled": False}}
    assert "retrainer" not in rendered_text(off).lower()
    assert "AlertmanagerConfig" not in {m["kind"] for m in render_chart(off)}
    (rule,) = [m for m in render_chart(off) if m["kind"] == "PrometheusRule"]
    alerts = {r["alert"]: r for group in rule["spec"]["groups"] for r in group["rules"] if "alert" in r}
    assert not {"TrainingFailed", "TrainingOverdue"} & set(alerts), "which go by the metrics of the retrainer"
    assert alerts["FeatureDrift"]["annotations"]["description"].endswith("Train the model anew.")
