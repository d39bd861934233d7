"""What Prefect itself makes of the base job template: the Job that other tests look at, and what a run may change."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
from chart import Manifest, job_template, named, render_chart
from network import selects
from pod_security import violations
from profiles import PROFILES

from app.cli.credentials import BY_KEY
from app.prefect_server.run_token import auth_string
from app.testing.training_job import training_job

PASSWORD = "admin:0123456789"  # noqa: S105
RUN = uuid4()


def made(manifests: list[Manifest], **variables: Any) -> Manifest:
    """The Job of a flow run, as the worker prepares it from the chart's template."""
    template = json.loads(named(manifests, "ConfigMap", "mlops-prefect-worker")["data"]["base-job-template.json"])
    worker = named(manifests, "Deployment", "mlops-prefect-worker")["spec"]["template"]["spec"]["containers"][0]
    env = {variable["name"]: variable.get("value") for variable in worker["env"]}
    settings = {name: env[name] for name in ("PREFECT_API_URL", "PREFECT_UI_URL")} | {
        "PREFECT_API_AUTH_STRING": PASSWORD
    }
    return training_job(template, settings, RUN, **variables)


def container(job: Manifest) -> dict[str, Any]:
    (entry,) = job["spec"]["template"]["spec"]["containers"]
    return dict(entry)


@pytest.fixture
def job(manifests: list[Manifest]) -> Manifest:
    return made(manifests)


@pytest.mark.parametrize("version", ["1.34", "1.35", "1.36"])
def test_it_is_valid_and_restricted(version: str, job: Manifest) -> None:
    kubernetes_validate.validate(job, version, strict=True)
    assert not violations(job["spec"]["template"])


def test_prefect_changes_the_template_in_names_labels_and_variables_only(
    manifests: list[Manifest], job: Manifest
) -> None:
    template = job_template(manifests)
    for each in (template, job):
        each["metadata"] = {}
        each["spec"]["template"]["metadata"] = {}
        each["spec"]["template"]["spec"]["containers"][0].pop("env")
    assert job == template


def test_the_policy_of_trainings_is_about_its_pod(manifests: list[Manifest], job: Manifest) -> None:
    labels = job["spec"]["template"]["metadata"]["labels"]
    for policy in ("mlops-training", "mlops-default-deny"):
        assert selects(named(manifests, "NetworkPolicy", policy)["spec"]["podSelector"], labels), f"{policy}: {labels}"


def test_it_has_the_account_of_its_run_and_not_prefects_password(manifests: list[Manifest], job: Manifest) -> None:
    variables = {entry["name"]: entry for entry in container(job)["env"]}
    assert variables["PREFECT_API_AUTH_STRING"]["value"] == auth_string(PASSWORD, str(RUN))
    assert PASSWORD not in json.dumps(job)
    assert "prefect-auth-string" not in json.dumps([job, job_template(manifests)])


def test_a_run_that_loses_its_pod_ends_whatever_its_variables(profile: str) -> None:
    job = made(render_chart(PROFILES[profile]), env={"DATA": "s3://bucket/rows.parquet"})
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    variables = {entry["name"]: entry.get("value") for entry in container(job)["env"]}
    assert variables["DATA"] == "s3://bucket/rows.parquet"
    assert variables["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "crash"


@pytest.mark.parametrize(("variables", "account"), [({}, "trainer"), ({"account": "gate"}, "gate")])
def test_a_training_has_the_account_that_registers_and_only_a_promotion_that_of_the_gate(
    profile: str, variables: dict[str, Any], account: str
) -> None:
    env = {entry["name"]: entry for entry in container(made(render_chart(PROFILES[profile]), **variables))["env"]}
    assert env["MLFLOW_TRACKING_USERNAME"]["value"] == account
    secret = env["MLFLOW_TRACKING_PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert secret["key"] == f"mlflow-{account}-password"
    assert secret["key"] in BY_KEY
    others = [e for e in env.values() if "mlflow-" in e.get("valueFrom", {}).get("secretKeyRef", {}).get("key", "")]
    assert len(others) == 1, "a Job has one password of MLflow"
    assert env["MLOPS_PROMOTION_DEPLOYMENT"]["value"] == "promote/promote"


def test_a_run_chooses_no_other_account(manifests: list[Manifest]) -> None:
    template = json.loads(named(manifests, "ConfigMap", "mlops-prefect-worker")["data"]["base-job-template.json"])
    account = template["variables"]["properties"]["account"]
    assert (account["enum"], account["default"]) == (["trainer", "gate"], "trainer")


def test_a_model_has_its_own_compute() -> None:
    resources = container(made(render_chart(), cpu="2", memory="3Gi"))["resources"]
    assert resources == {"requests": {"cpu": "2", "memory": "3Gi"}, "limits": {"memory": "3Gi"}}


def test_values_reach_the_job() -> None:
    job = made(
        render_chart(
            PROFILES["external"]
            | {
                "prefect-worker": {
                    "jobs": {"ttlSecondsAfterFinished": 900, "extraEnvFrom": [{"secretRef": {"name": "data"}}]}
                }
            }
        )
    )
    assert job["spec"]["ttlSecondsAfterFinished"] == 900
    assert container(job)["envFrom"] == [{"secretRef": {"name": "data"}}]
    assert container(job)["image"].startswith("registry.example.com/team/mlops/flows:")
    assert job["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "pull"}]


@pytest.mark.parametrize(
    ("values", "address"),
    [({}, "http://prefect.localhost:8080"), (PROFILES["external"], "https://prefect.ml.example.com")],
)
def test_a_run_prints_an_address_that_a_person_can_open(values: dict[str, Any], address: str) -> None:
    """Prefect prints it at the start of each run; the Service's name means nothing outside the cluster."""
    variables = {variable["name"]: variable.get("value") for variable in container(made(render_chart(values)))["env"]}
    assert variables["PREFECT_UI_URL"] == address
