"""Training runs of the platform under test: Prefect's API and command line, and the Jobs that runs become."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from kubernetes import client
from namespace import wait_for
from release import Platform

from app.clients.mlflow import PRODUCTION, MlflowClient

CONTEXT = os.environ.get("KUBE_CONTEXT", "kind-mlops")
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
# What the named pipe of a slow source is fed with, in sh.
NEVER = "sleep infinity"
ROWS = "python -c 'from flows.models import iris; print(iris.load().to_csv(index=False), end=\"\")'"
ENDLESS = "echo sepal_length,sepal_width,petal_length,petal_width,species; yes 5.1,3.5,1.4,0.2,setosa"


@contextmanager
def port_forward(platform: Platform, component: str, port: int) -> Iterator[int]:
    """`kubectl port-forward` of a Service of the platform, as people do it; the local port."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        local = int(probe.getsockname()[1])
    service = f"svc/{platform.release}-{component}"
    command = ["kubectl", "--context", CONTEXT, "-n", platform.namespace, "port-forward", service, f"{local}:{port}"]
    forward = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def listening() -> bool:
        assert forward.poll() is None, f"{shlex.join(command)}: {forward.stderr and forward.stderr.read().decode()}"
        with closing(socket.socket()) as peer:
            return peer.connect_ex(("127.0.0.1", local)) == 0

    try:
        wait_for(listening, f"port-forward to {component}", 30)
        yield local
    finally:
        forward.terminate()
        forward.wait()


