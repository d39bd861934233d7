"""Tells a Prefect server what runs as Kubernetes Jobs: the work pool, every deployment, and what watches over the runs.

`python -m flows.deploy --work-pool k8s --job-template FILE` is run by each worker pod before the worker starts, so an
upgrade, a new model file or an emptied database needs no further step. Run again it changes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from tenacity import AsyncRetrying, RetryError, retry_if_result, stop_after_delay, wait_fixed

from flows import serve
from flows.automations import TAG, crash_automations, ensure_automations
from flows.catalog import load_model, model_names

DECIDING = ("promote", "rollback")  # the flows that move `production`, under the account of the gate
DECIDING_CPU = "10m"  # what their Jobs reserve: they must find room beside the trainings that wait for them
TRAININGS_QUEUE, PROMOTIONS_QUEUE = "default", "promotions"  # of the work pool; the first is Prefect's own

log = logging.getLogger("mlops.deploy")


class DeploySettings(BaseSettings):
    """Read from MLOPS_* when it is created.

    image: of the Jobs; "" for the work pool's.
    concurrency: how many trainings there may be at the same time, and how many promotions.
    bootstrap_model: the model that is trained once if it never was; "" for none.
    heartbeat_seconds: after so long without a heartbeat a run is crashed; runs send one every 30 s.
    server_seconds: how long the Prefect server may take to come up.
    """

    model_config = SettingsConfigDict(env_prefix="MLOPS_")

    image: str = ""
    concurrency: int = Field(default=4, ge=1)
    bootstrap_model: str = ""
    heartbeat_seconds: int = Field(default=100, ge=60)
    server_seconds: float = 300.0


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


async def ensure_deployments(
    client: PrefectClient, deployments: list[RunnerDeployment], pool: str, image: str, broken: Collection[str] = ()
) -> None:
    """Register the deployments, with their models' resources; delete those whose model file is gone.

    Args:
        image: of the Jobs; "" for the work pool's.
        broken: models whose file cannot be used: what is registered of them stays as it is.
    """
    for deployment in deployments:
        deployment.job_variables = job_variables(deployment, image)
        deployment.work_pool_name = pool
        deployment.work_queue_name = PROMOTIONS_QUEUE if deployment.flow_name in DECIDING else TRAININGS_QUEUE
        deployment.tags = [TAG]
        await deployment.aapply()
    names = {(deployment.flow_name, deployment.name) for deployment in deployments}
    for registered in await client.read_deployments():
        flow = await client.read_flow(registered.flow_id)
        if TAG in registered.tags and (flow.name, registered.name) not in names and registered.name not in broken:
            log.info("deleting the deployment %s/%s: this image does not have it", flow.name, registered.name)
            await client.delete_deployment(registered.id)
    log.info("registered %s", ", ".join(f"{flow}/{name}" for flow, name in sorted(names, key=str)))


def job_variables(deployment: RunnerDeployment, image: str) -> dict[str, Any]:
    """What differs between Jobs: the image, MLflow's account, and the compute that the model file asks for."""
    variables: dict[str, Any] = {"image": image} if image else {}
    if deployment.flow_name in DECIDING:
        variables |= {"account": "gate", "cpu": DECIDING_CPU}
    if deployment.name in model_names():
        wanted = vars(load_model(deployment.name).resources)
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
    broken: Collection[str] = (),
) -> None:
    """Bring a Prefect server to what this image has, once it answers.

    Args:
        template: Prefect's base job template of the work pool.
        broken: models whose file cannot be used; they hold up nothing else.

    Raises:
        TimeoutError: the server does not answer.
    """
    async with get_client() as client:
        await wait_for_server(client, settings.server_seconds)
        await ensure_work_pool(client, pool, template, settings.concurrency)
        await ensure_deployments(client, deployments, pool, settings.image, broken)
        await ensure_automations(client, crash_automations(settings.heartbeat_seconds))
        if settings.bootstrap_model and settings.bootstrap_model not in broken:
            await bootstrap(client, settings.bootstrap_model)


def main() -> None:
    """Read the command line and deploy what this image has."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description=__doc__)
    parser.add_argument("--work-pool", default="k8s")
    parser.add_argument(
        "--job-template", type=Path, required=True, help="A JSON file with Prefect's base job template."
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    template = json.loads(arguments.job_template.read_text())
    models, broken = serve.usable_models()
    asyncio.run(deploy(serve.deployments(models), arguments.work_pool, template, DeploySettings(), broken))


if __name__ == "__main__":
    main()
