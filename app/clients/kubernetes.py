"""The Kubernetes API, as far as commands ask it: a Secret, the pods that read it, and pods that cannot start.

Of the images only `flows` has kubernetes_asyncio, so no service imports this.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self

import aiohttp
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client.exceptions import ApiException
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_fixed

from app.clients.errors import ServiceError, sentence

RESTARTED = "kubectl.kubernetes.io/restartedAt"  # what `kubectl rollout restart` writes


@dataclass(frozen=True)
class Secret:
    """A Secret. version: its state; values: decoded; owner: such as ExternalSecret/ours, "" for none."""

    version: str
    values: dict[str, str]
    owner: str = ""


@dataclass(frozen=True)
class Workload:
    """A Deployment or StatefulSet.

    reads: (Secret, key) of its variables.
    has_volume: whether it keeps something.
    mounts: the Secrets of its volumes, which it sees change.
    """

    kind: Literal["deployment", "statefulset"]
    name: str
    reads: frozenset[tuple[str, str]]
    has_volume: bool = False
    mounts: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class StuckContainer:
    """A container that cannot start. reason: such as CrashLoopBackOff; last_words: the last line that it printed."""

    pod: str
    name: str
    reason: str
    last_words: str


# What a container waits for that goes by itself.
STARTING = ("PodInitializing", "ContainerCreating")


class KubernetesClient:
    """A client of one namespace, to be used by `async with`. Its methods raise ServiceError, and nothing else.

    Args:
        namespace: the namespace.
        context: of the kubeconfig; "" for the current one, or for the pod's own account inside a cluster.
        timeout: seconds for one request.
        retry_for: seconds for which a request is sent again while nothing answers.
    """

    def __init__(self, namespace: str, context: str = "", timeout: float = 10.0, retry_for: float = 0.0) -> None:
        self.namespace, self.context, self.timeout, self.retry_for = namespace, context, timeout, retry_for

    async def __aenter__(self) -> Self:
        settings = client.Configuration()
        files = os.environ.get("KUBECONFIG")
        in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and not files and not self.context
        try:
            if in_pod:
                config.load_incluster_config(client_configuration=settings)
            else:
                await config.load_kube_config(files, context=self.context or None, client_configuration=settings)
        except (config.ConfigException, OSError) as error:
            raise ServiceError(
                f"Which Kubernetes is meant cannot be read: {error}.",
                "Set KUBECONFIG to a kubeconfig file, and --context to one of its contexts.",
            ) from error
        self._api = client.ApiClient(settings)
        self._core, self._apps = client.CoreV1Api(self._api), client.AppsV1Api(self._api)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.close()

    async def secret(self, name: str) -> Secret | None:
        """A Secret, or None where there is none of this name."""
        try:
            found = await self._ask(f"read the Secret {name}", self._core.read_namespaced_secret, name)
        except ServiceError as error:
            if error.status == 404:
                return None
            raise
        owners = [f"{owner.kind}/{owner.name}" for owner in found.metadata.owner_references or []]
        values = {key: base64.b64decode(value).decode(errors="replace") for key, value in (found.data or {}).items()}
        return Secret(found.metadata.resource_version, values, next(iter(owners), ""))

    async def create_secret(self, manifest: Mapping[str, Any]) -> bool:
        """Create a Secret; False where somebody has created it in the meantime."""
        name = manifest["metadata"]["name"]
        return await self._unless_conflict(
            self._ask(f"create the Secret {name}", self._core.create_namespaced_secret, body=manifest)
        )

    async def set_values(self, name: str, version: str, values: Mapping[str, str | None]) -> bool:
        """Set these keys of a Secret, remove those with None, and leave all others.

        Returns:
            False where the Secret is not in the state `version` any more, and nothing was changed.
        """
        encoded = {key: value and base64.b64encode(value.encode()).decode() for key, value in values.items()}
        patch = {"metadata": {"resourceVersion": version}, "data": encoded}
        return await self._unless_conflict(
            self._ask(f"change the Secret {name}", self._core.patch_namespaced_secret, name, body=patch)
        )

    async def workloads(self) -> list[Workload]:
        """The Deployments and StatefulSets of the namespace."""
        deployments = await self._ask("list the Deployments", self._apps.list_namespaced_deployment)
        stateful = await self._ask("list the StatefulSets", self._apps.list_namespaced_stateful_set)
        return [
            *(_workload("deployment", item) for item in deployments.items),
            *(_workload("statefulset", item) for item in stateful.items),
        ]

    async def stuck_containers(self) -> list[StuckContainer]:
        """The containers of the namespace that cannot start; those of pods that have ended are left out."""
        pods = await self._ask("list the pods", self._core.list_namespaced_pod)
        found = (_stuck(pod) for pod in pods.items if pod.status.phase in ("Pending", "Running"))
        return [container for of_pod in found for container in of_pod]

    async def restart(self, workload: Workload) -> None:
        """Have a workload's pods replaced, as `kubectl rollout restart` does."""
        patch_by_kind = {
            "deployment": self._apps.patch_namespaced_deployment,
            "statefulset": self._apps.patch_namespaced_stateful_set,
        }
        annotations = {RESTARTED: datetime.now(UTC).isoformat(timespec="seconds")}
        body = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
        await self._ask(f"restart {workload}", patch_by_kind[workload.kind], workload.name, body=body)

    @staticmethod
    async def _unless_conflict(request: Awaitable[Any]) -> bool:
        try:
            await request
        except ServiceError as error:
            if error.status == 409:
                return False
            raise
        return True

    async def _ask(self, what: str, call: Callable[..., Awaitable[Any]], *names: str, **options: Any) -> Any:
        """The answer of a request about the namespace; `what` it is for completes "may not ..."."""
        retrying = AsyncRetrying(
            stop=stop_after_delay(self.retry_for),
            wait=wait_fixed(1),
            retry=retry_if_exception(lambda error: isinstance(error, ServiceError) and error.status is None),
            reraise=True,
        )
        return await retrying(self._ask_once, what, call, *names, **options)

    async def _ask_once(self, what: str, call: Callable[..., Awaitable[Any]], *names: str, **options: Any) -> Any:
        try:
            return await call(*names, self.namespace, _request_timeout=self.timeout, **options)
        except ApiException as error:
            raise self._refusal(what, error) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ServiceError(
                f"Kubernetes does not answer ({str(error) or type(error).__name__}).",
                "Check with `kubectl get namespaces` that it runs and that the context is the right one.",
            ) from error

    def _refusal(self, what: str, error: ApiException) -> ServiceError:
        try:
            reason = str(json.loads(error.body or "")["message"])
        except (ValueError, LookupError, TypeError):
            reason = str(error.reason)
        cure = ""
        if error.status in (401, 403):
            cure = f"Use a kubeconfig whose account may {what} in the namespace {self.namespace}."
        return ServiceError(f"Kubernetes refused to {what} ({error.status}). {sentence(reason)}", cure, error.status)


