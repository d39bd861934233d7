"""Training runs of the platform under test: Prefect's API and command line, and the Jobs that runs become."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from kubernetes import client
from namespace import wait_for
from release import CONTEXT, Platform

from app.clients.mlflow import PRODUCTION, MlflowClient
from app.clients.prefect import ENDED, FlowRun
from app.registry.promotion import promote
from app.runtime.processes import free_port
from app.testing.prefect import PrefectAdmin
from flows.catalog import load_model

BUSY_ATTEMPTS = 60  # of a request, a second each, while Prefect's SQLite is busy
# What the named pipe of a slow source is fed with, in sh.
NEVER = "sleep infinity"
ROWS = "python -c 'from flows.models import iris; print(iris.load().to_csv(index=False), end=\"\")'"
ENDLESS = "echo sepal_length,sepal_width,petal_length,petal_width,species; yes 5.1,3.5,1.4,0.2,setosa"


@contextmanager
def port_forward(platform: Platform, component: str, port: int, pod: str = "") -> Iterator[int]:
    """`kubectl port-forward` of a Service of the platform, as people do it, or of one of its pods; the local port."""
    local = free_port()
    target = f"pod/{pod}" if pod else f"svc/{platform.release}-{component}"
    command = ["kubectl", "--context", CONTEXT, "-n", platform.namespace, "port-forward", target, f"{local}:{port}"]
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
    """Parameters and job variables of a training run that reads its rows from a pipe, which `feed`, in sh, writes to.

    So a run can be kept in its first step for as long as a test needs it there.
    """
    script = f"mkfifo /tmp/rows.csv; ({feed}) > /tmp/rows.csv & exec prefect flow-run execute"
    return {"source": "/tmp/rows.csv"}, {"command": shlex.join(["sh", "-c", script])}  # noqa: S108


@contextmanager
def registry_of(platform: Platform, account: str = "admin", pod: str = "") -> Iterator[MlflowClient]:
    """A client of the platform's MLflow, or of one of its pods, through a port-forward."""
    password = platform.credentials[f"mlflow-{account}-password"]
    with (
        port_forward(platform, "mlflow", 5000, pod) as port,
        MlflowClient(f"http://127.0.0.1:{port}", account, password, timeout=30, retry_for=30) as registry,
    ):
        yield registry


def production(registry: MlflowClient) -> str:
    """The version of iris that is in production."""
    version = registry.version_by_alias("iris", PRODUCTION)
    assert version, "no version of iris is in production"
    return version.version


def put_back(registry: MlflowClient, version: str) -> None:
    """Have this version of iris in production again, where a test has moved it."""
    if production(registry) != version:
        definition = load_model("iris").definition
        promote(registry, "iris", version, definition=definition, who="live test", why="as it was before the test")


def scale(platform: Platform, component: str, replicas: int) -> None:
    """Scale a Deployment of the platform, and wait until it is so: the pods are ready, or gone."""
    apps, name = client.AppsV1Api(platform.api), f"{platform.release}-{component}"
    apps.patch_namespaced_deployment_scale(name, platform.namespace, {"spec": {"replicas": replicas}})
    wait_for(lambda: len(platform.pods(component)) == replicas and settled(platform, component), f"{name} scaled", 180)


def settled(platform: Platform, component: str) -> bool:
    """Whether every pod of a Deployment is of its newest revision and ready, and none is on its way out."""
    apps = client.AppsV1Api(platform.api)
    deployment: Any = apps.read_namespaced_deployment(f"{platform.release}-{component}", platform.namespace)
    replicas, status = deployment.spec.replicas, deployment.status
    return (
        (status.observed_generation or 0) >= deployment.metadata.generation
        and (status.updated_replicas or 0) == replicas == (status.ready_replicas or 0)
        and len(platform.pods(component)) == replicas
    )


