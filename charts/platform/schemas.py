"""Writes what the charts' values.schema.json have in common: `make schemas`, after a change here or of a chart's keys.

The settings that all pods, volumes and containers take are described here, once. A chart's own are in its schema. The
platform's schema lists the keys of all charts, as Helm does not ask the schema of a chart that is off.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHART = Path(__file__).parent
NAME = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"
CPU = "^([1-9][0-9]*m|[0-9]+(\\.[0-9]+)?)$"
MEMORY = "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)$"

Schema = dict[str, Any]


def _objects(description: str) -> Schema:
    return {"type": "array", "description": description, "items": {"type": "object"}}


def _strings(description: str) -> Schema:
    return {"type": "object", "description": description, "additionalProperties": {"type": "string"}}


def _closed(description: str, properties: Schema, required: list[str]) -> Schema:
    closed = {"type": "object", "description": description, "additionalProperties": False, "properties": properties}
    return {**closed, **({"required": required} if required else {})}


TOLERATION = {
    "type": "object",
    "description": "A taint",
    "additionalProperties": False,
    "properties": {
        **{key: {"type": "string"} for key in ("key", "operator", "value", "effect")},
        "tolerationSeconds": {"type": "integer", "minimum": 0},
    },
}
PULL_SECRET = {
    "anyOf": [
        {"type": "string", "pattern": NAME, "minLength": 1},
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {"name": {"type": "string"}},
        },
    ]
}
# What every pod takes; `global` takes them for all.
POD: Schema = {
    "affinity": {"type": "object", "description": "Which nodes and neighbours the pods prefer or need, as in a pod"},
    "nodeSelector": _strings("Labels of the nodes that the pods may run on"),
    "tolerations": {"type": "array", "description": "Taints that the pods tolerate, as in a pod", "items": TOLERATION},
    "topologySpreadConstraints": _objects("How the pods spread over nodes or zones, as in a pod"),
    "priorityClassName": {"type": "string", "description": "PriorityClass of the pods", "pattern": NAME},
    "runtimeClassName": {"type": "string", "description": "RuntimeClass of the pods", "pattern": NAME},
    "schedulerName": {"type": "string", "description": "Scheduler of the pods", "pattern": NAME},
    "hostAliases": _objects("Names beside those of DNS, as in a pod"),
    "dnsPolicy": {
        "enum": ["", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        "description": "Whom the pods ask for names",
    },
    "dnsConfig": {"type": "object", "description": "How the pods ask for names, as in a pod"},
    "revisionHistoryLimit": {
        "type": ["integer", "null"],
        "description": "Old ReplicaSets that a Deployment keeps",
        "minimum": 0,
    },
    "terminationGracePeriodSeconds": {
        "type": ["integer", "null"],
        "description": "Seconds that a pod has to end",
        "minimum": 0,
    },
    "podAnnotations": _strings("Annotations of the pods"),
    "podLabels": _strings("Labels of the pods"),
    "podSecurityContext": {"type": "object", "description": "Security context of the pods, over the chart's own"},
    "securityContext": {"type": "object", "description": "Security context of the containers, over the chart's own"},
    "extraEnv": _objects("Environment variables of the main container, as in a pod"),
    "extraEnvFrom": _objects("ConfigMaps and Secrets whose keys become environment variables, as in a pod"),
    "extraVolumes": _objects("Volumes, as in a pod"),
    "extraVolumeMounts": _objects("Where those are mounted in the main container"),
    "extraContainers": _objects("Further containers of the pods"),
    "imagePullSecrets": {
        "type": "array",
        "description": "Names of Secrets with which images are pulled",
        "items": PULL_SECRET,
    },
}
PROBE = {
    "type": "object",
    "description": "When the probe asks, in place of the chart's own",
    "additionalProperties": False,
    "properties": {
        **{
            key: {"type": "integer", "description": "As in a probe", "minimum": 1}
            for key in ("periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold")
        },
        "initialDelaySeconds": {"type": "integer", "description": "As in a probe", "minimum": 0},
    },
}
PROBES: Schema = dict.fromkeys(("startupProbe", "readinessProbe", "livenessProbe"), PROBE)
SERVICE_ACCOUNT = _closed(
    "The pods' account",
    {
        "create": {"type": "boolean", "description": "Make it; false for one that is there"},
        "name": {
            "type": "string",
            "description": 'Its name; "" for the chart\'s, or `default` where none is made',
            "pattern": NAME,
        },
        "annotations": _strings("Such as those of EKS and GKE for the rights of a cloud"),
    },
    [],
)
PERSISTENCE: Schema = {
    "enabled": {"type": "boolean", "description": "Keep the data on a volume; without one it is gone with the pod"},
    "size": {"type": "string", "description": "Such as 10Gi", "pattern": "^[1-9][0-9]*(Mi|Gi|Ti)$"},
    "storageClass": {
        "type": "string",
        "description": 'Storage class; "" for global.storageClass, "-" for none at all',
        "pattern": "^(-|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$",
    },
    "accessModes": {
        "type": "array",
        "description": "Access modes of the claim",
        "minItems": 1,
        "items": {"enum": ["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]},
    },
    "existingClaim": {"type": "string", "description": "A claim of yours in place of the chart's", "pattern": NAME},
    "annotations": _strings("Annotations of the claim"),
}
COMPUTE: Schema = {
    "cpu": {"type": ["string", "number"], "description": "Such as 100m or 1", "pattern": CPU, "exclusiveMinimum": 0},
    "memory": {"type": "string", "description": "Such as 256Mi", "pattern": MEMORY},
}
RESOURCES = _closed(
    "Compute of the container; no CPU limit by default, as that only slows a pod on an idle node",
    {
        # further keys: ephemeral-storage, nvidia.com/gpu and the like
        name: {
            "type": "object",
            "description": description,
            "properties": COMPUTE,
            "required": required,
            "additionalProperties": False,
            "patternProperties": {"^ephemeral-storage$|^hugepages-|/": {"type": ["string", "integer"]}},
        }
        for name, description, required in (
            ("requests", "What is reserved", ["cpu", "memory"]),
            ("limits", "What may be used", ["memory"]),
        )
    },
    ["requests", "limits"],
)
INGRESS = _closed(
    "The service's Ingress",
    {
        "enabled": {"type": "boolean", "description": "Make it"},
        "className": {"type": "string", "description": 'Its class; "" for global.ingress.className', "pattern": NAME},
        "annotations": _strings("Its annotations, after those of global.ingress.annotations"),
        "hosts": {
            "type": "array",
            "description": "Its names; none for <service>.<global.ingress.domain>",
            "items": {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {
                        "type": "object",
                        "required": ["host"],
                        "properties": {"host": {"type": "string", "minLength": 1}},
                    },
                ]
            },
        },
        "path": {
            "type": "string",
            "description": "What paths begin with; the controller has to take it away",
            "pattern": "^/",
        },
        "pathType": {"enum": ["Prefix", "Exact", "ImplementationSpecific"], "description": "How the path is meant"},
        "tls": _objects("Hosts and Secrets with their certificates, as in an Ingress; none for global.ingress.tls"),
    },
    [],
)
SERVICES: Schema = {  # `global` takes these for all
    "annotations": _strings("Annotations of the Service, such as those of a cloud's load balancer"),
    "ipFamilyPolicy": {
        "enum": ["", "SingleStack", "PreferDualStack", "RequireDualStack"],
        "description": 'One IP family or two; "" for the cluster\'s default',
    },
    "ipFamilies": {
        "type": "array",
        "description": "IP families of the Service, in order",
        "maxItems": 2,
        "items": {"enum": ["IPv4", "IPv6"]},
    },
}
NODE_PORT = {"type": "integer", "anyOf": [{"const": 0}, {"minimum": 30000, "maximum": 32767}]}
SERVICE: Schema = {
    "type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"], "description": "Kind of Service"},
    "nodePort": {"description": "Port of the nodes; 0 for any", **NODE_PORT},
    **SERVICES,
    "loadBalancerClass": {"type": "string", "description": "Class of the load balancer"},
    "loadBalancerIP": {"type": "string", "description": "Address of the load balancer, where the cloud takes one"},
    "loadBalancerSourceRanges": {
        "type": "array",
        "description": "Addresses (CIDR) that may come by the load balancer",
        "items": {"type": "string"},
    },
    "externalTrafficPolicy": {"enum": ["", "Cluster", "Local"], "description": "Which nodes take what comes"},
}
ROUTED = {"mlflow": "", "prefect-server": "", "model-api": "", "ui": "", "grafana": "", "monitoring": "prometheus"}
# Sections of charts that have pods of their own, beside the chart as a whole.
PODS = {"monitoring": ["operator", "prometheus", "alertmanager", "kubeStateMetrics"], "prefect-worker": ["jobs"]}
# What their kinds have no field for.
NOT_OF = {
    "jobs": {"revisionHistoryLimit"},
    "prometheus": {"revisionHistoryLimit", "runtimeClassName"},
    "alertmanager": {"revisionHistoryLimit", "runtimeClassName"},
}
PROBED = {"operator", "kubeStateMetrics"}  # of the sections


def filled(name: str, schema: Schema) -> Schema:
    """A chart's schema with the settings that it has in common with others."""
    properties: Schema = schema["properties"]
    properties["lib"] = {"type": "object", "description": "Fragments, where the chart is rendered alone; not a setting"}
    sections = {"": properties, **{key: properties[key]["properties"] for key in PODS.get(name, [])}}
    for key, section in sections.items():
        section |= {setting: POD[setting] for setting in POD if setting not in NOT_OF.get(key, ())}
        if not key and name in PODS and "image" not in section:
            continue  # its sections have accounts, probes and compute
        section["serviceAccount"] = SERVICE_ACCOUNT
        if not key or key in PROBED:
            section |= PROBES
    for section in (properties, *(child.get("properties", {}) for child in properties.values())):
        if "resources" in section:
            section["resources"] = RESOURCES
        if "persistence" in section:
            section["persistence"] = _closed(section["persistence"]["description"], PERSISTENCE, ["size"])
    if name in ROUTED:
        section = properties[ROUTED[name]]["properties"] if ROUTED[name] else properties
        section["ingress"] = INGRESS
        section["service"] = _closed("The Service", SERVICE, [])
    if name == "traefik":
        https = {"description": "Port of the nodes for TLS; 0 for any", **NODE_PORT}
        properties["service"] = _closed("Of Traefik", {**SERVICE, "httpsNodePort": https}, ["type"])
    schema["required"] = [key for key in schema["required"] if key not in POD]
    return schema


def schemas() -> dict[Path, Schema]:
    """Path -> what should be in it, for the platform's schema and those of its charts."""
    written: dict[Path, Schema] = {}
    for path in sorted(CHART.glob("charts/*/values.schema.json")):
        written[path] = filled(path.parent.name, json.loads(path.read_text()))
    path = CHART / "values.schema.json"
    platform: Schema = json.loads(path.read_text())
    of_all: Schema = platform["properties"]["global"]["properties"]
    of_all |= POD
    of_all["service"]["properties"] = SERVICES
    for chart, schema in written.items():
        keys: Schema = {key: {} for key in schema["properties"]}
        platform["properties"][chart.parent.name]["properties"] = keys
    return {**written, path: platform}


def main() -> None:
    """Write them."""
    for path, schema in schemas().items():
        path.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