def slow_source(feed: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(parameters, job variables) of a training run that reads its rows from a pipe, which `feed` writes to.

    So a run can be kept in its first step for as long as a test needs it there.
    """
    script = f"mkfifo /tmp/rows.csv; ({feed}) > /tmp/rows.csv & exec prefect flow-run execute"
    return {"source": "/tmp/rows.csv"}, {"command": shlex.join(["sh", "-c", script])}  # noqa: S108


@contextmanager
def registry_of(platform: Platform, account: str = "admin") -> Iterator[MlflowClient]:
    """A client of the platform's MLflow, through a port-forward."""
    password = platform.credentials[f"mlflow-{account}-password"]
    with (
        port_forward(platform, "mlflow", 5000) as port,
        MlflowClient(f"http://127.0.0.1:{port}", account, password, timeout=30, retry_for=30) as registry,
    ):
        yield registry


def production(registry: MlflowClient) -> str:
    """The version of iris that is in production."""
    found = registry.version_by_alias("iris", PRODUCTION)
    assert found
    return found.version


def scale(platform: Platform, component: str, replicas: int) -> None:
    """Scale a Deployment of the platform, and wait until it is so: the pods are ready, or gone."""
    apps, name = client.AppsV1Api(platform.api), f"{platform.release}-{component}"
    apps.patch_namespaced_deployment_scale(name, platform.namespace, {"spec": {"replicas": replicas}})
    wait_for(lambda: len(platform.pods(component)) == replicas and settled(platform, component), f"{name} scaled", 180)


def settled(platform: Platform, component: str) -> bool:
    """Whether every pod of a Deployment is of its newest revision and ready, and none is on its way out."""
    apps = client.AppsV1Api(platform.api)
    found: Any = apps.read_namespaced_deployment(f"{platform.release}-{component}", platform.namespace)
    wanted, status = found.spec.replicas, found.status
    return (
        status.observed_generation >= found.metadata.generation
        and (status.updated_replicas or 0) == wanted == (status.ready_replicas or 0)
        and len(platform.pods(component)) == wanted
    )


def restart(platform: Platform, component: str) -> None:
    """`kubectl rollout restart`, to the end: the old pods are gone."""
    apps, now = client.AppsV1Api(platform.api), datetime.now(UTC).isoformat()
    patch = {"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}}
    apps.patch_namespaced_deployment(f"{platform.release}-{component}", platform.namespace, patch)
    wait_for(lambda: settled(platform, component), f"{component} restarted", 240)


@dataclass
class State:
    """A state of a flow run."""

    type: str
    name: str
    message: str


class Runs:
    """Flow runs of the platform.

    Args:
        url: Prefect's API.
        home: a folder for the command line's profile.
    """

    def __init__(self, platform: Platform, url: str, home: Path) -> None:
        auth_string = platform.credentials["prefect-auth-string"]
        user, _, password = auth_string.partition(":")
        # a port-forward is slow to tell that the server has closed an idle connection
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=url, auth=(user, password), timeout=30, limits=limits)
        self.namespace = platform.namespace
        self.core, self.batch = client.CoreV1Api(platform.api), client.BatchV1Api(platform.api)
        self.environment = {
            "PATH": os.environ["PATH"],
            "PREFECT_API_URL": url,
            "PREFECT_API_AUTH_STRING": auth_string,
            "PREFECT_HOME": str(home),
            "NO_COLOR": "1",
            "COLUMNS": "300",
        }
        self.started: list[str] = []

    def cli(self, *arguments: str, seconds: float = 120) -> str:
        """What the prefect command prints. Fails when the command does."""
        command = [str(Path(sys.executable).with_name("prefect")), "--no-prompt", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=seconds)
        assert done.returncode == 0, f"{shlex.join(command[1:])}: {done.stdout}{done.stderr}"
        return done.stdout

    def request(self, method: str, path: str, body: Any = None) -> Any:
        def served() -> httpx.Response | None:
            answer = self.http.request(method, path, json=body)
            return (
                None if answer.status_code == 503 else answer
            )  # SQLite was busy; Prefect's own client tries again too

        answer = wait_for(served, f"{method} {path} answered", 60)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def start(self, deployment: str, parameters: dict[str, Any], variables: dict[str, Any] | None = None) -> str:
        """Start a run at once; its id."""
        found = self.request("GET", f"/deployments/name/{deployment}")
        body = {
            "parameters": parameters,
            "job_variables": variables or {},
            "state": {"type": "SCHEDULED"},
            "tags": ["live-test"],
        }
        run = self.request("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"]
        self.started.append(run)
        return str(run)

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.request("GET", f"/flow_runs/{run}")
        return found

    def state(self, run: str) -> State:
        raw = self.run(run)["state"]
        return State(raw["type"], raw["name"], raw["message"] or "")

    def states(self, run: str) -> list[str]:
        """The names of all states that the run was in, oldest first."""
        found = self.request("GET", f"/flow_run_states/?flow_run_id={run}")
        return [state["name"] for state in sorted(found, key=lambda state: state["timestamp"])]

    def wait(self, run: str, *types: str, seconds: float = 120) -> State:
        """Wait until the run is in a state of one of the types (any final one where none is named).

        Fails at once when the run ends in another.
        """
        wanted = set(types) or FINAL

        def there() -> State | None:
            state = self.state(run)
            assert state.type in wanted or state.type not in FINAL, f"{state}; logs:\n{self.logs(run)}"
            return state if state.type in wanted else None

        try:
            return wait_for(there, f"run {run} in {sorted(wanted)}", seconds)  # type: ignore[return-value]
        except BaseException:
            print(f"run {run}: {self.states(run)}\n{self.logs(run)}")
            raise

    def logs(self, run: str) -> str:
        """The run's log as Prefect's page shows it."""
        chosen = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(f"{line['name']}: {line['message']}" for line in self.request("POST", "/logs/filter", chosen))

    def jobs(self, run: str) -> list[Any]:
        found = self.batch.list_namespaced_job(self.namespace, label_selector=f"prefect.io/flow-run-id={run}")
        return list(found.items)

    def pods(self, run: str) -> list[Any]:
        found = self.core.list_namespaced_pod(self.namespace, label_selector=f"prefect.io/flow-run-id={run}")
        return list(found.items)

    def pod(self, run: str, seconds: float = 60) -> Any:
        """The run's pod, once there is one."""
        return wait_for(lambda: self.pods(run), f"a pod of run {run}", seconds)[0]

    def reading(self, run: str) -> None:
        """Wait until the run is in its first step, for which `slow_source` keeps it."""
        self.wait(run, "RUNNING")
        wait_for(lambda: "Created task run" in self.logs(run) or self._in_task(run), f"the first step of {run}", 60)

    def _in_task(self, run: str) -> bool:
        chosen = {"flow_runs": {"id": {"any_": [run]}}}
        return any(task["state_type"] == "RUNNING" for task in self.request("POST", "/task_runs/filter", chosen))

    def under_way(self) -> int:
        """How many runs are due, pending or running, whoever started them."""
        now = datetime.now(UTC).isoformat()
        due = {"state": {"type": {"any_": ["SCHEDULED"]}}, "next_scheduled_start_time": {"before_": now}}
        begun = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        return sum(int(self.request("POST", "/flow_runs/count", {"flow_runs": chosen})) for chosen in (due, begun))

    def clean(self) -> None:
        """End what tests of this object have started."""
        for run in self.started:
            if self.state(run).type not in FINAL:
                state = {"type": "CANCELLED", "name": "Cancelled", "message": "the test is over"}
                self.request("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
            for job in self.jobs(run):
                if not (job.status.succeeded or job.status.failed):
                    self.batch.delete_namespaced_job(
                        job.metadata.name, self.namespace, grace_period_seconds=0, propagation_policy="Background"
                    )
        self.http.close()


@contextmanager
def runs_of(platform: Platform, home: Path) -> Iterator[Runs]:
    """The platform's runs; those that were started here and have not ended are cancelled at the end."""
    with port_forward(platform, "prefect-server", 4200) as port:
        runs = Runs(platform, f"http://127.0.0.1:{port}/api", home)
        try:
            yield runs
        finally:
            runs.clean()


def new_version(platform: Platform, runs: Runs) -> str:
    """Train iris without promoting it; the version."""
    run = runs.start("train/iris", {"promote": False})
    runs.wait(run, "COMPLETED", seconds=180)
    with registry_of(platform, "reader") as registry:
        (version,) = [v.version for v in registry.versions("iris") if v.tags.get("flow_run_id") == run]
    return version
