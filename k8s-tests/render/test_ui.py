"""Where the page Live gets its figures: the platform's own Prometheus, an existing stack's, or the API alone."""

from __future__ import annotations

from typing import Any

import pytest
from chart import named, render_chart
from network import Party, edges

LABELS = {"app.kubernetes.io/component": "prometheus", "app.kubernetes.io/instance": "mlops"}
OURS = Party("ours", (9090,), LABELS)
THEIRS = Party("theirs", (9090,), {"app": "prometheus"}, "observability")
OTHERS = [Party("neighbour", (9090,), {"app": "theirs"}), Party("elsewhere", (9090,), {"app": "theirs"}, "elsewhere")]
WITHOUT: dict[str, Any] = {"monitoring": {"enabled": False}, "grafana": {"enabled": False}}
EXISTING = "http://prometheus-operated.observability:9090"


@pytest.mark.parametrize(
    ("values", "url", "reached"),
    [
        ({}, "http://mlops-prometheus:9090", {"ours"}),
        (WITHOUT, None, set()),
        ({"ui": {"prometheusUrl": EXISTING}}, EXISTING, {"theirs"}),
        ({"ui": {"prometheusUrl": EXISTING}, **WITHOUT}, EXISTING, {"theirs"}),
    ],
)
def test_prometheus_is_named_and_can_be_reached(values: dict[str, Any], url: str | None, reached: set[str]) -> None:
    pages = named(render_chart(values), "Deployment", "mlops-ui")["spec"]["template"]
    (container,) = pages["spec"]["containers"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env.get("MLOPS_PROMETHEUS_URL") == url
    policy = named(render_chart(values), "NetworkPolicy", "mlops-ui")
    parties = [Party("ui", (), pages["metadata"]["labels"]), OURS, THEIRS, *OTHERS]
    assert {to for one, to, _ in edges([policy], parties) if one == "ui"} == reached


def test_who_lacks_the_password_is_told_of_the_secret_that_has_it() -> None:
    (container,) = named(render_chart(), "Deployment", "mlops-ui")["spec"]["template"]["spec"]["containers"]
    assert {"name": "MLOPS_ADMIN_SECRET", "value": "mlops/mlops-credentials"} in container["env"]
