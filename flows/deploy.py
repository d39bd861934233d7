"""Tells a Prefect server what runs as Kubernetes Jobs: the work pool, every deployment, and what watches over the runs.

`python -m flows.deploy --work-pool k8s --job-template FILE` is run by each worker pod before the worker starts, and by
the worker when model files have changed (`flows.follow`), so an upgrade, a new model file or an emptied database needs
no further step. Run again it changes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from pydantic import Field
from tenacity import AsyncRetrying, RetryError, retry_if_result, stop_after_delay, wait_fixed

from app.runtime.settings import EnvironmentSettings
from flows import follow, repository, serve
from flows.automations import TAG, crash_automations, ensure_automations
from flows.catalog import load_model
from flows.model import ModelFileError
from flows.repository import RepositoryError, RepositorySettings, RepositoryUnavailable

DECIDING = ("promote", "rollback")  # the flows that move `production`, under the account of the gate
DECIDING_CPU = "10m"  # what their Jobs reserve: they must find room beside the trainings that wait for them
TRAININGS_QUEUE, PROMOTIONS_QUEUE = "default", "promotions"  # of the work pool; the first is Prefect's own

log = logging.getLogger("mlops.deploy")


class DeploySettings(EnvironmentSettings):
    """Read from MLOPS_* when it is created.

    image: of the Jobs; "" for the work pool's.
    concurrency: how many trainings there may be at the same time, and how many promotions.
    bootstrap_model: the model that is trained once if it never was; "" for none.
    heartbeat_seconds: after so long without a heartbeat a run is crashed; runs send one every 30 s.
    server_seconds: how long the Prefect server may take to come up.
    models_folder: where the model files of a repository are put, and what is known of them (`flows.follow.State`).
    """

    prefix: ClassVar[str] = "MLOPS_"

    image: str = ""
    concurrency: int = Field(default=4, ge=1)
    bootstrap_model: str = ""
    heartbeat_seconds: int = Field(default=100, ge=60)
    server_seconds: float = 300.0
    models_folder: Path = Path("/tmp/models")  # noqa: S108


async def wait_for_server(client: PrefectClient, seconds: float) -> None:
    """Return once the server answers.

    Raises:
        TimeoutError: it does not within the seconds; the message has the last problem.
    """
    retrying = AsyncRetrying(
        retry=retry_if_result(lambda problem: problem is not None), wait=wait_fixed(1), stop=stop_after_delay(seconds)
    )
    try:
        await retrying(client.api_healthcheck)
    except RetryError as error:
        problem = error.last_attempt.result()
        raise TimeoutError(f"Prefect at {client.api_url} does not answer: {problem}") from error


async def ensure_work_pool(client: PrefectClient, name: str, template: dict[str, Any], concurrency: int) -> None:
    """Create the work pool, of type kubernetes, or give it this base job template and these limits of runs at a time.

    Its queue for trainings has as many as there may be, and the one for promotions as many again: a training waits for
    its promotion, which must find room however many trainings wait.
    """
    both = 2 * concurrency
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        await client.create_work_pool(
            WorkPoolCreate(name=name, type="kubernetes", base_job_template=template, concurrency_limit=both)
        )
    else:
        await client.update_work_pool(name, WorkPoolUpdate(base_job_template=template, concurrency_limit=both))
    for queue in (TRAININGS_QUEUE, PROMOTIONS_QUEUE):
        try:
            existing = await client.read_work_queue_by_name(queue, work_pool_name=name)
        except ObjectNotFound:
            existing = await client.create_work_queue(queue, work_pool_name=name)
        await client.update_work_queue(existing.id, concurrency_limit=concurrency)


@dataclass
class PullSteps:
    """What runs do before the flow itself, in the form that a RunnerDeployment takes: Prefect's RunnerStorage."""

    steps: list[dict[str, Any]]
    pull_interval: int | None = None
    destination: Path = Path()

    def set_base_path(self, path: Path) -> None:
        """Nothing: runs decide where."""

    async def pull_code(self) -> None:
        """Nothing: runs pull."""

    def to_pull_step(self) -> list[dict[str, Any]]:
        """The steps."""
        return self.steps


