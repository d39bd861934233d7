"""The account of a flow run, against the real Prefect server with the guard before it: what it can do, and what not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from app.prefect_server.run_token import auth_string, run_of
from app.runtime.processes import Server, free_port
from app.runtime.waiting import wait_until
from app.testing.prefect import PrefectAdmin

PASSWORD = "admin:of-the-test"  # noqa: S105
FLOW = """
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.deployments import run_deployment

@task
def fit():
    get_run_logger().info("fitted")

@flow(name="train")
def train(model):
    fit()
    create_markdown_artifact(key="report", markdown="good")
    return run_deployment("promote/promote", parameters={"model": model, "version": "1"}, timeout=0).name
"""


@dataclass(frozen=True)
class World:
    """A guarded Prefect server with a work pool, deployments of `train`, `promote` and `rollback`, and two runs."""

    url: str
    admin: PrefectAdmin
    deployments: dict[str, str]
    run: str
    other: str
    other_task: str

    def of_run(self, run: str) -> httpx.Client:
        """A client with the account of this run."""
        user, _, token = auth_string(PASSWORD, run).partition(":")
        return httpx.Client(base_url=self.url, auth=(user, token), timeout=60)

    def train(self, model: str = "iris") -> str:
        """A new run of train/<model>; its id."""
        return self.admin.start(self.deployments["train"], {"model": model}).id


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("guard")
    (folder / "flow.py").write_text(FLOW)
    port = free_port()
    env = {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = ["app.prefect_server", "--host", "127.0.0.1", "--port", str(port)]
    server = Server("prefect", command, f"http://127.0.0.1:{port}/api", "/health", env, folder)
    server.start()
    admin = PrefectAdmin(server.uri, 60, httpx.Client(auth=("admin", "of-the-test"), timeout=60), attempts=30)
    admin.request("POST", "/work_pools/", {"name": "pool", "type": "process"})
    deployments = {}
    for flow, name in (("train", "iris"), ("promote", "promote"), ("rollback", "rollback")):
        flow_id = admin.request("POST", "/flows/", {"name": flow})["id"]
        made = {
            "name": name,
            "flow_id": flow_id,
            "path": str(folder),
            "entrypoint": "flow.py:train",
            "work_pool_name": "pool",
        }
        deployments[flow] = admin.request("POST", "/deployments/", made)["id"]
    run, other = (admin.start(deployments["train"], {"model": model}).id for model in ("iris", "wine"))
    pending = {"type": "PENDING", "name": "Pending"}
    task = {"flow_run_id": other, "task_key": "fit", "dynamic_key": "1", "state": pending}
    yield World(server.uri, admin, deployments, run, other, admin.request("POST", "/task_runs/", task)["id"])
    server.stop()


def test_a_run_goes_its_whole_way_with_its_own_account(world: World, tmp_path: Path) -> None:
    """`prefect flow-run execute`, as in a Job: states, tasks, logs, artifact and the promotion that it starts."""
    run = world.train()
    env = {
        **os.environ,
        "PREFECT_API_URL": world.url,
        "PREFECT_API_AUTH_STRING": auth_string(PASSWORD, run),
        "PREFECT_HOME": str(tmp_path),
    }
    command = [str(Path(sys.executable).with_name("prefect")), "flow-run", "execute", run]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "403" not in done.stdout + done.stderr
    assert world.admin.run(run).state == "COMPLETED"
    of_run = {"flow_runs": {"id": {"any_": [run]}}}
    completed = {**of_run, "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    tasks = wait_until(lambda: world.admin.request("POST", "/task_runs/filter", completed), 30, "the task's end")
    assert [task["name"].split("-")[0] for task in tasks] == ["fit"]
    logs = world.admin.request("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
    assert "fitted" in [line["message"] for line in logs]
    assert [each["key"] for each in world.admin.request("POST", "/artifacts/filter", of_run)] == ["report"]
    (promotion,) = world.admin.runs(flow="promote")
    assert promotion.parameters == {"model": "iris", "version": "1"}


def refused(world: World) -> dict[str, tuple[str, str, Any]]:
    """What an attacker with a run's account would try: method, path, body."""
    pool, training = "/work_pools/pool", f"/deployments/{world.deployments['train']}"
    promote, rollback = (f"/deployments/{world.deployments[name]}/create_flow_run" for name in ("promote", "rollback"))
    state = {"state": {"type": "COMPLETED", "name": "Completed"}}
    task = {"flow_run_id": world.other, "task_key": "fit", "dynamic_key": "2"}
    mine = {"model": "iris", "version": "1"}
    return {
        "edit the pool": ("PATCH", pool, {"base_job_template": {}}),
        "delete the pool": ("DELETE", pool, None),
        "make a pool": ("POST", "/work_pools/", {"name": "mine", "type": "kubernetes"}),
        "take runs from the pool": ("POST", f"{pool}/get_scheduled_flow_runs", {}),
        "read a Secret block": ("POST", "/block_documents/filter", {"include_secrets": True}),
        "read a block by its name": ("GET", "/block_types/slug/secret/block_documents/name/x", None),
        "read variables": ("POST", "/variables/filter", {}),
        "edit a deployment": ("PATCH", training, {"job_variables": {"image": "evil"}}),
        "make a deployment": ("POST", "/deployments/", {"name": "evil", "flow_id": str(uuid4())}),
        "start a training": ("POST", f"{training}/create_flow_run", {"parameters": mine}),
        "start a rollback": ("POST", rollback, {"parameters": mine}),
        "promote another model": ("POST", promote, {"parameters": {"model": "wine", "version": "1"}}),
        "promote with its own image": ("POST", promote, {"parameters": mine, "job_variables": {"image": "evil"}}),
        "promote past the signature": ("POST", promote, {"parameters": {**mine, "allow_signature_change": True}}),
        "promote in another queue": ("POST", promote, {"parameters": mine, "work_queue_name": "mine"}),
        "a run without a deployment": ("POST", "/flow_runs/", {"flow_id": str(uuid4())}),
        "end another run": ("POST", f"/flow_runs/{world.other}/set_state", state),
        "change its own Job": ("PATCH", f"/flow_runs/{world.run}", {"job_variables": {"image": "evil"}}),
        "change its own parameters": ("PATCH", f"/flow_runs/{world.run}", {"parameters": {"model": "wine"}}),
        "run again": ("POST", f"/flow_runs/{world.run}/set_state", {"state": {"type": "SCHEDULED"}, "force": True}),
        "delete its run": ("DELETE", f"/flow_runs/{world.run}", None),
        "read another run": ("GET", f"/flow_runs/{world.other}", None),
        "list runs": ("POST", "/flow_runs/filter", {}),
        "write into another run's log": ("POST", "/logs/", [{"flow_run_id": world.other, "message": "x"}]),
        "an artifact of another run": ("POST", "/artifacts/", {"key": "x", "data": "x", "flow_run_id": world.other}),
        "a task of another run": ("POST", "/task_runs/", task),
        "end another run's task": ("POST", f"/task_runs/{world.other_task}/set_state", state),
        "make an automation": ("POST", "/automations/", {"name": "evil"}),
        "emit events": ("POST", "/events", [{"event": "prefect.flow-run.Crashed"}]),
        "set a concurrency limit": ("POST", "/v2/concurrency_limits/", {"name": "x", "limit": 0}),
        "read the settings": ("GET", "/admin/settings", None),
        "clear the database": ("POST", "/admin/database/clear", {"confirm": True}),
        "no JSON": ("POST", f"/flow_runs/{world.run}/set_state", b"{"),
        "JSON of another kind": ("POST", "/logs/", {"flow_run_id": world.run}),
        "nothing": ("POST", f"/flow_runs/{world.run}/set_state", None),
    }


