"""The Kubernetes API, as far as `mlops backup` asks it: Jobs of CronJobs, what they print, Deployments at rest."""

from __future__ import annotations

import asyncio
import copy
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kubernetes_asyncio import client

from app.clients.errors import ServiceError
from app.clients.kubernetes import KubernetesClient

REPLICAS = "mlops/replicas-before-restore"  # annotation of a Deployment at rest: how many pods it had
PAUSE = 1.0  # seconds between two looks


@dataclass(frozen=True)
class Ended:
    """A Job that has ended. output: what its pod printed; reason: why it failed, "" where it did not."""

    job: str
    output: str
    reason: str = ""


class JobsClient(KubernetesClient):
    """A client of one namespace, to be used by `async with`. Its methods raise ServiceError, and nothing else."""

    async def __aenter__(self) -> JobsClient:
        await super().__aenter__()
        self._batch = client.BatchV1Api(self._api)
        return self

    async def cron_jobs(self, labels: str) -> list[dict[str, Any]]:
        """The CronJobs with these labels, as in YAML."""
        found = await self._ask("list the CronJobs", self._batch.list_namespaced_cron_job, label_selector=labels)
        return [self._api.sanitize_for_serialization(item) for item in found.items]

    async def run(
        self, cron_job: dict[str, Any], verb: str, arguments: Sequence[str], say: Callable[[str], None]
    ) -> Ended:
        """Make a Job of a CronJob, with other arguments; wait for its end, and remove it.

        Args:
            verb: for its name and the messages; say: is told why its pod does not start, once for each reason.
        """
        manifest = job_manifest(cron_job, verb, arguments)
        name = manifest["metadata"]["name"]
        await self._ask(f"create the Job {name}", self._batch.create_namespaced_job, body=manifest)
        try:
            return await self._ended(name, say)
        finally:
            delete = self._ask(
                f"delete the Job {name}",
                self._batch.delete_namespaced_job,
                name,
                body=client.V1DeleteOptions(propagation_policy="Background"),
            )
            await asyncio.shield(asyncio.ensure_future(_silently(delete)))

    async def _ended(self, name: str, say: Callable[[str], None]) -> Ended:
        told = ""
        while True:
            job = await self._ask(f"read the Job {name}", self._batch.read_namespaced_job_status, name)
            pods = await self._ask(
                "list pods", self._core.list_namespaced_pod, label_selector=f"batch.kubernetes.io/job-name={name}"
            )
            pod = next(iter(pods.items), None)
            over = {c.type: c for c in job.status.conditions or [] if c.status == "True"}
            if end := over.get("Complete") or over.get("Failed"):
                output = await self._log(pod.metadata.name) if pod else ""
                failed = f"{end.reason}: {end.message}" if end.type == "Failed" else ""
                return Ended(name, output, failed and (_death(pod) or failed))
            reason = _obstacle(pod)
            if reason and reason != told:
                told = reason
                say(f"{name} waits: {reason}")
            await asyncio.sleep(PAUSE)

    async def _log(self, pod: str) -> str:
        """What a pod printed; "" where its container never ran."""
        # As it is: the client would decode what looks like JSON, and print it as Python does.
        answer = await self._ask(
            f"read the log of {pod}", self._core.read_namespaced_pod_log, pod, _preload_content=False
        )
        text = str(await answer.text())
        if answer.status in (400, 404):
            return ""
        if answer.status >= 300:
            raise ServiceError(
                f"Kubernetes refused to read the log of {pod} ({answer.status}). {text}", "", answer.status
            )
        return text

    async def deployments(self, labels: str) -> list[str]:
        """The names of the Deployments with these labels."""
        found = await self._ask("list the Deployments", self._apps.list_namespaced_deployment, label_selector=labels)
        return [item.metadata.name for item in found.items]

    async def rest(self, deployment: str, labels: str) -> None:
        """Stop a Deployment's pods and wait until they are gone; how many there were is noted on it."""
        found = await self._ask(f"read {deployment}", self._apps.read_namespaced_deployment, deployment)
        noted = (found.metadata.annotations or {}).get(REPLICAS) or str(found.spec.replicas or 1)
        body = {"metadata": {"annotations": {REPLICAS: noted}}, "spec": {"replicas": 0}}
        await self._ask(f"stop {deployment}", self._apps.patch_namespaced_deployment, deployment, body=body)
        while (await self._ask("list pods", self._core.list_namespaced_pod, label_selector=labels)).items:
            await asyncio.sleep(PAUSE)

    async def wake(self, deployment: str) -> None:
        """Start as many pods as there were before `rest`; nothing happens to a Deployment that did not rest."""
        found = await self._ask(f"read {deployment}", self._apps.read_namespaced_deployment, deployment)
        noted = (found.metadata.annotations or {}).get(REPLICAS)
        if noted:
            body = {"metadata": {"annotations": {REPLICAS: None}}, "spec": {"replicas": int(noted)}}
            await self._ask(f"start {deployment}", self._apps.patch_namespaced_deployment, deployment, body=body)

    async def ready(self, deployment: str, seconds: float) -> bool:
        """Wait until a Deployment has all its pods; False where it does not in time."""
        for _ in range(int(seconds / PAUSE)):
            found = await self._ask(f"read {deployment}", self._apps.read_namespaced_deployment, deployment)
            status, wanted = found.status, found.spec.replicas
            if (status.observed_generation or 0) >= found.metadata.generation and (
                (status.updated_replicas or 0) == wanted == (status.available_replicas or 0) == (status.replicas or 0)
            ):
                return True
            await asyncio.sleep(PAUSE)
        return False


