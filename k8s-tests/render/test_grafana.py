"""Grafana's configuration: where it looks for what, who gets in, and that it calls nobody."""

from __future__ import annotations

import configparser
import json
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml
from chart import CHART, Manifest, named, pods, render_chart, rendered_text, template, title
from profiles import PROFILES

MIB = 2**20
# What is applied by others than Helm (kubectl, Argo CD) is kept in an annotation, which may have this much.
APPLIED = 256 * 2**10
# Everything by which Grafana, or a browser on its pages, would ask or tell somebody outside.
QUIET = {
    ("analytics", "reporting_enabled"): "false",
    ("analytics", "check_for_updates"): "false",
    ("analytics", "check_for_plugin_updates"): "false",
    ("analytics", "feedback_links_enabled"): "false",
    ("security", "disable_gravatar"): "true",
    ("news", "news_feed_enabled"): "false",
    ("snapshots", "external_enabled"): "false",
    ("plugins", "preinstall_disabled"): "true",
    ("plugins", "plugin_admin_enabled"): "false",
    ("plugins", "public_key_retrieval_disabled"): "true",
}
CLOSED = {
    ("auth.anonymous", "enabled"): "false",
    ("users", "allow_sign_up"): "false",
    ("public_dashboards", "enabled"): "false",
    ("metrics", "enabled"): "false",
}


def data(values: dict[str, Any] | None = None) -> dict[str, str]:
    entries: dict[str, str] = named(render_chart(values), "ConfigMap", "mlops-grafana")["data"]
    return entries