async def ensure_deployments(
    client: PrefectClient,
    deployments: list[RunnerDeployment],
    pool: str,
    image: str,
    steps: list[dict[str, Any]] | None = None,
    repository_known: bool = True,
) -> None:
    """Register the deployments, with their models' resources; delete those whose model file is gone.

    Args:
        image: of the Jobs; "" for the work pool's.
        steps: what every run does first.
        repository_known: whether the repository of model files could be read; if not, what is registered of it stays.
    """
    registered = {}
    for existing in await client.read_deployments():
        if TAG in existing.tags:
            registered[(await client.read_flow(existing.flow_id)).name, existing.name] = existing
    if not repository_known and ("promote", "promote") in registered:
        steps = registered["promote", "promote"].pull_steps
    for deployment in deployments:
        deployment.job_variables = job_variables(deployment, image)
        deployment.work_pool_name = pool
        deployment.work_queue_name = PROMOTIONS_QUEUE if deployment.flow_name in DECIDING else TRAININGS_QUEUE
        deployment.tags = [TAG]
        deployment.storage = PullSteps(steps or [])
        await deployment.aapply()
    names = {(deployment.flow_name, deployment.name) for deployment in deployments}
    for (flow, name), existing in registered.items():
        if (flow, name) not in names and (repository_known or not existing.pull_steps):
            log.info("deleting the deployment %s/%s: its model file is gone", flow, name)
            await client.delete_deployment(existing.id)
    log.info("registered %s", ", ".join(f"{flow}/{name}" for flow, name in sorted(names, key=str)))


def job_variables(deployment: RunnerDeployment, image: str) -> dict[str, Any]:
    """What differs between Jobs: the image, MLflow's account, and the compute that the model file asks for."""
    variables: dict[str, Any] = {"image": image} if image else {}
    if deployment.flow_name in DECIDING:
        variables |= {"account": "gate", "cpu": DECIDING_CPU}
    with suppress(ModelFileError):  # promotions are of no model file, and some files are broken
        wanted = vars(load_model(str(deployment.name)).resources)
        variables |= {name: value for name, value in wanted.items() if value}
    return variables


async def bootstrap(client: PrefectClient, model: str) -> FlowRun | None:
    """Train a model once, so that there is something to serve; again only if every attempt so far failed.

    Returns:
        the flow run that was started, or None where there is no need for one.
    """
    for attempt in range(1, 100):
        key = f"bootstrap-{model}-{attempt}"
        with_key = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key]))
        runs = await client.read_flow_runs(flow_run_filter=with_key)
        if not runs:
            deployment = await client.read_deployment_by_name(f"train/{model}")
            log.info("the first training of %s, attempt %d", model, attempt)
            return await client.create_flow_run_from_deployment(
                deployment.id,
                parameters={"model": model, "who": "bootstrap", "cause": "first install"},
                idempotency_key=key,
                name=key,
            )
        if runs[0].state_type not in (StateType.FAILED, StateType.CRASHED, StateType.CANCELLED):
            return None
    return None


async def deploy(
    deployments: list[RunnerDeployment],
    pool: str,
    template: dict[str, Any],
    settings: DeploySettings,
    steps: list[dict[str, Any]] | None = None,
    repository_known: bool = True,
) -> None:
    """Bring a Prefect server to what this image and the repository have, once it answers.

    Args:
        template: Prefect's base job template of the work pool.
        steps, repository_known: as of `ensure_deployments`.

    Raises:
        TimeoutError: the server does not answer.
    """
    async with get_client() as client:
        await wait_for_server(client, settings.server_seconds)
        await ensure_work_pool(client, pool, template, settings.concurrency)
        await ensure_deployments(client, deployments, pool, settings.image, steps, repository_known)
        await ensure_automations(client, crash_automations(settings.heartbeat_seconds))
        if settings.bootstrap_model in {one.name for one in deployments}:
            await bootstrap(client, settings.bootstrap_model)


def read_repository(settings: RepositorySettings, folder: Path) -> tuple[str, str]:
    """Check out the newest commit of the repository; returns the commit that is there then, and what went wrong.

    Both are "" where there is no repository; the commit is "" where none could be read so far.
    """
    if not settings.url:
        return "", ""
    try:
        return repository.update(settings, folder), ""
    except (RepositoryUnavailable, RepositoryError) as error:
        log.error("the repository of model files cannot be read, what is registered of it stays: %s", error)
        current = folder / repository.CURRENT
        return current.readlink().name if current.is_symlink() else "", str(error)


def main() -> None:
    """Read the command line and deploy what this image, a mounted folder and the repository have."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description=__doc__)
    parser.add_argument("--work-pool", default="k8s")
    parser.add_argument(
        "--job-template", type=Path, required=True, help="A JSON file with Prefect's base job template."
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    template = json.loads(arguments.job_template.read_text())
    settings, git = DeploySettings(), RepositorySettings()
    mounted = follow.mounted_files(settings.models_folder)  # before they are read: a later change is seen again
    commit, problem = read_repository(git, settings.models_folder)
    models, broken = serve.usable_models()
    if settings.bootstrap_model in broken:
        settings.bootstrap_model = ""
    deployments = [*serve.deployments(models), *(serve.broken_training(*one) for one in broken.items())]
    steps = [repository.pull_step(git, commit)] if commit else []
    known = bool(commit) or not git.url
    asyncio.run(deploy(deployments, arguments.work_pool, template, settings, steps, known))
    follow.State(commit, mounted, broken, problem).write(settings.models_folder)


if __name__ == "__main__":
    main()