def test_all_else_is_refused(world: World) -> None:
    with world.of_run(world.run) as client:
        for what, (method, path, body) in refused(world).items():
            content = body if isinstance(body, bytes) else json.dumps(body) if body is not None else None
            answer = client.request(method, path, content=content)
            assert answer.status_code == 403, f"{what}: {answer.status_code} {answer.text}"
            assert answer.json()["detail"], what
    assert world.admin.request("GET", "/work_pools/pool")["type"] == "process"
    assert not world.admin.run(world.other).is_over


def test_the_reason_says_who_may(world: World) -> None:
    with world.of_run(world.run) as client:
        detail = client.delete("/work_pools/pool").json()["detail"]
    assert f"the account of the flow run {world.run} does not allow DELETE /work_pools/pool" in detail
    assert "docs/security.md" in detail


def test_once_it_has_ended_it_can_log_and_no_more(world: World) -> None:
    run = world.train()
    world.admin.set_state(run, "COMPLETED")
    line = {"flow_run_id": run, "name": "x", "level": 20, "message": "last", "timestamp": "2026-01-01T00:00:00Z"}
    with world.of_run(run) as client:
        assert client.post("/logs/", json=[line]).status_code == 201
        answer = client.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "RUNNING"}, "force": True})
    assert answer.status_code == 403
    assert "it is COMPLETED" in answer.json()["detail"]