def ini(values: dict[str, Any] | None = None) -> configparser.ConfigParser:
    """Read as strictly as Grafana does not: a setting that comes twice is an error."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(data(values)["grafana.ini"])
    return parser


def container(values: dict[str, Any] | None = None) -> dict[str, Any]:
    grafana: dict[str, Any] = pods(render_chart(values))["Deployment/mlops-grafana"]["spec"]["containers"][0]
    return grafana


def mounted() -> dict[str, tuple[str, str]]:
    """Path in the container -> (ConfigMap, key), of every file that comes from one."""
    spec = pods(render_chart())["Deployment/mlops-grafana"]["spec"]
    sources = {volume["name"]: volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}
    files = {}
    for mount in spec["containers"][0]["volumeMounts"]:
        if source := sources.get(mount["name"]):
            keys = named(render_chart(), "ConfigMap", source)["data"]
            if "subPath" in mount:
                files[mount["mountPath"]] = (source, mount["subPath"])
                assert mount["subPath"] in keys, mount
            else:
                files |= {f"{mount['mountPath']}/{key}": (source, key) for key in keys}
    return files


def test_every_key_is_mounted_where_grafana_looks() -> None:
    files = mounted()
    assert files["/etc/grafana/grafana.ini"] == ("mlops-grafana", "grafana.ini")
    for kind in ("datasources", "dashboards"):
        key = f"{kind}.yaml"
        assert files[f"/etc/grafana/provisioning/{kind}/{key}"] == ("mlops-grafana", key)
    assert {key for source, key in files.values() if source == "mlops-grafana"} == set(data())
    home = ini()["dashboards"]["default_home_dashboard_path"]
    assert files[home] == ("mlops-dashboards", "model-api.json")


def test_the_provisioned_dashboards_are_the_mounted_ones() -> None:
    (provider,) = yaml.safe_load(data()["dashboards.yaml"])["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False, "what is changed on the page is lost with the pod"
    folder = PurePosixPath(provider["options"]["path"])
    names = {PurePosixPath(path).name for path in mounted() if PurePosixPath(path).parent == folder}
    assert names == {path.name for path in (CHART / "dashboards").glob("*.json")}


def test_what_is_written_to_is_a_volume() -> None:
    """The root is read-only; Grafana writes its database and plugins there."""
    spec = pods(render_chart())["Deployment/mlops-grafana"]["spec"]
    (data_volume,) = [volume for volume in spec["volumes"] if volume["name"] == "data"]
    assert "emptyDir" in data_volume
    assert "/var/lib/grafana" in [mount["mountPath"] for mount in container()["volumeMounts"]]
    kept = pods(render_chart({"grafana": {"persistence": {"enabled": True}}}))["Deployment/mlops-grafana"]["spec"]
    (data_volume,) = [volume for volume in kept["volumes"] if volume["name"] == "data"]
    assert data_volume["persistentVolumeClaim"] == {"claimName": "mlops-grafana"}


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "http://mlops-prometheus:9090"),
        ({"grafana": {"prometheusUrl": "http://prometheus-operated.monitoring:9090"}}, None),
        ({"grafana": {"prometheusUrl": "https://prometheus.example.com/team"}}, None),
    ],
)
def test_the_data_source_is_prometheus(values: dict[str, Any], url: str | None) -> None:
    (source,) = yaml.safe_load(data(values)["datasources.yaml"])["datasources"]
    assert source["url"] == url or source["url"] == values["grafana"]["prometheusUrl"]
    assert (source["type"], source["uid"], source["isDefault"]) == ("prometheus", "prometheus", True)
    assert source["editable"] is False


def _egress(values: dict[str, Any]) -> list[Any]:
    policy = named(render_chart(values), "NetworkPolicy", "mlops-grafana")
    return list(policy["spec"]["egress"][1:])  # the first is DNS


@pytest.mark.parametrize(
    ("url", "port"),
    [("https://p.example.com", 443), ("http://p.example.com", 80), ("http://10.0.0.7:9090/x", 9090)],
)
def test_a_prometheus_outside_is_reached_at_its_port(url: str, port: int) -> None:
    (rule,) = _egress({"grafana": {"prometheusUrl": url}})
    assert rule["ports"] == [{"port": port, "protocol": "TCP"}]
    assert [peer["ipBlock"]["cidr"] for peer in rule["to"]] == ["0.0.0.0/0", "::/0"]


def test_a_prometheus_of_another_namespace_is_reached_there_only() -> None:
    values = {"prometheusUrl": "http://prometheus-operated.monitoring:9090", "prometheusNamespace": "monitoring"}
    namespace = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    assert _egress({"grafana": values}) == [{"to": [{"namespaceSelector": namespace}]}]


@pytest.mark.parametrize(
    ("values", "domain", "url"),
    [
        ({}, "grafana.localhost", "http://grafana.localhost:8080"),
        (PROFILES["external"], "grafana.ml.example.com", "https://grafana.ml.example.com"),
    ],
    ids=["defaults", "external"],
)
def test_it_knows_the_address_that_browsers_use(values: dict[str, Any], domain: str, url: str) -> None:
    """Else redirects lead elsewhere and live websockets are refused."""
    settings = ini(values)
    assert settings["server"]["domain"] == domain
    assert settings["server"]["root_url"] == f"{url}/"
    assert url in settings["live"]["allowed_origins"].split(",")
    assert "*" not in settings["live"]["allowed_origins"]
    assert settings["security"]["cookie_secure"] == str(url.startswith("https")).lower()


@pytest.mark.parametrize(("place", "value"), [*QUIET.items(), *CLOSED.items()], ids=str)
def test_it_calls_nobody_and_lets_nobody_in(place: tuple[str, str], value: str) -> None:
    section, setting = place
    assert ini()[section][setting] == value


def test_the_password_comes_from_the_secret_and_is_nowhere_else() -> None:
    for values, secret in (({}, "mlops-credentials"), (PROFILES["external"], "ours")):
        env = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container(values)["env"]}
        assert env == {
            "GF_SECURITY_ADMIN_PASSWORD": {"name": secret, "key": "grafana-admin-password"},
            "GF_SECURITY_SECRET_KEY": {"name": secret, "key": "grafana-secret-key"},
        }
    assert not {"admin_password", "secret_key"} & set(ini()["security"])


def dashboards(values: dict[str, Any] | None = None) -> Manifest:
    return named(render_chart(values), "ConfigMap", "mlops-dashboards")


@pytest.mark.parametrize("values", [{}, {"grafana": {"enabled": False}}], ids=["with Grafana", "without"])
def test_the_installed_dashboards_are_the_committed_files(values: dict[str, Any]) -> None:
    config_map = dashboards(values)
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config_map["data"] == {
        path.name: path.read_text().replace("docs/alerts.md#", "http://ui.localhost:8080/alerts#")
        for path in (CHART / "dashboards").glob("*.json")
    }


def test_without_the_retrainer_no_panel_is_left_that_only_it_could_fill() -> None:
    everything, left = (dashboards(values)["data"] for values in ({}, {"retrainer": {"enabled": False}}))
    assert set(everything) - set(left) == {"loop.json"}
    for name in ("model-api.json", "model-quality.json"):
        assert left[name] == everything[name]
    before, after = (json.loads(text["platform.json"]) for text in (everything, left))
    gone = [panel["title"] for panel in before["panels"] if panel not in after["panels"]]
    assert gone == ["Flow runs", "Flow runs by state", "Flow run duration", "Time since the last success"]
    assert before["panels"][-len(gone) :][0]["title"] == "Flow runs", "it is the last row, and leaves no hole"
    assert {**before, "panels": []} == {**after, "panels": []}


def test_links_lead_to_the_pages_of_another_domain() -> None:
    for name, text in dashboards(PROFILES["external"])["data"].items():
        assert "localhost" not in text, name
        urls = {link["url"] for panel in json.loads(text)["panels"] for link in panel.get("links", [])}
        assert urls, name
        assert all(".ml.example.com" in url for url in urls), urls


def test_the_dashboards_label_is_a_setting() -> None:
    assert dashboards({"grafana": {"dashboardLabel": "team/dashboard"}})["metadata"]["labels"]["team/dashboard"] == "1"
    assert "grafana_dashboard" not in dashboards({"grafana": {"dashboardLabel": ""}})["metadata"]["labels"]


def test_configurations_fit_their_objects(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap":
            assert len(json.dumps(manifest)) < APPLIED < MIB, title(manifest)


def test_without_grafana_nothing_of_it_is_left_but_the_dashboards() -> None:
    off = {"grafana": {"enabled": False}}
    assert [title(m) for m in render_chart(off) if "grafana" in title(m)] == []
    text = rendered_text(off)
    for trace in ("mlops-grafana", "grafana.localhost"):
        assert trace not in text


def test_definitions_are_no_part_of_the_chart() -> None:
    """A release has all files of the chart in it, and may have no more than a MiB."""
    assert "*.py" in (CHART / ".helmignore").read_text().splitlines()


def test_a_grafana_without_a_prometheus_is_refused_in_words() -> None:
    done = template({"monitoring": {"enabled": False}}, "--skip-schema-validation")
    assert done.returncode != 0
    assert "set grafana.prometheusUrl to the address of yours, or grafana.enabled=false" in done.stderr
