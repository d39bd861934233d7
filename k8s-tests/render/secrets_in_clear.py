"""Where a manifest carries a secret in clear."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

SECRET = re.compile(r"PASSW|SECRET|TOKEN|KEY|AUTH_STRING|CREDENTIAL", re.IGNORECASE)
USERINFO = re.compile(r"://[^/\s@:]*:(?P<password>[^/\s@]+)@")
ASSIGNED = re.compile(
    r"(passw\w*|secret\w*|token|api[-_]?key|auth[-_]?string)[\"']?\s*[:= ]\s*[\"']?(?P<value>[^\s\"',}]+)", re.I
)
FROM_VARIABLE = re.compile(r"\$\(\w+\)")

# Variables that are called like secrets and name where one is.
NAMES = {
    "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME",
    "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY",
    "MLOPS_ADMIN_SECRET",
    "MLOPS_API_KEYS_DIR",
    "MLOPS_API_KEYS_REQUIRED",
    "MLOPS_BACKUP_SECRET",
}


def in_pod(pod: dict[str, Any]) -> Iterator[str]:
    """Passwords, keys and tokens in variables and commands, as `path: reason`; a secretKeyRef is none."""
    for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
        for variable in container.get("env", []):
            path = f"{container['name']}.env[{variable['name']}]"
            if SECRET.search(variable["name"]) and variable["name"] not in NAMES:
                if "secretKeyRef" not in variable.get("valueFrom", {}):
                    yield f"{path}: must come from a secretKeyRef"
            elif reason := in_text(str(variable.get("value", ""))):
                yield f"{path}: {reason}"
        for field in ("command", "args"):
            if reason := in_text(" ".join(map(str, container.get(field, [])))):
                yield f"{container['name']}.{field}: {reason}"


def in_text(text: str) -> str:
    """Why a text holds a password (in an address, or after a word that announces one); "" if it holds none."""
    for match in USERINFO.finditer(text):
        if not FROM_VARIABLE.fullmatch(match["password"]):
            return f"a password in the address {match[0]}"
    for match in ASSIGNED.finditer(text):
        if not FROM_VARIABLE.fullmatch(match["value"]):
            return f"{match[0]!r} looks like a secret"
    return ""


def in_config(manifest: dict[str, Any]) -> Iterator[str]:
    """Secrets in a ConfigMap's texts. JSON is left to in_pod, which sees the Job it is the template of."""
    for key, text in {**manifest.get("data", {}), **manifest.get("binaryData", {})}.items():
        if key.endswith(".json"):
            json.loads(text)
        elif reason := in_text(text):
            yield f"data[{key}]: {reason}"
