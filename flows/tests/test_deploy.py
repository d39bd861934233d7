"""What the worker pod tells a Prefect server, against a real one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Completed, Crashed, Pending

from app.clients.mlflow import MlflowClient
from app.runtime.processes import free_port
from app.testing.docs import ROOT
from flows import automations, deploy, reachable
from flows.catalog import load_model, load_models
from flows.serve import deployments

TEMPLATE: dict[str, Any] = {
    "job_configuration": {"job_manifest": {"kind": "Job"}},
    "variables": {"type": "object", "properties": {}},
}
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@pytest.fixture
def of_image() -> list[RunnerDeployment]:
    return deployments(load_models()[0])


async def everything(client: PrefectClient, of_image: list[RunnerDeployment], image: str) -> None:
    await deploy.ensure_work_pool(client, "k8s", TEMPLATE, 3)
    await deploy.ensure_deployments(client, of_image, "k8s", image)
    await automations.ensure_automations(client, automations.crash_automations(100))


def test_registering_twice_is_registering_once(platform: MlflowClient, of_image: list[RunnerDeployment]) -> None:
    async def work() -> None:
        async with get_client() as client:
            await everything(client, of_image, "mlops/flows:1")
            await everything(client, of_image, "mlops/flows:2")
            names = {deployment.name for deployment in of_image}
            deployments = [d for d in await client.read_deployments() if d.name in names]
            registered = {d.name: d for d in deployments}
            assert len(deployments) == len(registered) == len(of_image)
            assert set(registered) == {"iris", "diabetes", "promote", "rollback"}
            assert registered["iris"].job_variables == {"image": "mlops/flows:2"}  # the rest is the chart's
            assert registered["iris"].work_pool_name == "k8s"
            for name in ("promote", "rollback"):
                assert registered[name].job_variables == {"image": "mlops/flows:2", "account": "gate", "cpu": "10m"}
                assert registered[name].work_queue_name == "promotions"
            rules = [automation.name for automation in await client.read_automations()]
            assert len(rules) == len(set(rules)) == 1 + len(automations.DIAGNOSES)

    run(work())


def test_a_promotion_finds_room_however_many_trainings_wait_for_theirs(
    platform: MlflowClient, of_image: list[RunnerDeployment]
) -> None:
    """As many trainings as there may be hold their places; the promotions that they wait for are given out too."""

    async def given_out(client: PrefectClient) -> list[str]:
        """What a worker would run now; it is Pending then, as once a worker has it."""
        due = await client.get_scheduled_flow_runs_for_work_pool("k8s", scheduled_before=datetime.now(UTC))
        for response in due:
            await client.set_flow_run_state(response.flow_run.id, Pending(), force=True)
        names = [await client.read_flow(response.flow_run.flow_id) for response in due]
        return sorted(flow.name for flow in names)

    async def start(client: PrefectClient, name: str, number: int) -> None:
        deployment = await client.read_deployment_by_name(name)
        for _ in range(number):
            await client.create_flow_run_from_deployment(deployment.id, parameters={"model": "iris"})

    async def work() -> None:
        async with get_client() as client:
            await everything(client, of_image, "")
            for run in await client.read_flow_runs():  # of other tests
                await client.delete_flow_run(run.id)
            await start(client, "train/iris", 5)
            assert await given_out(client) == ["train"] * 3
            await start(client, "promote/promote", 5)
            assert await given_out(client) == ["promote"] * 3
            assert await given_out(client) == []

    run(work())


def test_no_run_is_started_under_another_account(platform: MlflowClient, of_image: list[RunnerDeployment]) -> None:
    account = {"type": "string", "enum": ["trainer", "gate"], "default": "trainer"}  # as in the chart
    template = {**TEMPLATE, "variables": {"type": "object", "properties": {"account": account}}}

    async def work() -> None:
        async with get_client() as client:
            await deploy.ensure_work_pool(client, "k8s", template, 3)
            await deploy.ensure_deployments(client, of_image, "k8s", "")
            deployment = await client.read_deployment_by_name("train/iris")
            with pytest.raises(PrefectHTTPStatusError, match="admin"):
                await client.create_flow_run_from_deployment(deployment.id, job_variables={"account": "admin"})

    run(work())


def test_the_deployment_of_a_model_that_is_gone_is_deleted_and_others_are_left(
    platform: MlflowClient, of_image: list[RunnerDeployment]
) -> None:
    @flow(name="somebody-elses")
    def other() -> None: ...

    foreign = other.to_deployment("nightly", work_pool_name="k8s")

    async def work() -> None:
        async with get_client() as client:
            await everything(client, of_image, "")
            await foreign.aapply()  # type: ignore[union-attr]
            await deploy.ensure_deployments(client, [d for d in of_image if d.name != "diabetes"], "k8s", "")
            with pytest.raises(ObjectNotFound):
                await client.read_deployment_by_name("train/diabetes")
            assert (await client.read_deployment_by_name("somebody-elses/nightly")).tags == []

    run(work())


def test_a_broken_model_file_is_named_and_holds_up_no_other(
    platform: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker pod's own command. What was registered of the model before its file broke stays."""
    model_file, template = tmp_path / "tulip.py", tmp_path / "template.json"
    text = (ROOT / "flows" / "models" / "iris.py").read_text()
    model_file.write_text(text)
    template.write_text(json.dumps(TEMPLATE))
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    monkeypatch.setenv("MLOPS_BOOTSTRAP_MODEL", "tulip")
    monkeypatch.setattr("sys.argv", ["deploy", "--work-pool", "k8s", "--job-template", str(template)])
    deploy.main()
    model_file.write_text("import nothing_like_it")
    (tmp_path / "scheduled.py").write_text(text.replace('schedule="', 'schedule="every day '))
    deploy.main()
    assert "the model tulip cannot be trained" in caplog.text
    assert "No module named 'nothing_like_it'" in caplog.text
    assert "the model scheduled cannot be trained" in caplog.text

    async def registered() -> set[str]:
        async with get_client() as client:
            return {deployment.name for deployment in await client.read_deployments()}

    assert {"iris", "diabetes", "promote", "rollback", "tulip"} <= run(registered())


