"""The Prefect worker of the platform: Prefect's own for Kubernetes, which gives each Job the account of its run alone.

It also follows the model files (`flows.follow`), and removes the Jobs of ended runs.

A run may end while its Job does not: its image cannot be pulled, nothing was heard of it, it was cancelled while no
worker ran. Kubernetes would keep such a Job's pod, and the compute that is reserved for it, for ever.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import aiohttp
import kopf
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client.exceptions import ApiException
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_AUTH_STRING
from prefect.states import Cancelled
from prefect_kubernetes import KubernetesWorker
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from app.prefect_server.run_token import auth_string
from flows.follow import Follower

RUN_LABEL = "prefect.io/flow-run-id"
GRACE = timedelta(seconds=20)  # for a process that has reported its end and is about to leave
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Endlessly:
    """Seconds between two tries of a request, without an end."""

    def __iter__(self) -> Iterator[float]:
        """From 1 second to 10."""
        return itertools.chain((1.0, 2.0, 5.0), itertools.repeat(10.0))


@kopf.on.startup()  # of Prefect's observer, which is an operator of kopf's in this process
def keep_observing(settings: kopf.OperatorSettings, **_: object) -> None:
    """Try requests to Kubernetes again for ever: after kopf's own 54 seconds of it the observer would end unnoticed."""
    settings.networking.error_backoffs = Endlessly()


async def delete_jobs_of_ended_runs(batch: client.BatchV1Api, prefect: PrefectClient, namespace: str) -> list[str]:
    """Delete the Jobs that still have a pod although their flow run ended 20 s ago or more; returns their names."""
    deleted = []
    for job in (await batch.list_namespaced_job(namespace, label_selector=RUN_LABEL)).items:
        if not job.status.active:
            continue
        try:
            run = await prefect.read_flow_run(UUID(job.metadata.labels[RUN_LABEL]))
        except ObjectNotFound:
            continue  # of another Prefect server
        if not run.state or datetime.now(UTC) - run.state.timestamp < GRACE:
            continue
        if run.state.is_cancelling():  # its pod never started, so nobody has heard of it
            await prefect.set_flow_run_state(run.id, Cancelled(), force=True)
        if run.state.is_final() or run.state.is_cancelling():
            await batch.delete_namespaced_job(job.metadata.name, namespace, propagation_policy="Background")
            deleted.append(job.metadata.name)
    return deleted


class Worker(KubernetesWorker):
    """Prefect's worker for Kubernetes: Jobs have accounts of their runs, and those of ended runs are deleted."""

    async def _replace_env_variable_with_secret(
        self, env_variable_name: str, configuration: KubernetesWorkerJobConfiguration, secret_name: str, secret_key: str
    ) -> None:
        """Where Prefect's worker names the Secret with Prefect's password, put the account of the run instead.

        Raises:
            RuntimeError: the worker has no password, from which the account is made.
        """
        if env_variable_name != "PREFECT_API_AUTH_STRING":
            await super()._replace_env_variable_with_secret(env_variable_name, configuration, secret_name, secret_key)
            return
        password = PREFECT_API_AUTH_STRING.value()
        if not password:
            raise RuntimeError("PREFECT_API_AUTH_STRING is empty: the worker needs Prefect's account")
        account = auth_string(password, configuration.labels[RUN_LABEL])
        container = configuration.job_manifest["spec"]["template"]["spec"]["containers"][0]
        others = [entry for entry in container["env"] if entry["name"] != env_variable_name]
        container["env"] = [*others, {"name": env_variable_name, "value": account}]

    async def sync_with_backend(self) -> None:
        """Report to Prefect, then delete the Jobs; a problem with Kubernetes is logged and does not end the worker."""
        await super().sync_with_backend()
        async with client.ApiClient() as api, get_client() as prefect:
            try:
                deleted = await delete_jobs_of_ended_runs(client.BatchV1Api(api), prefect, NAMESPACE_FILE.read_text())
            except ApiException as error:
                self._logger.warning("the Jobs of ended runs cannot be removed: %s %s", error.status, error.reason)
            except (aiohttp.ClientError, OSError) as error:
                self._logger.warning("the Jobs of ended runs cannot be removed: Kubernetes does not answer: %s", error)
            else:
                for name in deleted:
                    self._logger.info("Deleted the Job %s: its flow run has ended", name)


async def run(pool: str, name: str, follower: Follower) -> None:
    """Run the worker in a pod of the cluster, until SIGTERM; runs go on, and the next worker looks after them."""
    config.load_incluster_config()
    worker = asyncio.create_task(Worker(work_pool_name=pool, name=name).start(with_healthcheck=True))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.cancel)  # process 1 has no default for it
    following = asyncio.create_task(follower.run())
    following.add_done_callback(lambda _: worker.cancel())  # which it ends by an error of ours alone: start again
    with suppress(asyncio.CancelledError):
        await worker
    following.cancel()
    if not following.cancelled() and following.done():
        following.result()


def main() -> None:
    """Read the command line and run the worker."""
    parser = argparse.ArgumentParser(prog="python -m flows.worker", description=__doc__)
    parser.add_argument("--work-pool", default="k8s")
    parser.add_argument("--name", required=True, help="The worker's name on Prefect's page.")
    parser.add_argument("--job-template", required=True, help="As of flows.deploy, to register changed model files.")
    parser.add_argument("--models-folder", type=Path, required=True, help="Where flows.deploy has checked them out.")
    parser.add_argument("--look-seconds", type=float, default=60.0, help="Between two looks for changed model files.")
    arguments = parser.parse_args()
    register = [sys.executable, "-m", "flows.deploy", f"--work-pool={arguments.work_pool}"]
    register.append(f"--job-template={arguments.job_template}")
    follower = Follower(register, arguments.models_folder, arguments.look_seconds)
    asyncio.run(run(arguments.work_pool, arguments.name, follower))


if __name__ == "__main__":
    main()
