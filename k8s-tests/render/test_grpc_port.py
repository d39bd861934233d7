"""gRPC of the model API: a second port where it is on, and nothing of it where it is not."""

from __future__ import annotations

from typing import Any

from chart import Manifest, named, render_chart

PORT = 8087


def api(**grpc: Any) -> tuple[Manifest, Manifest, list[Any]]:
    """The API's container and Service, and the ports that its NetworkPolicy lets in, with these settings of grpc."""
    manifests = render_chart({"model-api": {"grpc": grpc}})
    pod = named(manifests, "Deployment", "mlops-model-api")["spec"]["template"]["spec"]
    (rule,) = named(manifests, "NetworkPolicy", "mlops-model-api")["spec"]["ingress"][:1]
    return pod["containers"][0], named(manifests, "Service", "mlops-model-api"), rule["ports"]


def test_it_is_off_by_default() -> None:
    container, service, let_in = api()
    assert [port["name"] for port in container["ports"]] == ["http"]
    assert [port["name"] for port in service["spec"]["ports"]] == ["http"]
    assert "MLOPS_GRPC_PORT" not in {entry["name"] for entry in container["env"]}
    assert len(let_in) == 1


def test_the_process_the_service_and_the_policy_have_the_same_port() -> None:
    container, service, let_in = api(enabled=True)
    assert {"name": "MLOPS_GRPC_PORT", "value": str(PORT)} in container["env"]
    assert {"name": "grpc", "containerPort": PORT} in container["ports"]
    http, grpc = service["spec"]["ports"]
    assert http == {"name": "http", "port": 8086, "targetPort": "http"}
    assert grpc == {"name": "grpc", "port": PORT, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}
    assert let_in == [{"port": 8086, "protocol": "TCP"}, {"port": PORT, "protocol": "TCP"}]
    assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {
        "http"
    }