def test_the_first_training_is_asked_for_once_and_again_only_when_it_failed(
    platform: MlflowClient, of_image: list[RunnerDeployment]
) -> None:
    async def work() -> None:
        async with get_client() as client:
            await everything(client, of_image, "")
            first = await deploy.bootstrap(client, "iris")
            assert first
            assert first.parameters["model"] == "iris"
            assert await deploy.bootstrap(client, "iris") is None  # it is scheduled
            await client.set_flow_run_state(first.id, Crashed(), force=True)
            second = await deploy.bootstrap(client, "iris")
            assert second
            assert second.id != first.id
            await client.set_flow_run_state(second.id, Completed(), force=True)
            assert await deploy.bootstrap(client, "iris") is None

    run(work())


def test_what_ends_runs_ends_them_as_crashed_with_a_reason() -> None:
    for automation in automations.crash_automations(100):
        (action,) = automation.actions
        assert action.state == StateType.CRASHED  # type: ignore[union-attr]
        assert action.message  # type: ignore[union-attr]


def test_a_server_that_does_not_come_up_is_named(platform: MlflowClient) -> None:
    async def work() -> None:
        address = f"http://127.0.0.1:{free_port()}/api"
        async with PrefectClient(address) as client:
            with pytest.raises(TimeoutError, match=address):
                await deploy.wait_for_server(client, 0)

    run(work())


def test_reachable_takes_any_answer_and_names_the_problem_where_there_is_none() -> None:
    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert reachable.wait(f"http://127.0.0.1:{server.server_port}/", 0) == ""
        server.shutdown()
    assert "refused" in reachable.wait(f"http://127.0.0.1:{free_port()}/", 0)


def test_a_model_asks_for_its_own_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        (ROOT / "flows" / "models" / "iris.py")
        .read_text()
        .replace("import Gate, Model", "import Gate, Model, Resources")
    )
    resources = '    load=load,\n    resources=Resources(memory="4Gi", gpus=2),\n'
    (tmp_path / "large.py").write_text(text.replace("    load=load,\n", resources))
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    (large,) = [one for one in deployments([load_model("large")]) if one.name == "large"]
    assert deploy.job_variables(large, "mlops/flows:1") == {"image": "mlops/flows:1", "memory": "4Gi", "gpus": 2}
