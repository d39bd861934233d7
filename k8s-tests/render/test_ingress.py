"""How people get in: Ingress objects for every service, for the bundled Traefik or a controller that a cluster has."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from chart import Manifest, named, render_chart, template, title
from profiles import PROFILES

MIDDLEWARES = "traefik.ingress.kubernetes.io/router.middlewares"
CLASS = "kubernetes.io/ingress.class"
NGINX: dict[str, Any] = {
    "global": {"ingress": {"className": "nginx", "domain": "ml.example.com"}},
    "traefik": {"enabled": False},
}
LOGIN = {"nginx.ingress.kubernetes.io/auth-url": "https://auth.example.com/oauth2/auth"}
SERVICES = {
    "mlflow": "mlops-mlflow",
    "prefect": "mlops-prefect-server",
    "api": "mlops-model-api",
    "ui": "mlops-ui",
    "grafana": "mlops-grafana",
    "prometheus": "mlops-prometheus",
}


def ingresses(values: dict[str, Any] | None = None) -> dict[str, Manifest]:
    """Name without the release -> Ingress."""
    found = [m for m in render_chart(values) if m["kind"] == "Ingress"]
    return {m["metadata"]["name"].removeprefix("mlops-"): m for m in found}


def annotations(ingress: Manifest) -> dict[str, str]:
    return dict(ingress["metadata"].get("annotations", {}))


def env(manifests: list[Manifest], deployment: str) -> dict[str, str]:
    """The main container's environment variables that are given as they are."""
    (container,) = named(manifests, "Deployment", f"mlops-{deployment}")["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def test_every_service_has_one_that_leads_to_it() -> None:
    made = ingresses()
    assert set(made) == {*SERVICES, "api-docs"}
    ports = {m["metadata"]["name"]: m["spec"]["ports"] for m in render_chart() if m["kind"] == "Service"}
    for name, ingress in made.items():
        service = name.removesuffix("-docs")
        (rule,) = ingress["spec"]["rules"]
        assert rule["host"] == f"{service}.localhost", name
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            assert backend["name"] == SERVICES[service], name
            assert backend["port"]["number"] in [port["port"] for port in ports[backend["name"]]], name
    paths = [path["path"] for path in made["api-docs"]["spec"]["rules"][0]["http"]["paths"]]
    assert paths == ["/docs", "/openapi.json"]


def test_the_bundled_traefik_has_a_class_of_its_own() -> None:
    arguments = named(render_chart(), "Deployment", "mlops-traefik")["spec"]["template"]["spec"]["containers"][0][
        "args"
    ]
    assert "--providers.kubernetesIngress.ingressClass=mlops-mlops" in arguments
    assert "--providers.kubernetesIngress.namespaces=mlops" in arguments
    assert named(render_chart(), "IngressClass", "mlops-mlops")["spec"] == {
        "controller": "traefik.io/ingress-controller"
    }
    for name, ingress in ingresses().items():
        assert ingress["spec"]["ingressClassName"] == "mlops-mlops", name
    second = template(release="second").stdout
    assert "name: mlops-second\n" in second
    assert "mlops-mlops" not in second, "another release would take its routes"


def test_middlewares_are_those_of_the_file() -> None:
    text = named(render_chart(), "ConfigMap", "mlops-traefik")["data"]["middlewares.yaml"]
    known = set(yaml.safe_load(text)["http"]["middlewares"])
    for name, ingress in ingresses().items():
        used = annotations(ingress)[MIDDLEWARES].split(",")
        assert {each.removesuffix("@file") for each in used} <= known, name
        assert ("account@file" in used) == (name in ("ui", "api-docs", "prometheus")), name
    assert "no-calls-home@file" in annotations(ingresses()["prefect"])[MIDDLEWARES]


def test_pages_without_accounts_can_be_open() -> None:
    for name, ingress in ingresses({"global": {"ingress": {"auth": {"enabled": False}}}}).items():
        assert "account" not in annotations(ingress)[MIDDLEWARES], name


def test_another_controller_gets_the_same_objects() -> None:
    made = ingresses(NGINX)
    assert set(made) == {*SERVICES, "api-docs"} - {"prometheus"}, "nobody would ask for an account before Prometheus"
    for name, ingress in made.items():
        assert ingress["spec"]["ingressClassName"] == "nginx", name
        assert not annotations(ingress), name
        assert ingress["spec"]["rules"][0]["host"].endswith(".ml.example.com"), name
    assert not [title(m) for m in render_chart(NGINX) if "traefik" in title(m) or m["kind"] == "IngressClass"]


def test_another_class_beside_traefik_does_not_show_prometheus_either() -> None:
    assert "prometheus" in ingresses()
    assert "prometheus" not in ingresses({"global": NGINX["global"]})
    assert "prometheus" in ingresses(
        {"global": NGINX["global"], "monitoring": {"prometheus": {"ingress": {"enabled": True}}}}
    )


def test_another_controllers_login() -> None:
    ingress = {**NGINX["global"]["ingress"], "auth": {"annotations": LOGIN}, "annotations": {"a": "b"}}
    made = ingresses({**NGINX, "global": {"ingress": ingress}})
    assert set(made) == {*SERVICES, "api-docs"}
    for name, each in made.items():
        login = LOGIN if name in ("ui", "api-docs", "prometheus") else {}
        assert annotations(each) == {"a": "b", **login}, name


def test_the_clusters_default_class() -> None:
    for name, ingress in ingresses({"traefik": {"enabled": False}}).items():
        assert "ingressClassName" not in ingress["spec"], name


def test_a_service_as_it_is_wanted() -> None:
    own = {
        "className": "alb",
        "annotations": {"alb.ingress.kubernetes.io/scheme": "internal"},
        "hosts": ["mlflow.example.com", {"host": "tracking.example.com", "paths": []}],
        "path": "/mlflow",
        "pathType": "ImplementationSpecific",
        "tls": [{"secretName": "mlflow-tls", "hosts": ["mlflow.example.com"]}],
    }
    manifests = render_chart({"mlflow": {"ingress": own}, "ui": {"ingress": {"enabled": False}}})
    mlflow = named(manifests, "Ingress", "mlops-mlflow")
    assert annotations(mlflow) == own["annotations"]
    assert mlflow["spec"]["ingressClassName"] == "alb"
    assert mlflow["spec"]["tls"] == own["tls"]
    assert [rule["host"] for rule in mlflow["spec"]["rules"]] == ["mlflow.example.com", "tracking.example.com"]
    (path,) = mlflow["spec"]["rules"][0]["http"]["paths"]
    assert (path["path"], path["pathType"]) == ("/mlflow", "ImplementationSpecific")
    assert "Ingress/mlops-ui" not in {title(m) for m in manifests}
    # and everything else knows the address
    assert env(manifests, "ui")["MLOPS_MLFLOW_PUBLIC_URL"] == "https://mlflow.example.com/mlflow"
    arguments = named(manifests, "Deployment", "mlops-mlflow")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert any("mlflow.example.com" in a for a in arguments if a.startswith("--allowed-hosts"))
    assert "https://mlflow.example.com" in str(named(manifests, "ConfigMap", "mlops-dashboards"))


@pytest.mark.parametrize("secret", ["", "wildcard"])
def test_tls_for_every_service(secret: str) -> None:
    tls = {"enabled": True, "secretName": secret}
    values = {"global": {"ingress": {"tls": tls, "port": 443, "domain": "ml.example.com"}}}
    for name, ingress in ingresses(values).items():
        service = name.removesuffix("-docs")
        expected = {"hosts": [f"{service}.ml.example.com"], "secretName": secret or f"mlops-{service}-tls"}
        assert ingress["spec"]["tls"] == [expected], name
    manifests = render_chart(values)
    assert env(manifests, "prefect-worker")["PREFECT_UI_URL"] == "https://prefect.ml.example.com"
    arguments = named(manifests, "Deployment", "mlops-traefik")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--entryPoints.web.http.redirections.entryPoint.to=:443" in arguments
    assert not [a for a in str(named(render_chart(), "Deployment", "mlops-traefik")) if "redirections" in a]


def test_rights_in_one_namespace_are_enough() -> None:
    values = {"global": {"clusterScoped": False}, "monitoring": {"operator": {"enabled": False}, "namespace": "stack"}}
    manifests = render_chart({**values, "grafana": {"enabled": False}})
    assert not [title(m) for m in manifests if "namespace" not in m["metadata"]]
    arguments = str(named(manifests, "Deployment", "mlops-traefik"))
    assert "--providers.kubernetesIngress.disableClusterScopeResources=true" in arguments
    for ingress in (m for m in manifests if m["kind"] == "Ingress"):
        assert annotations(ingress)[CLASS] == "mlops-mlops", title(ingress)
        assert "ingressClassName" not in ingress["spec"], title(ingress)


PARENT = {"name": "public", "namespace": "gateways"}
GATEWAY = {"enabled": True, "parentRefs": [PARENT]}


def routes(gateway: dict[str, Any], **settings: Any) -> dict[str, Manifest]:
    """Name without the release -> spec of each HTTPRoute of a platform without Ingress objects."""
    values = {"global": {"gateway": {**GATEWAY, **gateway}, "ingress": {"enabled": False, **settings}}}
    manifests = render_chart(values)
    assert not [title(m) for m in manifests if m["kind"] == "Ingress"]
    return {m["metadata"]["name"].removeprefix("mlops-"): m["spec"] for m in manifests if m["kind"] == "HTTPRoute"}


def test_routes_of_the_gateway_api() -> None:
    made = routes({}, auth={"enabled": False})
    assert set(made) == {*SERVICES, "api-docs"}
    for name, spec in made.items():
        service = name.removesuffix("-docs")
        assert spec["parentRefs"] == [PARENT]
        assert spec["hostnames"] == [f"{service}.localhost"]
        (rule,) = spec["rules"]
        assert rule["backendRefs"][0]["name"] == SERVICES[service]
        assert "filters" not in rule


def test_no_route_shows_a_page_without_accounts_unless_that_is_said() -> None:
    made = routes({})
    assert set(made) == {"mlflow", "prefect", "api", "grafana", "api-docs"}
    (rule,) = made["api-docs"]["rules"]  # without it the API's own route would lead to its docs
    assert [match["path"]["value"] for match in rule["matches"]] == ["/docs", "/openapi.json"]
    assert rule["filters"][0]["urlRewrite"]["path"]["replaceFullPath"] == "/not-shown"
    wanted = render_chart({"global": {"gateway": GATEWAY}, "ui": {"ingress": {"enabled": True}}})
    assert "HTTPRoute/mlops-ui" in {title(m) for m in wanted}


def test_routes_of_no_gateway_are_refused() -> None:
    done = template({"global": {"gateway": {"enabled": True}}})
    assert done.returncode != 0
    assert "global.gateway.enabled needs global.gateway.parentRefs" in done.stderr


def test_a_login_before_routes() -> None:
    login = [{"type": "ExtensionRef", "extensionRef": {"group": "traefik.io", "kind": "Middleware", "name": "login"}}]
    made = routes({"filters": login})
    assert set(made) == {*SERVICES, "api-docs"}
    for name, spec in made.items():
        expected = login if name in ("ui", "api-docs", "prometheus") else None
        assert spec["rules"][0].get("filters") == expected, name


def test_the_notes_say_what_is_open_and_what_is_not_there() -> None:
    from chart import notes

    assert "global.ingress.auth.annotations" in notes(NGINX)
    assert "global.gateway.filters" in notes({"global": {"gateway": GATEWAY, "ingress": {"enabled": False}}})
    for values in (
        {},
        {"global": {**NGINX["global"], "ingress": {"className": "nginx", "auth": {"annotations": LOGIN}}}},
    ):
        assert "have no accounts" not in notes(values)


def test_runbooks_are_where_the_pages_are() -> None:
    manifests = render_chart({"ui": {"ingress": {"hosts": ["ml.example.com"], "tls": [{"secretName": "ml"}]}}})
    (rules,) = (m for m in manifests if m["kind"] == "PrometheusRule")
    links = {
        rule["annotations"]["runbook_url"]
        for group in rules["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert links
    assert {link.partition("#")[0] for link in links} == {"https://ml.example.com/alerts"}


def test_a_controller_of_no_known_place_is_let_through() -> None:
    """Or its first request would end in a timeout that nobody can explain."""
    anywhere = {"namespaceSelector": {}}
    for values in (NGINX, {"global": {"gateway": {"enabled": True, "parentRefs": [{"name": "public"}]}}}):
        policy = named(render_chart(values), "NetworkPolicy", "mlops-ui")
        assert anywhere in policy["spec"]["ingress"][0]["from"]
    for values in ({}, PROFILES["external"]):
        assert anywhere not in named(render_chart(values), "NetworkPolicy", "mlops-ui")["spec"]["ingress"][0]["from"]


def test_links_in_the_notes_are_those_of_the_ingresses() -> None:
    from chart import notes

    text = notes({"global": {"ingress": {"tls": {"enabled": True}, "port": 443, "domain": "ml.example.com"}}})
    for name in SERVICES:
        if name != "prometheus":  # helm install --dry-run=client knows nothing of who watches
            assert re.search(rf"https://{name}\.ml\.example\.com\b", text), name
