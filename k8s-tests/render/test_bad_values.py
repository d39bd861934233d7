"""A wrong value is refused before anything is installed, by a chart's schema, in a message that names it."""

from __future__ import annotations

from typing import Any

import pytest
from chart import refusals, template

BAD: list[tuple[str, Any]] = [
    ("mlfow", {"image": {}}),
    ("image", "x"),
    ("replicas", 2),
    ("global.registry", "registry.example.com"),
    ("global.imageregistry", "x"),
    ("global.imageRegistry", 5),
    ("global.imageRegistry", "https://registry.example.com"),
    ("global.mirrorRegistry", "https://mirror.example.com"),
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
    ("mlflow.replicas", 0),
    ("mlflow.replicas", "2"),
    ("prefect-server.replicas", 1.5),
    ("prefect-server.redis.existingSecret", "redis://redis:6379"),
    ("prefect-server.redis.url", "redis://redis:6379"),
    ("mlflow.image", "mlops/mlflow:1"),
    ("mlflow.image.tag", "latest"),
    ("mlflow.image.tag", "a tag"),
    ("mlflow.image.tag", 1.0),
    ("mlflow.image.repository", ""),
    ("mlflow.image.repository", "Mlops/MLflow"),
    ("mlflow.image.registry", "registry.example.com/"),
    ("mlflow.image.digest", "sha256:3f2a9c"),
    ("mlflow.image.digest", "md5:" + "0" * 64),
    ("mlflow.image.pullPolicy", "always"),
    ("traefik.image.repository", "docker.io/library/traefik"),  # as it was until images had a registry
    ("mlflow.persistence.size", "10"),
    ("mlflow.persistence.size", "-1Gi"),
    ("mlflow.persistence.enabled", "yes"),
    ("mlflow.persistence.storageclass", "fast"),
    ("mlflow.persistence.accessModes", ["ReadWriteTwice"]),
    ("mlflow.serviceAccount.create", "no"),
    ("mlflow.extraEnv", {"A": "b"}),
    ("global.affinity", []),
    ("global.networkPolicy.enabled", "off"),
    ("global.networkPolicy.dns.ports", ["dns"]),
    ("fullnameOverride", "My Platform"),
    ("global.networkPolicy.wholeNamespace", "yes"),
    ("global.networkPolicy.apiServer.cidrs", ["172.18.0.2"]),
    ("global.networkPolicy.apiServer.ports", ["https"]),
    ("prefect-worker.jobs.activeDeadlineSeconds", -1),
    ("prefect-worker.jobs.gpuResource", "gpu"),
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
    ("prefect-worker.resources", {"cpu": "100m"}),
    ("prefect-worker.jobs.concurrency", 0),
    ("prefect-worker.jobs.ttlSecondsAfterFinished", 10),
    ("prefect-worker.jobs.egressCIDRs", "0.0.0.0/0"),
    ("prefect-worker.jobs.namespace", "default"),
    ("prefect-worker.jobs.allowedImages", "registry.example.com/models/*"),
    ("prefect-worker.jobs.allowedImages", ["registry.example.com/models/(.*)"]),
    ("prefect-worker.admissionPolicy.enabled", "on"),
    ("postgres.enabled", "true"),
    ("postgres.password", "secret"),
    ("postgres.persistence.size", ""),
    ("model-api.replicas", 0),
    ("model-api.replicas", 2.5),
    ("model-api.pollSeconds", 0),
    ("model-api.pollSeconds", 60),
    ("model-api.autoscaling.minReplicas", 0),
    ("model-api.autoscaling.targetCPUUtilizationPercentage", "80%"),
    ("model-api.cacheSize", "big"),
    ("model-api.keys.required", "feedback"),
    ("model-api.keys.required", ["feedback", "admin"]),
    ("model-api.keys.required", ["feedback", "feedback"]),
    ("model-api.keys.enabled", True),
    ("ui.tolerations", {"key": "x"}),
    ("ui.password", "x"),
    ("retrainer.enabled", "yes"),
    ("retrainer.cooldown", -1),
    ("retrainer.cooldown", "1h"),
    ("retrainer.cooldownMax", 10**9),
    ("retrainer.dailyCap", 0),
    ("retrainer.dailyCap", 2.5),
    ("retrainer.dryRun", "true"),
    ("retrainer.token", "secret"),
    ("retrainer.replicas", 2),
    ("backup.enabled", "yes"),
    ("backup.schedule", "daily"),
    ("backup.schedule", "0 25"),
    ("backup.keep.last", 0),
    ("backup.keep.days", -1),
    ("backup.recipient", "age1short"),
    ("backup.recipient", "AGE-SECRET-KEY-1" + "Q" * 58),
    ("backup.destination", "/mnt/backups"),
    ("backup.endpointUrl", "s3.example.com"),
    ("backup.egressCIDRs", "203.0.113.0/24"),
    ("backup.persistence.size", "large"),
    ("backup.activeDeadlineSeconds", 0),
    ("backup.identity", "AGE-SECRET-KEY-1"),
    ("grafana.enabled", "no"),
    ("grafana.dashboardLabel", "grafana dashboard"),
    ("grafana.prometheusUrl", "prometheus:9090"),
    ("grafana.prometheusNamespace", "Monitoring"),
    ("grafana.persistence.enabled", 1),
    ("grafana.adminPassword", "x"),
    ("ui.prometheusUrl", "prometheus:9090"),
    ("ui.prometheusUrl", "http://prometheus:9090"),  # of which namespace? a policy has to let it through
    ("ui.prometheusUrl", "http://user:word@prometheus.monitoring:9090"),
    ("traefik.enabled", "on"),
    ("traefik.service.type", "Nodeport"),
    ("traefik.service.nodePort", 8080),
    ("traefik.image.repository", 3),
    ("global.ingress.className", "Traefik!"),
    ("global.ingress.tls.enabled", "yes"),
    ("global.ingress.annotations", {"a": 1}),
    ("global.ingress.auth.enabled", 1),
    ("global.gateway.parentRefs", [{"namespace": "gateways"}]),
    ("mlflow.ingress.hosts", "mlflow.example.com"),
    ("mlflow.ingress.path", "mlflow"),
    ("mlflow.ingress.tls", {"secretName": "x"}),
    ("ui.ingress.host", "ui.example.com"),
]
# Sections and settings that are taken away: what needs them would get nothing.
EMPTIED = [
    *("global", "global.defaultModel", "global.ingress.domain", "mlflow.persistence", "mlflow.artifacts"),
    *("mlflow.image", "mlflow.resources", "mlflow.resources.limits", "prefect-server.resources"),
    *("prefect-server.persistence", "prefect-server.retentionDays", "prefect-worker.bootstrap", "prefect-worker.jobs"),
    *("prefect-worker.workPool", "prefect-worker.resources", "model-api.autoscaling", "model-api.resources"),
    *("model-api.cacheSize", "model-api.pollSeconds", "model-api.keys", "ui.image", "ui.resources", "traefik.service"),
    *("grafana.persistence", "grafana.resources", "traefik.resources", "postgres.persistence", "postgres.resources"),
    *("backup.schedule", "backup.keep", "backup.keep.last", "backup.persistence", "backup.image"),
    *("retrainer.cooldown", "retrainer.cooldownMax", "retrainer.dailyCap", "retrainer.image"),
]
# Settings of charts that are off, whose own schemas Helm does not ask.
OFF: list[tuple[dict[str, Any], str]] = [
    ({"postgres": {"enable": True}}, "enable"),  # and MLflow would be on SQLite, without a word
    ({"postgres": {"enabled": False, "password": "x"}}, "password"),
    ({"traefik": {"enabled": False, "classname": "nginx"}}, "classname"),
    ({"grafana": {"enabled": False, "dashboardLable": "x"}}, "dashboardLable"),
    ({"retrainer": {"enabled": False, "coolDown": 60}}, "coolDown"),
    ({"backup": {"enabled": False, "shedule": "0 0 * * *"}}, "shedule"),
    ({"lib": {"anything": 1}}, "anything"),
]


