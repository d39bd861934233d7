"""Tells a Prefect server what runs as Kubernetes Jobs: the work pool, every deployment, and what watches over the runs.

`python -m flows.deploy --work-pool k8s --job-template FILE` is run by each worker pod before the worker starts, so an
upgrade, a new model file or an emptied database needs no further step. Run again it changes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows import model as models
from flows.serve import deployments

TAG = "mlops"
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = [f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed", "AwaitingRetry")]
# The worker's name of a pod's condition -> the message of the state, and whether it replaces one that says less.
DIAGNOSES = {
    "ImagePullError": ("The image of the Job cannot be pulled: see the run's log for its name and the answer.", False),
    "OOMKilled": ("The Job needed more memory than its model file's resources allow, and was killed.", True),
    "Evicted": ("The Job's pod was evicted by its node: see the run's log for the reason.", True),
}

log = logging.getLogger("mlops.deploy")


class DeploySettings(BaseSettings):
    """Read from MLOPS_* when it is created.

    image: of the Jobs; "" for the work pool's.
    concurrency: runs at the same time.
    bootstrap_model: the model that is trained once where it never was; "" for none.
    heartbeat_seconds: runs that were not heard of for so long are crashed; they report every 30 s.
    server_seconds: how long the Prefect server may take to come up.
    """

    model_config = SettingsConfigDict(env_prefix="MLOPS_")

    image: str = ""
    concurrency: int = Field(default=4, ge=1)
    bootstrap_model: str = ""
    heartbeat_seconds: int = Field(default=100, ge=60)
    server_seconds: float = 300.0


async def wait_for_server(client: PrefectClient, seconds: float) -> None:
    """Raises TimeoutError when the server does not answer within the seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while (problem := await client.api_healthcheck()) is not None:
        if loop.time() > deadline:
            raise TimeoutError(f"Prefect at {client.api_url} does not answer: {problem}")
        await asyncio.sleep(1)


async def ensure_work_pool(client: PrefectClient, name: str, template: dict[str, Any], concurrency: int) -> None:
    """A work pool of type kubernetes with this base job template."""
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        await client.create_work_pool(
            WorkPoolCreate(name=name, type="kubernetes", base_job_template=template, concurrency_limit=concurrency)
        )
    else:
        await client.update_work_pool(name, WorkPoolUpdate(base_job_template=template, concurrency_limit=concurrency))


async def ensure_deployments(client: PrefectClient, wanted: list[RunnerDeployment], pool: str, image: str) -> None:
    """These deployments, with their models' resources; those whose model file is gone are deleted."""
    for deployment in wanted:
        deployment.job_variables = job_variables(deployment, image)
        deployment.work_pool_name = pool
        deployment.tags = [TAG]
        await deployment.aapply()
    names = {(deployment.flow_name, deployment.name) for deployment in wanted}
    for found in await client.read_deployments():
        flow = await client.read_flow(found.flow_id)
        if TAG in found.tags and (flow.name, found.name) not in names:
            log.info("deleting the deployment %s/%s: this image does not have it", flow.name, found.name)
            await client.delete_deployment(found.id)
    log.info("registered %s", ", ".join(f"{flow}/{name}" for flow, name in sorted(names, key=str)))


def job_variables(deployment: RunnerDeployment, image: str) -> dict[str, Any]:
    """What differs between Jobs: the image, and compute as the model file says."""
    variables = {"image": image} if image else {}
    if deployment.name in models.names():
        resources = models.get(deployment.name).resources
        variables |= {"cpu": resources.cpu, "memory": resources.memory}
    return variables


def automations(heartbeat_seconds: int) -> list[AutomationCore]:
    """What ends a run that cannot end itself, as Crashed and with the reason."""
    silent = EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*"},
        for_each={"prefect.resource.id"},
        after={HEARTBEAT},
        expect={HEARTBEAT, *ENDS},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=heartbeat_seconds),
    )
    gone = f"Nothing was heard of the run for {heartbeat_seconds} s: its pod or node is gone."
    return [
        _crash("Crash runs without heartbeat", silent, gone, force=False),
        *(
            _crash(f"Crash runs whose pod has {diagnosis}", _diagnosed(diagnosis), message, force)
            for diagnosis, (message, force) in DIAGNOSES.items()
        ),
    ]


def _diagnosed(diagnosis: str) -> EventTrigger:
    """When the worker sees a pod in this condition; it says so in the labels of the event."""
    return EventTrigger(
        match={"kubernetes.diagnosis": diagnosis},
        for_each={"prefect.resource.id"},
        expect={"prefect.kubernetes.pod.*"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


def _crash(name: str, trigger: EventTrigger, message: str, force: bool) -> AutomationCore:
    action = ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message, force=force)
    return AutomationCore(
        name=name, description="From flows/deploy.py.", enabled=True, tags=[TAG], trigger=trigger, actions=[action]
    )


async def ensure_automations(client: PrefectClient, wanted: list[AutomationCore]) -> None:
    """Create these, or bring them to what they are here."""
    for automation in wanted:
        found = await client.read_automations_by_name(automation.name)
        if found:
            await client.update_automation(found[0].id, automation)
        else:
            await client.create_automation(automation)


async def bootstrap(client: PrefectClient, model: str) -> FlowRun | None:
    """Train a model once, so that there is something to serve; again only where every attempt so far failed."""
    for attempt in range(1, 100):
        key = f"bootstrap-{model}-{attempt}"
        known = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key]))
        runs = await client.read_flow_runs(flow_run_filter=known)
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


async def deploy(wanted: list[RunnerDeployment], pool: str, template: dict[str, Any], settings: DeploySettings) -> None:
    async with get_client() as client:
        await wait_for_server(client, settings.server_seconds)
        await ensure_work_pool(client, pool, template, settings.concurrency)
        await ensure_deployments(client, wanted, pool, settings.image)
        await ensure_automations(client, automations(settings.heartbeat_seconds))
        if settings.bootstrap_model:
            await bootstrap(client, settings.bootstrap_model)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description=__doc__)
    parser.add_argument("--work-pool", default="k8s")
    parser.add_argument("--job-template", type=Path, required=True, help="Prefect's base job template, JSON")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    template = json.loads(arguments.job_template.read_text())
    asyncio.run(deploy(deployments(), arguments.work_pool, template, DeploySettings()))


if __name__ == "__main__":
    main()
