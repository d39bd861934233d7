"""A wrong value is refused before anything is installed, by a message that names it."""

from __future__ import annotations

from typing import Any

import pytest
from chart import template

BAD: list[tuple[str, Any]] = [
    ("mlfow", {"image": {}}),
    ("global.imageregistry", "x"),
    ("global.imageRegistry", 5),
    ("global.imageRegistry", "https://registry.example.com"),
    ("global.imagePullSecrets", "pull"),
    ("global.imagePullSecrets", [""]),
    ("global.storageClass", "Fast Disk"),
    ("global.existingSecret", True),
    ("global.databaseSecret", ["a"]),
    ("global.defaultModel", ""),
    ("global.defaultModel", "Iris Model"),
    ("global.ingress.scheme", "ftp"),
    ("global.ingress.domain", "http://localhost"),
    ("global.ingress.port", 0),
    ("global.ingress.port", 70000),
    ("global.ingress.port", "8080"),
    ("global.ingress.host", "x"),
    ("global.devSync", "yes"),
    ("mlflow.replicas", 2),
    ("mlflow.image", "mlops/mlflow:1"),
    ("mlflow.image.tag", "latest"),
    ("mlflow.image.tag", 1.0),
    ("mlflow.image.repository", ""),
    ("mlflow.image.repository", "Mlops/MLflow"),
    ("mlflow.persistence.size", "10"),
    ("mlflow.persistence.size", "-1Gi"),
    ("mlflow.persistence.enabled", True),
    ("mlflow.resources.requests.cpu", "much"),
    ("mlflow.resources.requests.memory", "640"),
    ("mlflow.resources.limits.memory", 0),
    ("mlflow.artifacts.destination", "/data"),
    ("mlflow.artifacts.endpointUrl", "s3.example.com"),
    ("mlflow.allowedHosts", "mlflow.example.com"),
    ("mlflow.egressCIDRs", ["203.0.113.0"]),
    ("mlflow.nodeSelector", {"disk": True}),
    ("prefect-server.retentionDays", 0),
    ("prefect-server.retentionDays", "90d"),
    ("prefect-server.authString", "admin:pass"),
    ("prefect-worker.workPool", "My Pool"),
    ("prefect-worker.bootstrap.enabled", "false"),
    ("prefect-worker.bootstrap.model", "iris"),
    ("prefect-worker.jobs.concurrency", 0),
    ("prefect-worker.jobs.ttlSecondsAfterFinished", 10),
    ("prefect-worker.jobs.egressCIDRs", "0.0.0.0/0"),
    ("prefect-worker.jobs.namespace", "default"),
    ("postgres.enabled", "true"),
    ("postgres", {"enabled": True, "password": "secret"}),
    ("model-api.replicas", 0),
    ("model-api.replicas", 2.5),
    ("model-api.pollSeconds", 0),
    ("model-api.pollSeconds", 60),
    ("model-api.autoscaling.minReplicas", 0),
    ("model-api.autoscaling.targetCPU", 80),
    ("model-api.cacheSize", "big"),
    ("ui.tolerations", {"key": "x"}),
    ("ui.password", "x"),
    ("ingress.enabled", "on"),
    ("ingress.className", "Traefik!"),
    ("ingress.service.type", "Nodeport"),
    ("ingress.service.nodePort", 8080),
    ("ingress.image.repository", 3),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_value_is_refused_by_name(key: str, value: Any) -> None:
    nested: Any = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    done = template(nested)
    assert done.returncode != 0, f"{key}={value!r} was accepted"
    chart, last = key.split(".")[0], key.split(".")[-1]
    assert last in done.stderr, done.stderr
    assert "platform" in done.stderr or chart in done.stderr, done.stderr
    assert "nil pointer" not in done.stderr


def test_there_are_at_least_fifty() -> None:
    assert len({(key, str(value)) for key, value in BAD}) >= 50
