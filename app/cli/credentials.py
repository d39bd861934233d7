"""`mlops credentials`: makes the Secret that all passwords and keys of an installation are in, and rotates them.

CREDENTIALS is the one list of its keys: the chart's Job, the command and the tests of the chart take them from here.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import string
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

from app.cli.errors import CommandError
from app.clients.errors import ServiceError
from app.clients.kubernetes import KubernetesClient, Secret, Workload
from app.runtime.api_keys import ADMIN as ADMIN_SCOPE
from app.runtime.api_keys import BUILT_IN, Client, Scope, key_digest, new_key

LENGTH = 32  # of a password; letters and digits, which need no quotes anywhere, in a database's address neither
ADMIN = "admin"
TRIES = 10  # of a change, while others change the same Secret

Values = Mapping[str, str]
T = TypeVar("T")


def _random(_: Values) -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(LENGTH))


def _auth_string(values: Values) -> str:
    account = values.get("prefect-auth-string", "").partition(":")[0]
    return f"{account or ADMIN}:{_random(values)}"


def _api_key(_: Values) -> str:
    return new_key()


def _api_client(client: str, scopes: list[Scope]) -> Callable[[Values], str]:
    """What the API knows of a client of the platform itself: a file of its folder of clients."""
    return lambda values: Client(scopes=scopes, sha256=[key_digest(values[BUILT_IN[client]])]).text()


def _users(values: Values) -> str:
    """A line of htpasswd. Of a random password of 32 characters no hash, however fast, can be turned back."""
    digest = hashlib.sha1(values["pages-password"].encode(), usedforsecurity=False).digest()
    return f"{ADMIN}:{{SHA}}{base64.b64encode(digest).decode()}"


@dataclass(frozen=True)
class Credential:
    """One key of the Secret.

    make: its value, from those of the keys before it in the list.
    source: the key that it is made from, "" where it is random.
    former: the name of the key in earlier versions, whose value is taken over.
    stays: why another value in the Secret would not do, and what to do instead; "" where it would.
    on_volume: `stays` is so only where what reads the key has a volume.
    """

    key: str
    make: Callable[[Values], str] = _random
    source: str = ""
    former: str = ""
    stays: str = ""
    on_volume: bool = False


CREDENTIALS = (
    Credential("mlflow-admin-username", lambda _: ADMIN, stays="it is a name and no secret; leave it"),
    Credential("mlflow-admin-password"),
    Credential("mlflow-reader-password"),
    Credential("mlflow-trainer-password"),
    Credential("mlflow-gate-password"),
    Credential("mlflow-flask-key"),
    Credential("prefect-auth-string", _auth_string),
    Credential(
        "prefect-username", lambda values: values["prefect-auth-string"].partition(":")[0], "prefect-auth-string"
    ),
    Credential(
        "prefect-password", lambda values: values["prefect-auth-string"].partition(":")[2], "prefect-auth-string"
    ),
    Credential("pages-password", former="prometheus-password"),
    Credential("pages-users", _users, "pages-password"),
    Credential("api-key", _api_key),
    Credential("api-client-admin", _api_client("admin", [ADMIN_SCOPE]), "api-key"),
    Credential("worker-api-key", _api_key),
    Credential("api-client-worker", _api_client("worker", ["predict", "feedback"]), "worker-api-key"),
    Credential("feedback-key"),
    Credential("retrainer-token"),
    Credential(
        "grafana-admin-password",
        stays="Grafana keeps it on its volume from its first start on; change it on Grafana's page",
        on_volume=True,
    ),
    Credential(
        "grafana-secret-key",
        stays="what is encrypted on Grafana's volume could not be read any more; leave it",
        on_volume=True,
    ),
    Credential(
        "postgres-password",
        stays="a database keeps the password that it was made with; docs/operations.md has the commands for both",
    ),
)
BY_KEY = {credential.key: credential for credential in CREDENTIALS}


def missing(values: Values) -> dict[str, str]:
    """Values for the keys that are not there, or empty. Those that are made from another key fit the one there is."""
    new: dict[str, str] = {}
    for credential in CREDENTIALS:
        if not values.get(credential.key):
            new[credential.key] = values.get(credential.former) or credential.make({**values, **new})
    return new


def rotated(values: Values, keys: Sequence[str]) -> dict[str, str]:
    """New values for these keys and for what is made from them. `values`: all of the Secret."""
    new: dict[str, str] = {}
    for credential in CREDENTIALS:
        if credential.key in keys or credential.source in keys:
            new[credential.key] = credential.make({**values, **new})
    return new


def refusal(key: str, name: str, workloads: Sequence[Workload]) -> str:
    """Why a key of the Secret `name` cannot be rotated, and what to do instead; "" where it can."""
    credential = BY_KEY.get(key)
    if credential is None:
        return f"there is no key {key}; the keys are: {', '.join(BY_KEY)}"
    if credential.source:
        return f"{key} is made from {credential.source}; rotate {credential.source}"
    kept = [workload for workload in workloads if workload.has_volume and (name, key) in workload.reads]
    if credential.stays and (kept or not credential.on_volume):
        return f"{key} cannot be rotated: {credential.stays}"
    return ""


def manifest(name: str, namespace: str, values: Values) -> dict[str, Any]:
    """A Secret as Kubernetes takes it.

    It has no label app.kubernetes.io/instance: an Argo CD that goes by that label would remove what is in no Git.
    """
    metadata = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "mlops"}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": dict(values)}


def printed(name: str, namespace: str) -> str:
    """The manifest of a Secret with new values for all keys, as YAML."""
    return yaml.safe_dump(manifest(name, namespace, missing({})), sort_keys=False)


async def create(api: KubernetesClient, name: str) -> str:
    """Make the Secret, or add the keys that are missing. Any number may do so at once; no value is ever changed.

    Returns:
        what was done, without a value.

    Raises:
        ServiceError: Kubernetes does not answer, or refuses.
    """
    for _ in range(TRIES):
        secret = await api.secret(name)
        new = missing(secret.values if secret else {})
        if secret is None:
            if await api.create_secret(manifest(name, api.namespace, new)):
                return f"made the Secret {name} with {len(new)} keys"
        elif not new:
            return f"the Secret {name} has all keys: nothing was changed"
        elif await api.set_values(name, secret.version, new):
            return f"added to the Secret {name}: {', '.join(new)}"
    raise busy(name)


async def rotate(api: KubernetesClient, name: str, keys: Sequence[str]) -> list[str]:
    """Give keys new values, and restart what reads them.

    Args:
        name: of the Secret.
        keys: those to rotate; none for all that can be.

    Returns:
        what was done, without a value, in lines.

    Raises:
        CommandError: a key cannot be rotated, or the Secret is not ours to change; nothing was changed.
        ServiceError: Kubernetes does not answer, or refuses.
    """
    workloads = await api.workloads()
    refusals = {key: reason for key in keys or BY_KEY if (reason := refusal(key, name, workloads))}
    if keys and refusals:
        raise CommandError("; ".join(refusals.values()))
    chosen = keys or [key for key in BY_KEY if key not in refusals]
    for _ in range(TRIES):
        secret = ours(await api.secret(name), name, api.namespace)
        new = rotated(secret.values, chosen)
        if await api.set_values(name, secret.version, new):
            readers = [w for w in workloads if w.reads & {(name, key) for key in new}]
            return [f"new values in the Secret {name}: {', '.join(new)}", *await _restart(api, readers)]
    raise busy(name)


def ours(secret: Secret | None, name: str, namespace: str) -> Secret:
    """The Secret, if it is there and nobody else keeps it; CommandError otherwise."""
    if secret is None:
        raise CommandError(f"the namespace {namespace} has no Secret {name}", "`mlops credentials create` makes it")
    if secret.owner:
        raise CommandError(
            f"the Secret {name} is kept by {secret.owner}, which would undo the change",
            "change the values where it takes them from, then `kubectl rollout restart deployment`",
        )
    return secret


async def _restart(api: KubernetesClient, workloads: Sequence[Workload]) -> list[str]:
    """Restart each; one that cannot be restarted does not keep the others from it."""
    failed: list[tuple[Workload, ServiceError]] = []
    for workload in workloads:
        try:
            await api.restart(workload)
        except ServiceError as error:
            failed.append((workload, error))
    if failed:
        names = " ".join(str(workload) for workload, _ in failed)
        raise CommandError(
            f"the Secret has new values, and some of what reads them was not restarted: {failed[0][1]}",
            f"run `kubectl -n {api.namespace} rollout restart {names}`",
        )
    return [f"restarted {workload}" for workload in workloads]


def busy(name: str) -> ServiceError:
    """What to raise after so many TRIES."""
    return ServiceError(f"The Secret {name} was changed by others {TRIES} times while this tried to.", "Try again.")


def run(api: KubernetesClient, command: Callable[[KubernetesClient], Awaitable[T]]) -> T:
    """What a command returns, from the connection to its end."""

    async def connected() -> T:
        async with api:
            return await command(api)

    return asyncio.run(connected())
