"""The Job of a flow run, as Prefect's worker for Kubernetes makes it of a base job template."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import Flow
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_UI_URL, temporary_settings
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from flows.worker import Worker

SETTINGS = {
    "PREFECT_API_URL": PREFECT_API_URL,
    "PREFECT_UI_URL": PREFECT_UI_URL,
    "PREFECT_API_AUTH_STRING": PREFECT_API_AUTH_STRING,
}


def training_job(
    template: Mapping[str, Any], settings: Mapping[str, str], run: UUID | None = None, **variables: Any
) -> dict[str, Any]:
    """The Job as YAML has it.

    Args:
        template: the base job template.
        settings: the worker's environment variables of SETTINGS, which Prefect hands on.
        run: the flow run's id; default any.
        variables: of the template, as a deployment sets them.
    """
    with temporary_settings({SETTINGS[name]: value for name, value in settings.items()}):
        configuration = asyncio.run(
            KubernetesWorkerJobConfiguration.from_template_and_values(copy.deepcopy(dict(template)), variables)
        )
        flow = Flow(id=uuid4(), name="train", labels={})
        flow_run = FlowRun(id=run or uuid4(), name="brave-run", flow_id=flow.id)
        configuration.prepare_for_flow_run(flow_run, None, flow)
        if "PREFECT_API_AUTH_STRING" in settings:  # what the worker does when it sends the Job
            replace = Worker(work_pool_name="k8s")._replace_env_variable_with_secret
            asyncio.run(replace("PREFECT_API_AUTH_STRING", configuration, "mlops-credentials", "prefect-auth-string"))
    job: dict[str, Any] = configuration.job_manifest
    for field in ("parallelism", "completions"):  # Prefect insists on them in the wrong place, where they mean nothing
        job["spec"]["template"]["spec"].pop(field)
    return job
