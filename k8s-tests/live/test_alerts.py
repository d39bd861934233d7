"""Alerts reach people: a receiver in the cluster is told what fires, and what it is told leads to help."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from kubernetes import client
from namespace import Namespace, wait_for
from release import CHART, Platform
from runs import port_forward

from app.clients.prometheus import PrometheusClient

pytestmark = pytest.mark.quiet

GROUP = "monitoring.coreos.com"
KINDS = ("alertmanagerconfig-receivers", "networkpolicy")
# Prints the body of every POST, on a line that no client takes for JSON of its own.
HOOK = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print("POST", self.rfile.read(int(self.headers["Content-Length"])).decode(), flush=True)
        self.send_response(200); self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


def rendered(platform: Platform, folder: Path, receiver: dict[str, Any]) -> list[dict[str, Any]]:
    """What the chart makes of a receiver, with the values of the release."""
    values = folder / "values.json"
    values.write_text(platform.helm("get", "values", platform.release, "--output", "json"))
    options = [f"--show-only=charts/monitoring/templates/{kind}.yaml" for kind in KINDS]
    setting = f"--set-json=monitoring.alertmanager.receivers={json.dumps([receiver])}"
    text = platform.helm("template", platform.release, CHART, "--values", str(values), setting, *options)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


@pytest.fixture
def hook(platform: Platform, namespace: Namespace, tmp_path: Path) -> Iterator[Namespace]:
    """A webhook in a namespace of its own, and the release as with it as a receiver; it prints what it is told."""
    namespace.pod("hook", ["python3", "-uc", HOOK], labels={"app": "hook"})
    ports = [{"port": 80, "targetPort": 8080}]  # the Service's port is not the pod's, which the policies are about
    service = {"metadata": {"name": "hook"}, "spec": {"selector": {"app": "hook"}, "ports": ports}}
    namespace.create({"apiVersion": "v1", "kind": "Service", **service})
    namespace.address("hook")
    webhook = {"url": f"http://hook.{namespace.name}.svc/alerts"}
    manifests = rendered(platform, tmp_path, {"name": "live-test", "webhook": webhook})
    (config,) = [m for m in manifests if m["kind"] == "AlertmanagerConfig"]
    name = f"{platform.release}-alertmanager"
    (policy,) = [m for m in manifests if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] == name]
    networking, custom = client.NetworkingV1Api(platform.api), client.CustomObjectsApi(platform.api)
    before = networking.read_namespaced_network_policy(name, platform.name).spec.egress
    of_configs = (GROUP, "v1alpha1", platform.name, "alertmanagerconfigs")
    try:
        egress = {"spec": {"egress": policy["spec"]["egress"]}}
        networking.patch_namespaced_network_policy(name, platform.name, egress)
        custom.create_namespaced_custom_object(*of_configs, config)
        yield namespace
    finally:
        custom.delete_namespaced_custom_object(*of_configs, config["metadata"]["name"])
        networking.patch_namespaced_network_policy(name, platform.name, {"spec": {"egress": before}})


def rule(prometheus: PrometheusClient, name: str) -> dict[str, Any]:
    """An alerting rule as Prometheus has loaded it."""
    answer = httpx.get(f"{prometheus.url}/api/v1/rules", timeout=30).raise_for_status().json()["data"]
    (found,) = [rule for group in answer["groups"] for rule in group["rules"] if rule["name"] == name]
    return dict(found)


def test_an_alert_reaches_a_receiver_and_its_runbook_opens(
    platform: Platform, prometheus: PrometheusClient, hook: Namespace
) -> None:
    loaded = rule(prometheus, "ApiDown")
    labels = {**loaded["labels"], "alertname": "ApiDown", "job": f"live-test-{hook.name}", "namespace": platform.name}
    begin = datetime.now(UTC)

    def post(http: httpx.Client, until: datetime) -> None:
        alert = {"labels": labels, "annotations": loaded["annotations"]}
        body = [{**alert, "startsAt": begin.isoformat(), "endsAt": until.isoformat()}]
        http.post("/api/v2/alerts", json=body).raise_for_status()

    def told() -> dict[str, Any] | None:
        posts = [line.removeprefix("POST ") for line in hook.logs("hook").splitlines() if line.startswith("POST ")]
        alerts = [alert for post in posts for alert in json.loads(post)["alerts"]]
        return next((alert for alert in alerts if alert["labels"] == labels), None)

    with (
        port_forward(platform, "alertmanager", 9093) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        post(http, begin + timedelta(minutes=30))
        try:
            # the operator writes the configuration, the kubelet mounts it, and the alert waits for others 30 s
            alert = wait_for(told, "the alert at the receiver", 300)
        finally:
            post(http, datetime.now(UTC))  # over
    assert alert["status"] == "firing"
    assert alert["annotations"]["summary"] == loaded["annotations"]["summary"]
    address = urlsplit(alert["annotations"]["runbook_url"])
    assert (address.netloc, address.fragment) == ("ui.localhost:8080", "apidown")
    with platform.client("ui") as http:  # what it shows there, test_browser.py sees
        assert http.get(address.path).raise_for_status().headers["content-type"].startswith("text/html")


def test_our_operator_leaves_alone_what_is_not_ours(platform: Platform) -> None:
    """As another's leaves ours: what is annotated with a controller's id is that controller's."""
    custom, apps = client.CustomObjectsApi(platform.api), client.AppsV1Api(platform.api)
    of_ours = (GROUP, "v1", platform.name, "alertmanagers")
    expected = {"operator.prometheus.io/controller-id": f"{platform.name}/{platform.release}"}
    for plural in ("alertmanagers", "prometheuses"):
        found = custom.get_namespaced_custom_object(GROUP, "v1", platform.name, plural, platform.release)
        assert expected.items() <= found["metadata"]["annotations"].items()

    def alertmanager(name: str, annotations: dict[str, str]) -> dict[str, Any]:
        metadata = {"name": name, "annotations": annotations}
        return {"apiVersion": f"{GROUP}/v1", "kind": "Alertmanager", "metadata": metadata, "spec": {"replicas": 0}}

    def is_reconciled(name: str) -> bool:
        sets = apps.list_namespaced_stateful_set(platform.name).items
        return f"alertmanager-{name}" in [one.metadata.name for one in sets]

    try:
        custom.create_namespaced_custom_object(*of_ours, alertmanager("foreign", {}))
        custom.create_namespaced_custom_object(*of_ours, alertmanager("own", expected))
        # which comes after the other
        wait_for(lambda: is_reconciled("own"), "the StatefulSet of what has our operator's id", 60)
        assert not is_reconciled("foreign")
    finally:
        for name in ("foreign", "own"):
            custom.delete_namespaced_custom_object(*of_ours, name)