@pytest.mark.parametrize("forge", [
    lambda run: f"run-{run}:{'0' * 64}",
    lambda run: f"run-{run}:",
    lambda run: f"run-{uuid4()}:{auth_string(PASSWORD, run).partition(':')[2]}",
    lambda run: auth_string("admin:another", run),
    lambda run: f"run-{run}/../x:{'0' * 64}",
    lambda run: "admin:wrong",
])  # fmt: skip
def test_a_forged_account_is_refused(world: World, forge: Any) -> None:
    account = forge(world.run)
    assert run_of(PASSWORD, account) is None
    user, _, token = account.partition(":")
    answer = httpx.get(f"{world.url}/flow_runs/{world.run}", auth=(user, token), timeout=60)
    assert answer.status_code == 401


def test_prefects_own_account_can_do_everything_as_before(world: World) -> None:
    assert httpx.get(f"{world.url}/work_pools/pool", timeout=60).status_code == 401
    assert world.admin.request("PATCH", "/work_pools/pool", {"description": "by its owner"}) is None


def test_a_body_that_is_too_large_is_refused(world: World) -> None:
    with world.of_run(world.run) as client:
        assert client.post("/logs/", content=b"[" + b" " * 9 * 2**20 + b"]").status_code == 413


def event(name: str, resource: str, *related: str) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "event": name,
        "occurred": "2026-01-01T00:00:00Z",
        "resource": {"prefect.resource.id": resource},
        "related": [{"prefect.resource.id": each, "prefect.resource.role": "flow-run"} for each in related],
        "payload": {},
    }


def test_events_of_other_runs_do_not_reach_prefect(world: World) -> None:
    run, other = f"prefect.flow-run.{world.run}", f"prefect.flow-run.{world.other}"
    allowed = event("prefect.flow-run.heartbeat", run)
    forged = [
        event("prefect.flow-run.Crashed", run),
        event("prefect.flow-run.heartbeat", other),
        event("prefect.task-run.Completed", f"prefect.task-run.{world.other_task}", run),
        event("prefect.task-run.Completed", f"prefect.task-run.{uuid4()}", other),
        event("prefect.task-run.Completed", f"prefect.task-run.{uuid4()}", run, other),
        event("prefect.work-pool.ready", "prefect.work-pool.x"),
        event("mine", run),
    ]
    stream = connect(f"{world.url.replace('http', 'ws')}/events/in", subprotocols=["prefect"])  # type: ignore[list-item]
    with stream:
        stream.send(json.dumps({"type": "auth", "token": auth_string(PASSWORD, world.run)}))
        assert json.loads(stream.recv(30))["type"] == "auth_success"
        for each in [*forged, allowed]:
            stream.send(json.dumps(each))

        def stored() -> list[str]:
            since = {"occurred": {"since": "2025-12-31T00:00:00Z", "until": "2026-01-02T00:00:00Z"}}
            return [each["id"] for each in world.admin.request("POST", "/events/filter", {"filter": since})["events"]]

        wait_until(lambda: allowed["id"] in stored(), 60, "the run's own event stored")
        assert stored() == [allowed["id"]]


@pytest.mark.parametrize("account", ["", "admin:wrong", "run-x:y"])
def test_a_websocket_needs_an_account(world: World, account: str) -> None:
    with connect(f"{world.url.replace('http', 'ws')}/events/in", subprotocols=["prefect"]) as stream:  # type: ignore[list-item]
        stream.send(json.dumps({"type": "auth", "token": account}))
        with pytest.raises(ConnectionClosed):
            stream.recv(30)


def test_it_hears_of_its_own_run_alone(world: World) -> None:
    with connect(f"{world.url.replace('http', 'ws')}/events/out", subprotocols=["prefect"]) as stream:  # type: ignore[list-item]
        stream.send(json.dumps({"type": "auth", "token": auth_string(PASSWORD, world.run)}))
        assert json.loads(stream.recv(30))["type"] == "auth_success"
        since = {"occurred": {"since": "2026-01-01T00:00:00Z", "until": "2099-01-01T00:00:00Z"}, "order": "ASC"}
        stream.send(json.dumps({"type": "filter", "filter": {**since, "any_resource": {"id_prefix": ["prefect."]}}}))
        world.admin.set_state(world.other, "RUNNING")
        world.admin.set_state(world.run, "RUNNING")
        heard = json.loads(stream.recv(60))["event"]["resource"]["prefect.resource.id"]
    assert heard == f"prefect.flow-run.{world.run}"