def nested(key: str, value: Any) -> dict[str, Any]:
    """The values that set one key. Its chart is switched on: Helm does not validate one that is off."""
    values: Any = value
    for part in reversed(key.split(".")):
        values = {part: values}
    chart = key.partition(".")[0]
    if chart in ("postgres", "backup") and key != f"{chart}.enabled":
        values[chart]["enabled"] = True
    return dict(values)


def place(key: str) -> tuple[str, str]:
    """The chart whose schema knows a key, and where in that chart's values it is."""
    first, _, rest = key.partition(".")
    is_subchart = first in (
        "mlflow",
        "prefect-server",
        "prefect-worker",
        "model-api",
        "ui",
        "traefik",
        "postgres",
        "retrainer",
        "backup",
        "grafana",
    )
    return (first, rest) if is_subchart and rest else ("platform", key)


@pytest.mark.parametrize(("key", "value"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_value_is_refused_by_name(key: str, value: Any) -> None:
    chart, path = place(key)
    *above, last = path.split(".")
    messages = refusals(nested(key, value)).get(chart, [])
    pointer, parent = "/" + "/".join([*above, last]), "".join(f"/{part}" for part in above)
    matches = [
        message
        for message in messages
        if message.startswith((f"- at '{pointer}': ", f"- at '{pointer}/"))
        or message == f"- at '{parent}': additional properties '{last}' not allowed"
    ]
    assert matches, f"{chart} does not name {pointer}: {messages}"
    assert not [message for message in matches if message.endswith("'not' failed")], f"says nothing: {matches}"


@pytest.mark.parametrize("key", EMPTIED)
def test_a_section_that_is_taken_away_is_missed_by_name(key: str) -> None:
    chart, path = place(key)
    above, _, last = path.rpartition(".")
    pointer = "".join(f"/{part}" for part in above.split(".") if part)
    assert f"- at '{pointer}': missing property '{last}'" in refusals(nested(key, None)).get(chart, [])


@pytest.mark.parametrize(("values", "key"), OFF, ids=lambda value: str(value)[:40])
def test_a_typo_in_a_chart_that_is_off_is_refused(values: dict[str, Any], key: str) -> None:
    chart = next(iter(values))
    assert f"- at '/{chart}': additional properties '{key}' not allowed" in refusals(values)["platform"]


def test_more_pods_at_least_than_at_most_are_refused() -> None:
    done = template({"model-api": {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}}})
    assert done.returncode != 0
    assert "maxReplicas" in done.stderr


def test_a_cooldown_above_its_maximum_is_refused() -> None:
    done = template({"retrainer": {"cooldown": 7200, "cooldownMax": 3600}})
    assert done.returncode != 0
    assert "retrainer.cooldownMax (3600 s) is less than retrainer.cooldown (7200 s)" in done.stderr


def test_a_toleration_of_no_known_field_is_refused() -> None:
    messages = refusals({"ui": {"tolerations": [{"taint": "gpu"}]}})["ui"]
    assert "- at '/tolerations/0': additional properties 'taint' not allowed" in messages


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("global.imageRegistry", "registry.example.com:5000/team/"),
        ("global.defaultModel", "my-model_2"),
        ("mlflow.image.tag", "0.1.0-rc1"),
        ("mlflow.image.tag", "3f2a9c" * 10),  # what skaffold makes
        ("mlflow.image.digest", "sha256:" + "0" * 64),
        ("mlflow.image.registry", "registry.example.com:5000/team"),
        ("mlflow.image.pullPolicy", "Always"),
        ("global.mirrorRegistry", "registry.example.com:5000/mirror/"),
        ("mlflow.resources.requests.cpu", "0.5"),
        ("mlflow.resources.limits.cpu", "2"),
        ("mlflow.persistence.size", "1Ti"),
        ("mlflow.egressCIDRs", ["2001:db8::/32", "10.0.0.0/8"]),
        ("mlflow.artifacts.destination", "s3://bucket/a/b"),
        ("mlflow.nodeSelector", {"kubernetes.io/arch": "amd64"}),
        ("ui.tolerations", [{"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}]),
        ("grafana.dashboardLabel", ""),
        ("grafana.prometheusUrl", "http://prometheus-operated.monitoring.svc:9090/prefix"),
        ("ui.prometheusUrl", "https://prometheus.monitoring.svc.cluster.local:443/prefix/"),
        ("traefik.service.type", "LoadBalancer"),
        ("traefik.service.nodePort", 0),
        ("postgres.persistence.size", "500Mi"),
    ],
    ids=str,
)
def test_a_good_value_is_accepted(key: str, value: Any) -> None:
    done = template(nested(key, value))
    assert done.returncode == 0, done.stderr


def test_there_are_at_least_fifty() -> None:
    assert len({(key, str(value)) for key, value in BAD}) >= 50
