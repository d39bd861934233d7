"""The installations that the render tests go through."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "global": {"ingress": {"enabled": False}},
    "traefik": {"enabled": False},
    "retrainer": {"enabled": False},
    "monitoring": {"enabled": False},
    "grafana": {"enabled": False},
}
PROFILES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "postgres": {"postgres": {"enabled": True}},
    "external": {
        "global": {
            "imageRegistry": "registry.example.com/team",
            "mirrorRegistry": "registry.example.com/mirror",
            "imagePullSecrets": ["pull"],
            "storageClass": "fast",
            "existingSecret": "ours",
            "databaseSecret": "database",
            "ingress": {
                "className": "nginx",
                "scheme": "https",
                "domain": "ml.example.com",
                "port": 443,
                "controllerNamespace": "nginx",
            },
        },
        "traefik": {"enabled": False},
        "mlflow": {
            "artifacts": {
                "destination": "s3://bucket/mlflow",
                "endpointUrl": "https://s3.example.com",
                "existingSecret": "s3",
            },
            "egressCIDRs": ["203.0.113.0/24"],
            "allowedHosts": ["mlflow.internal:443"],
        },
        "model-api": {
            "keys": {"required": ["predict", "feedback"]},
            "grpc": {"enabled": True},
            "autoscaling": {"enabled": False},
            "replicas": 3,
            "serviceMonitor": {"labels": {"release": "stack"}},
        },
        "monitoring": {
            "operator": {"enabled": False},
            "namespace": "observability",
            "serviceMonitor": {"labels": {"release": "stack"}},
            "prometheusRule": {"labels": {"release": "stack"}},
        },
        "grafana": {"persistence": {"enabled": True}, "prometheusUrl": "https://prometheus.example.com"},
        "prefect-worker": {
            "bootstrap": {"enabled": False},
            "jobs": {"extraEnvFrom": [{"secretRef": {"name": "data"}}], "egressCIDRs": ["0.0.0.0/0"]},
        },
    },
    # several pods of each server
    "replicas": {
        "postgres": {"enabled": True},
        "mlflow": {
            "replicas": 2,
            "artifacts": {"destination": "s3://bucket/mlflow", "existingSecret": "s3"},
            "egressCIDRs": ["203.0.113.0/24"],
        },
        "prefect-server": {
            "replicas": 3,
            "redis": {"existingSecret": "redis"},
            "egressCIDRs": ["203.0.113.0/24"],
        },
    },
    "development": {
        "global": {"devSync": True, "ingress": {"enabled": False}},
        "traefik": {"enabled": False},
        "model-api": {"keys": {"required": []}},
        "retrainer": {"enabled": False},
        "monitoring": {"enabled": False},
        "grafana": {"enabled": False},
    },
    "backup": {
        "backup": {"enabled": True, "recipient": "age10gwjjezkc3llq3z7pty2dvf8exjwh5ztwkxld6rr897gr9c044sqcdg6sg"},
        **SMALL,
    },
    "backup of postgres": {"backup": {"enabled": True}, "postgres": {"enabled": True}, **SMALL},
}