def restart(platform: Platform, component: str) -> None:
    """`kubectl rollout restart`, to the end: the old pods are gone."""
    apps, now = client.AppsV1Api(platform.api), datetime.now(UTC).isoformat()
    patch = {"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}}
    apps.patch_namespaced_deployment(f"{platform.release}-{component}", platform.namespace, patch)
    wait_for(lambda: settled(platform, component), f"{component} restarted", 240)


class Runs:
    """Flow runs of the platform, and the Jobs and pods that they are. A run is named by its id.

    Args:
        url: of Prefect's REST API.
        home: a folder for the command line's profile.
    """

    def __init__(self, platform: Platform, url: str, home: Path) -> None:
        auth_string = platform.credentials["prefect-auth-string"]
        user, _, password = auth_string.partition(":")
        # a port-forward is slow to tell that the server has closed an idle connection
        limits = httpx.Limits(max_keepalive_connections=0)
        http = httpx.Client(auth=(user, password), timeout=30, limits=limits)
        self.prefect = PrefectAdmin(url, 30, http, attempts=BUSY_ATTEMPTS)
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
        """What the prefect command prints. The test fails when the command does."""
        command = [str(Path(sys.executable).with_name("prefect")), "--no-prompt", *arguments]
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=seconds)
        assert result.returncode == 0, f"{shlex.join(command[1:])}: {result.stdout}{result.stderr}"
        return result.stdout

    def start(self, deployment: str, parameters: dict[str, Any], variables: dict[str, Any] | None = None) -> str:
        """Start a run at once; its id.

        Args:
            deployment: such as train/iris.
            variables: job variables.
        """
        chosen = self.prefect.deployment(*deployment.split("/"))
        assert chosen, f"there is no deployment {deployment}"
        run = self.prefect.start(chosen.id, parameters, tags=["live-test"], job_variables=variables)
        self.started.append(run.id)
        return run.id

    def run(self, run: str) -> FlowRun:
        """The run as Prefect has it now."""
        return self.prefect.run(run)

    def states(self, run: str) -> list[str]:
        """The names of all states that the run was in, oldest first."""
        states = self.prefect.request("GET", f"/flow_run_states/?flow_run_id={run}")
        return [state["name"] for state in sorted(states, key=lambda state: state["timestamp"])]

    def wait(self, run: str, *states: str, seconds: float = 120) -> FlowRun:
        """Wait until the run is in a state of one of these types, or has ended where none is named.

        The test fails at once when the run ends in another.
        """
        expected = set(states or ENDED)

        def arrived() -> FlowRun | None:
            current = self.run(run)
            assert current.state in expected or not current.is_over, f"{current}; logs:\n{self.logs(run)}"
            return current if current.state in expected else None

        try:
            return wait_for(arrived, f"run {run} in {sorted(expected)}", seconds)
        except BaseException:
            print(f"run {run}: {self.states(run)}\n{self.logs(run)}")
            raise

    def logs(self, run: str) -> str:
        """The run's log as Prefect's page shows it."""
        chosen = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        lines = self.prefect.request("POST", "/logs/filter", chosen)
        return "\n".join(f"{line['name']}: {line['message']}" for line in lines)

    def cancel(self, run: str) -> None:
        """Have Prefect say that the run is cancelled."""
        self.prefect.set_state(run, "CANCELLED", "the test is over")

    def jobs(self, run: str) -> list[Any]:
        """The Jobs that the run is; more than one where it was started again."""
        return list(self.batch.list_namespaced_job(self.namespace, label_selector=_of_run(run)).items)

    def pods(self, run: str) -> list[Any]:
        """The pods of the run's Jobs."""
        return list(self.core.list_namespaced_pod(self.namespace, label_selector=_of_run(run)).items)

    def pod(self, run: str, seconds: float = 60) -> Any:
        """The run's pod, once there is one."""
        return wait_for(lambda: self.pods(run), f"a pod of run {run}", seconds)[0]

    def reading(self, run: str) -> None:
        """Wait until the run is in its first step, for which `slow_source` keeps it."""
        self.wait(run, "RUNNING")
        wait_for(lambda: "Created task run" in self.logs(run) or self._in_task(run), f"the first step of {run}", 60)

    def _in_task(self, run: str) -> bool:
        chosen = {"flow_runs": {"id": {"any_": [run]}}}
        return any(
            task["state_type"] == "RUNNING" for task in self.prefect.request("POST", "/task_runs/filter", chosen)
        )

    def under_way(self) -> int:
        """How many runs are due, pending or running, whoever started them."""
        now = datetime.now(UTC).isoformat()
        due = {"state": {"type": {"any_": ["SCHEDULED"]}}, "next_scheduled_start_time": {"before_": now}}
        begun = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        return sum(
            int(self.prefect.request("POST", "/flow_runs/count", {"flow_runs": chosen})) for chosen in (due, begun)
        )

    def clean(self) -> None:
        """End what tests of this object have started."""
        for run in self.started:
            if not self.run(run).is_over:
                self.cancel(run)
            for job in self.jobs(run):
                if not (job.status.succeeded or job.status.failed):
                    self.batch.delete_namespaced_job(
                        job.metadata.name, self.namespace, grace_period_seconds=0, propagation_policy="Background"
                    )
        self.prefect.close()


def _of_run(run: str) -> str:
    """Selects what Kubernetes has of a flow run."""
    return f"prefect.io/flow-run-id={run}"


@contextmanager
def runs_of(platform: Platform, home: Path, pod: str = "") -> Iterator[Runs]:
    """The platform's runs, by the Service or one pod of Prefect; those that were started here and have not ended are
    cancelled at the end.
    """
    with port_forward(platform, "prefect-server", 4200, pod) as port:
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