def job_manifest(cron_job: dict[str, Any], verb: str, arguments: Sequence[str]) -> dict[str, Any]:
    """A Job of a CronJob's template, with these arguments.

    Only "save" runs beside its service, as that is stopped for a "restore". What does neither has no use for the
    service's volume, which may be on another node.
    """
    template = copy.deepcopy(cron_job["spec"]["jobTemplate"])
    spec = template["spec"]
    spec["backoffLimit"] = 0
    pod = spec["template"]["spec"]
    pod["containers"][0]["args"] = list(arguments)
    if verb != "save":
        pod.get("affinity", {}).pop("podAffinity", None)
    if verb not in ("save", "restore"):
        others = [volume for volume in pod.get("volumes", []) if volume["name"] != "data"]
        pod["volumes"] = [*others, {"name": "data", "emptyDir": {}}]
    metadata = template.get("metadata") or {}
    name = f"{cron_job['metadata']['name'][:48]}-{verb}-{secrets.token_hex(3)}"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": metadata.get("labels") or {}},
        "spec": spec,
    }


def last_json(output: str) -> dict[str, Any] | None:
    """The answer that a Job printed as its last line; None where it printed none."""
    lines = output.strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


async def _silently(request: Any) -> None:
    try:
        await request
    except ServiceError:
        return  # it is removed by its ttlSecondsAfterFinished


def _obstacle(pod: Any) -> str:
    """Why a pod does not run yet, where Kubernetes says so."""
    if pod is None or pod.status.phase != "Pending":
        return ""
    waiting = [status.state.waiting for status in pod.status.container_statuses or [] if status.state.waiting]
    told = [f"{w.reason}: {w.message}" for w in waiting if w.message]
    told += [c.message for c in pod.status.conditions or [] if c.type == "PodScheduled" and c.status == "False"]
    return next(iter(told), "") or ""


def _death(pod: Any) -> str:
    """Why a pod's container ended, where that is more than that it did."""
    for status in (pod.status.container_statuses or []) if pod else []:
        end = status.state.terminated
        if end and end.reason not in (None, "Error", "Completed"):
            return f"{end.reason} (exit code {end.exit_code})"
    return ""
