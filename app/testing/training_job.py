"""The Job of a flow run, as Prefect's worker for Kubernetes makes it of a base job template."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import Flow
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_UI_URL, temporary_settings
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

SETTINGS = {
    "PREFECT_API_URL": PREFECT_API_URL,
    "PREFECT_UI_URL": PREFECT_UI_URL,
    "PREFECT_API_AUTH_STRING": PREFECT_API_AUTH_STRING,
}


def training_job(template: Mapping[str, Any], settings: Mapping[str, str], **variables: Any) -> dict[str, Any]:
    """The Job as YAML has it, but for what the worker does when it sends it.

    Args:
        template: the base job template.
        settings: the worker's environment variables of SETTINGS, which Prefect hands on.
        variables: of the template, as a deployment sets them.
    """
    with temporary_settings({SETTINGS[name]: value for name, value in settings.items()}):
        configuration = asyncio.run(
            KubernetesWorkerJobConfiguration.from_template_and_values(copy.deepcopy(dict(template)), variables)
        )
        flow = Flow(id=uuid4(), name="train", labels={})
        configuration.prepare_for_flow_run(FlowRun(id=uuid4(), name="brave-run", flow_id=flow.id), None, flow)
    job: dict[str, Any] = configuration.job_manifest
    for field in ("parallelism", "completions"):  # Prefect insists on them in the wrong place, where they mean nothing
        job["spec"]["template"]["spec"].pop(field)
    return job