def _stuck(pod: Any) -> list[StuckContainer]:
    found = []
    for status in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]:
        waiting, ended = status.state.waiting, status.state.terminated
        if (waiting and waiting.reason not in STARTING) or (ended and ended.exit_code):
            last = ended or (status.last_state and status.last_state.terminated)
            words = (last and last.message) or (waiting and waiting.message) or ""
            line = next(reversed(words.strip().splitlines()), "")
            found.append(StuckContainer(pod.metadata.name, status.name, (waiting or ended).reason or "Error", line))
    return found


def _workload(kind: Literal["deployment", "statefulset"], item: Any) -> Workload:
    pod = item.spec.template.spec
    references = [
        variable.value_from.secret_key_ref
        for container in [*(pod.init_containers or []), *pod.containers]
        for variable in container.env or []
        if variable.value_from and variable.value_from.secret_key_ref
    ]
    volumes = pod.volumes or []
    claims = [volume for volume in volumes if volume.persistent_volume_claim]
    sources = [source.secret for volume in volumes if volume.projected for source in volume.projected.sources or []]
    return Workload(
        kind,
        item.metadata.name,
        frozenset((ref.name, ref.key) for ref in references),
        bool(claims),
        frozenset(
            [source.name for source in sources if source]
            + [volume.secret.secret_name for volume in volumes if volume.secret]
        ),
    )
