"""How people get in: Ingress objects, the account before pages that have none, TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from kubernetes import client
from load import FLOWER
from namespace import Namespace, wait_for
from release import CHART, CONTEXT, ROOT, Platform, run
from runs import port_forward

pytestmark = pytest.mark.quiet

HOSTS = ("mlflow", "prefect", "api", "ui", "prometheus")
OTHER = "tls"  # a release of which there is Traefik alone
HOST = "secured.localhost"
TEMPLATES = ROOT / CHART / "charts" / "traefik" / "templates"


def test_every_service_has_an_ingress_with_a_status(platform: Platform) -> None:
    objects = client.NetworkingV1Api(platform.api).list_namespaced_ingress(platform.name).items
    hosts = {rule.host for ingress in objects for rule in ingress.spec.rules}
    assert {f"{name}.localhost" for name in HOSTS} <= hosts
    for ingress in objects:
        assert ingress.spec.ingress_class_name == f"{platform.name}-{platform.release}"
        (address,) = ingress.status.load_balancer.ingress  # what Argo CD waits for
        assert address.hostname == "localhost"


@pytest.mark.parametrize(("name", "path"), [("ui", "/"), ("prometheus", "/graph"), ("api", "/docs")])
def test_pages_without_accounts_ask_for_one(platform: Platform, name: str, path: str) -> None:
    with platform.client(name, account=False) as http:
        refused = http.get(path)
        assert refused.status_code == 401
        assert "Basic" in refused.headers["www-authenticate"]  # so that a browser asks
        assert http.get(path, auth=("admin", "wrong")).status_code == 401
        assert http.get(path, auth=("admin", platform.password("docs")), follow_redirects=True).status_code == 200


def test_programs_predict_without_an_account_and_nobody_outside_sees_metrics(platform: Platform) -> None:
    with platform.client("api", account=False) as http:
        assert http.get(FLOWER).json()["prediction"] == "setosa"
        for path in ("/metrics", "/metrics/", "/x/../metrics", "/%6detrics"):
            answer = http.get(path)
            assert answer.status_code in (307, 404), path  # 307: to the path without the slash
            assert "mlops_requests_total" not in answer.text, path


def test_grafanas_host_answers_what_its_service_answers(platform: Platform) -> None:
    if not platform.pods("grafana"):
        pytest.skip("there is no Grafana: its image is not to be had without a container registry")
    with platform.client("grafana") as http, port_forward(platform, "grafana", 3000) as port:
        direct = httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=30)
        assert http.get("/api/health").json() == direct.json()


@pytest.fixture
def secured(platform: Platform, namespace: Namespace, tmp_path: Path) -> Iterator[Platform]:
    """A Traefik of another release, with a certificate of its own issuer, before a page that answers `hello`."""
    labels = {"app.kubernetes.io/component": "page"}
    namespace.serve("page", "hello", labels=labels)
    service = {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}
    namespace.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "page"}, "spec": service})
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    files = ["-keyout", str(key), "-out", str(certificate)]
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject, *files])
    kubectl = ["kubectl", "--context", CONTEXT, "-n", namespace.name]
    run([*kubectl, "create", "secret", "tls", "ours", f"--key={key}", f"--cert={certificate}"])
    run([*kubectl, "create", "secret", "generic", f"{OTHER}-credentials", "--from-literal=pages-users=nobody:x"])
    options = ["--set=global.ingress.tls.enabled=true,global.ingress.port=443", "--set=traefik.service.type=ClusterIP"]
    # without its policy, which lets it reach the charts' pods alone
    templates = {path.name for path in TEMPLATES.glob("*.yaml")} - {"networkpolicy.yaml"}
    only = [f"--show-only=charts/traefik/templates/{name}" for name in sorted(templates)]
    manifests = tmp_path / "traefik.yaml"
    # as the cluster: the operator's kinds are there
    options += ["--namespace", namespace.name, "--api-versions", "monitoring.coreos.com/v1/ServiceMonitor"]
    manifests.write_text(run(["helm", "template", OTHER, CHART, *options, *only]))
    backend = {"service": {"name": "page", "port": {"number": 80}}}
    rule = {"host": HOST, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    namespace.create(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "page"},
            "spec": {
                "ingressClassName": f"{namespace.name}-{OTHER}",
                "rules": [rule],
                "tls": [{"hosts": [HOST], "secretName": "ours"}],
            },
        }
    )
    other = Platform(namespace.name, namespace.api, OTHER)
    try:
        run([*kubectl, "apply", "-f", str(manifests)])
        other.ready()
        yield other
    finally:
        run([*kubectl, "delete", "--ignore-not-found", "-f", str(manifests)])  # some of it is in no namespace


def test_tls_ends_at_the_ingress_and_plain_http_is_sent_there(secured: Platform, tmp_path: Path) -> None:
    """Beside the platform: two releases in one cluster, and neither takes the other's routes."""
    trust = ssl.create_default_context(cafile=str(tmp_path / "tls.crt"))
    with port_forward(secured, "traefik", 443) as port:

        def answer() -> str:
            try:
                peer = trust.wrap_socket(socket.create_connection(("127.0.0.1", port), 5), server_hostname=HOST)
            except ssl.SSLCertVerificationError as error:
                return str(error)  # its own certificate, until it has read the Secret
            with peer:
                peer.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
                return b"".join(iter(lambda: peer.recv(4096), b"")).decode()

        wait_for(lambda: "hello" in (text := answer()) and text, "the page, with our certificate", 60)
    with port_forward(secured, "traefik", 80) as port:
        redirect = httpx.get(f"http://127.0.0.1:{port}/path?a=b", headers={"Host": HOST})
        assert redirect.status_code in (301, 302, 307, 308)
        assert redirect.headers["location"] == f"https://{HOST}/path?a=b"


def test_a_release_does_not_see_anothers_routes(platform: Platform, secured: Platform) -> None:
    with httpx.Client(base_url="http://127.0.0.1:8080", headers={"Host": HOST}) as http:
        assert http.get("/").status_code == 404
    with port_forward(secured, "traefik", 443) as port:
        answer = httpx.get(f"https://127.0.0.1:{port}/", headers={"Host": "mlflow.localhost"}, verify=False)  # noqa: S501
        assert answer.status_code == 404
