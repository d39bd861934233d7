"""Training runs are Kubernetes Jobs; whatever happens to a Job, Prefect says how the run ended and why."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from namespace import Namespace, wait_for
from release import Platform
from runs import ENDLESS, NEVER, ROWS, Runs, registry_of, runs_of, scale, settled, slow_source

from app.clients.prefect import FlowRun
from app.registry.promotion import history

TRIAL = {"promote": False}  # production stays as it is
DECIDED = r"version \d+ of iris: (promoted|refused)"
REASON_SECONDS = 60  # from what happened to the state that says so


@dataclass
class Trained:
    """A run that is over: its id, what the command printed, the Job and the pod that it was."""

    run: str
    printed: str
    job: Any
    pod: Any


@pytest.fixture(scope="module")
def trained(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One run, started as people start it."""
    with runs_of(platform, tmp_path_factory.mktemp("prefect")) as runs:
        printed = runs.cli("deployment", "run", "train/iris", "--watch", "--watch-timeout", "180", seconds=240)
        match = re.search(r"UUID: ([0-9a-f-]{36})", printed)
        assert match, printed
        run = match[1]
        # the run ends a moment before its pod does
        wait_for(lambda: [job for job in runs.jobs(run) if job.status.succeeded], "the Job's end")
        (job,), (pod,) = runs.jobs(run), runs.pods(run)
        return Trained(run, printed, job, pod)


def _crashed(runs: Runs, run: str, reason: str, since: float) -> None:
    """Wait until a run is Crashed, and its state says why; both within REASON_SECONDS of `since`."""

    def crashed() -> FlowRun | None:
        current = runs.run(run)
        return current if current.state == "CRASHED" and re.search(reason, current.message or "", re.I) else None

    try:
        left = REASON_SECONDS - (time.monotonic() - since)
        wait_for(crashed, f"run {run} Crashed, with the reason {reason!r}", left)
    except BaseException:
        print(f"the run is {runs.run(run)} after {runs.states(run)}; its log:\n{runs.logs(run)}")
        raise
    print(f"{runs.run(run).message} after {time.monotonic() - since:.1f} s")


def _live(runs: Runs, run: str) -> list[str]:
    """Pods of the run that hold a place on a node, or wait for one."""
    return [pod.metadata.name for pod in runs.pods(run) if pod.status.phase in ("Pending", "Running")]


def _waiting(pod: Any) -> set[str]:
    """Why containers of a pod wait."""
    states = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
    return {status.state.waiting.reason for status in states if status.state and status.state.waiting}


# -- a run that goes well ----------------------------------------------------------------------------------------------


def test_a_run_is_a_job_that_trains_registers_and_promotes(platform: Platform, trained: Trained) -> None:
    assert trained.job.status.succeeded == 1
    assert trained.job.metadata.namespace == platform.namespace
    with registry_of(platform, "reader") as registry:
        (version,) = [v for v in registry.versions("iris") if v.tags.get("flow_run_id") == trained.run]
        (decision,) = [d for d in history(registry, "iris") if d.version == version.version]
        assert decision.outcome == "promoted", decision
        assert registry.run(version.run_id).metrics["accuracy"] > 0.85
    with platform.client("api") as api:
        wait_for(lambda: api.get("/models/iris").json()["version"] == version.version, "the new version served", 30)


def test_its_promotion_is_a_job_of_its_own_with_the_account_of_the_gate(
    platform: Platform, runs: Runs, trained: Trained
) -> None:
    with registry_of(platform, "reader") as registry:
        (version,) = [v.version for v in registry.versions("iris") if v.tags.get("flow_run_id") == trained.run]
    (promotion,) = [
        r
        for r in runs.prefect.runs(flow="promote")
        if (r.parameters["model"], r.parameters["version"]) == ("iris", version)
    ]
    (job,), (pod,) = runs.jobs(promotion.id), runs.pods(promotion.id)
    assert job.metadata.name != trained.job.metadata.name
    for which, account in ((trained.pod, "trainer"), (pod, "gate")):
        variables = {variable.name: variable for variable in which.spec.containers[0].env}
        assert variables["MLFLOW_TRACKING_USERNAME"].value == account
        key = variables["MLFLOW_TRACKING_PASSWORD"].value_from.secret_key_ref.key
        assert key == f"mlflow-{account}-password"
    both = runs.run(trained.run).seconds
    print(f"the training took {both:.1f} s, {promotion.seconds:.1f} s of it in the flow `promote`")


@pytest.mark.drill
def test_trainings_that_fill_the_pool_are_all_decided(runs: Runs) -> None:
    """Each waits for its promotion while it holds its place."""
    (queue,) = [
        each for each in runs.prefect.request("POST", "/work_pools/k8s/queues/filter", {}) if each["name"] == "default"
    ]
    started = [runs.start("train/iris", {"who": "live test"}) for _ in range(queue["concurrency_limit"] + 1)]
    for run in started:
        runs.wait(run, "COMPLETED", seconds=300)
        _wait_for_decision(runs, run)


def _wait_for_decision(runs: Runs, run: str) -> None:
    """Wait until the run's log has the decision: its last lines come when the run has ended."""
    wait_for(lambda: re.search(DECIDED, runs.logs(run)), lambda: f"a decision in {runs.logs(run)}", 30)


def test_the_log_is_in_prefect(runs: Runs, trained: Trained) -> None:
    logs = runs.logs(trained.run)
    for line in ("Kubernetes job", "rows from flows/models/iris.py", "registered version", "promoted"):
        assert line in logs, logs


def test_the_pod_passes_pod_security_restricted(namespace: Namespace, trained: Trained) -> None:
    """Judged by Kubernetes' own admission, in a namespace that enforces it."""
    spec = client.ApiClient().sanitize_for_serialization(trained.pod.spec)
    for place in ("serviceAccountName", "serviceAccount", "nodeName", "priority"):
        spec.pop(place, None)
    labels = trained.pod.metadata.labels
    pod: Any = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "training", "labels": labels}, "spec": spec}
    namespace.core.create_namespaced_pod(namespace.name, pod, dry_run="All")
    spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ApiException, match="violates PodSecurity"):
        namespace.core.create_namespaced_pod(namespace.name, pod, dry_run="All")


def test_the_pod_cannot_write_but_to_tmp_and_has_no_token(trained: Trained) -> None:
    spec = trained.pod.spec
    assert (spec.security_context.run_as_user, spec.security_context.run_as_group) == (10001, 10001)
    for container in [*(spec.init_containers or []), *spec.containers]:
        assert container.security_context.read_only_root_filesystem, container.name
        mounts = {mount.mount_path for mount in container.volume_mounts or []}
        assert mounts <= {"/tmp"}, container.name  # noqa: S108
    assert spec.automount_service_account_token is False
    assert {volume.name for volume in spec.volumes if not volume.empty_dir} == set()


def test_no_password_is_in_the_job_or_the_log(platform: Platform, runs: Runs, trained: Trained) -> None:
    shown = json.dumps(client.ApiClient().sanitize_for_serialization([trained.job, trained.pod]))
    shown += runs.logs(trained.run) + json.dumps(runs.prefect.request("GET", f"/flow_runs/{trained.run}"))
    for key, value in platform.credentials.items():
        # of "account:password" the password alone, too; what the API knows of a client is JSON, whose end is any JSON's
        for secret in {value, value if value.startswith("{") else value.split(":")[-1]}:
            assert secret not in shown, f"{key} in clear"
            assert base64.b64encode(secret.encode()).decode() not in shown, f"{key} in base64"
    variables = {variable.name: variable for variable in trained.pod.spec.containers[0].env}
    assert variables["MLFLOW_TRACKING_PASSWORD"].value_from.secret_key_ref.name  # where it does come from
    assert variables["PREFECT_API_AUTH_STRING"].value.startswith(f"run-{trained.run}:")  # good for this run alone


@pytest.mark.drill
def test_a_finished_job_goes_after_its_time_and_its_run_stays(runs: Runs, trained: Trained) -> None:
    assert trained.job.spec.ttl_seconds_after_finished >= 300  # kubectl logs work for a while
    run = runs.start("train/iris", TRIAL, {"finished_job_ttl": 5})
    runs.wait(run, "COMPLETED")
    wait_for(lambda: not runs.jobs(run) and not runs.pods(run), "the Job removed", 60)
    assert runs.run(run).state == "COMPLETED"
    assert "registered version" in runs.logs(run)


# -- a run that goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.drill
def test_out_of_memory_at_the_start_is_crashed_with_the_reason(runs: Runs) -> None:
    run = runs.start("train/iris", TRIAL, {"memory": "100Mi"})
    _killed(runs, run)
    _crashed(runs, run, "memory|OOM", time.monotonic())


def test_out_of_memory_while_training_is_crashed_with_the_reason(runs: Runs) -> None:
    """More rows than the Job has memory for."""
    parameters, variables = slow_source(ENDLESS)
    run = runs.start("train/iris", {**TRIAL, **parameters}, {**variables, "memory": "512Mi"})
    runs.wait(run, "RUNNING")
    _killed(runs, run)
    _crashed(runs, run, "memory|OOM", time.monotonic())


def _killed(runs: Runs, run: str) -> None:
    """Wait until the kernel has killed the run's container for its memory."""

    def reasons() -> set[str]:
        statuses = [status for pod in runs.pods(run) for status in pod.status.container_statuses or []]
        return {status.state.terminated.reason for status in statuses if status.state.terminated}

    assert wait_for(reasons, "the container's end", 120) == {"OOMKilled"}


def _evict(core: client.CoreV1Api, pod: Any) -> None:
    name, namespace = pod.metadata.name, pod.metadata.namespace
    about = client.V1ObjectMeta(name=name, namespace=namespace)
    core.create_namespaced_pod_eviction(name, namespace, client.V1Eviction(metadata=about))


def _delete(core: client.CoreV1Api, pod: Any) -> None:
    core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace)


def _kill(core: client.CoreV1Api, pod: Any) -> None:
    core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0)


@pytest.mark.parametrize(
    "remove",
    [
        pytest.param(_evict, id="evicted"),
        *(
            pytest.param(remove, id=how, marks=pytest.mark.drill)
            for remove, how in ((_delete, "deleted"), (_kill, "killed"))
        ),
    ],
)
def test_a_pod_taken_away_is_crashed_with_the_reason(
    runs: Runs, remove: Callable[[client.CoreV1Api, Any], None]
) -> None:
    """`kubectl drain` evicts."""
    parameters, variables = slow_source(NEVER)
    run = runs.start("train/iris", {**TRIAL, **parameters}, variables)
    runs.reading(run)
    remove(runs.core, runs.pod(run))
    _crashed(runs, run, "evict|terminat|delet|gone|no active", time.monotonic())
    assert len(runs.jobs(run)) <= 1  # over means over: no second Job


NO_SUCH_IMAGE = "docker.io/mlops/flows:no-such-tag"


def test_an_image_that_is_not_the_releases_is_crashed_with_what_to_do(runs: Runs) -> None:
    run = runs.start("train/iris", TRIAL, {"image": NO_SUCH_IMAGE})
    _crashed(runs, run, f"{NO_SUCH_IMAGE}; add it to prefect-worker.jobs.allowedImages", time.monotonic())
    assert not runs.jobs(run)


@pytest.fixture
def let_through(platform: Platform) -> Iterator[str]:
    """An image that no registry has, and that trainings may run, as with prefect-worker.jobs.allowedImages."""
    api = client.AdmissionregistrationV1Api(platform.api)
    name = f"{platform.name}.{platform.release}-prefect-worker"
    variables = api.read_validating_admission_policy(name).spec.variables

    def set_images(expression: str) -> None:
        changed = [{"name": v.name, "expression": v.expression} for v in variables]
        (images,) = [v for v in changed if v["name"] == "images"]
        images["expression"] = expression
        api.patch_validating_admission_policy(name, {"spec": {"variables": changed}})

    (images,) = [v.expression for v in variables if v.name == "images"]
    set_images(f'{images}.filter(i, i != "{NO_SUCH_IMAGE}")')
    yield NO_SUCH_IMAGE
    set_images(images)


@pytest.mark.drill
def test_an_image_that_cannot_be_pulled_is_crashed_with_the_reason(runs: Runs, let_through: str) -> None:
    run = runs.start("train/iris", TRIAL, {"image": let_through})
    failing = {"ErrImagePull", "ImagePullBackOff"}
    wait_for(lambda: _waiting(runs.pod(run)) & failing, "the failing pull", 90)
    _crashed(runs, run, "image", time.monotonic())
    # an image that turns up later must not start a run that is over, and the place on the node is free again
    wait_for(lambda: not _live(runs, run), "the waiting pod removed", 90)


@pytest.mark.drill
def test_cancelling_a_running_run_removes_the_pod(runs: Runs) -> None:
    parameters, variables = slow_source(NEVER)
    run = runs.start("train/iris", {**TRIAL, **parameters}, variables)
    runs.reading(run)
    runs.cli("flow-run", "cancel", run)
    wait_for(lambda: not _live(runs, run), "the pod's end", 60)
    runs.wait(run, "CANCELLED", seconds=30)
    assert len(runs.jobs(run)) <= 1


@pytest.mark.drill
def test_cancelling_a_pending_run_removes_the_pod(runs: Runs) -> None:
    run = runs.start("train/iris", TRIAL, {"cpu": "64"})  # no node has as many
    wait_for(lambda: _live(runs, run) and runs.run(run).state_name == "InfrastructurePending", "the waiting pod", 60)
    runs.cli("flow-run", "cancel", run)
    wait_for(lambda: not _live(runs, run), "the pod's end", 60)
    runs.wait(run, "CANCELLED", seconds=30)


# -- a worker that goes away -------------------------------------------------------------------------------------------


def _ran_once(platform: Platform, runs: Runs, run: str) -> None:
    """One Job, one start, one version."""
    assert len(runs.jobs(run)) == 1
    assert runs.states(run).count("Running") == 1, runs.states(run)
    with registry_of(platform, "reader") as registry:
        assert len([v for v in registry.versions("iris") if v.tags.get("flow_run_id") == run]) == 1


def test_a_worker_killed_mid_run_neither_loses_nor_doubles_the_run(platform: Platform, runs: Runs) -> None:
    parameters, variables = slow_source(f"sleep 25; {ROWS}")
    run = runs.start("train/iris", {**TRIAL, **parameters}, variables)
    runs.reading(run)
    (worker,) = platform.pods("prefect-worker")
    _kill(runs.core, worker)
    runs.wait(run, "COMPLETED", seconds=180)
    wait_for(lambda: settled(platform, "prefect-worker"), "the worker back", 180)
    assert platform.pods("prefect-worker")[0].metadata.uid != worker.metadata.uid
    _ran_once(platform, runs, run)


@pytest.mark.drill
def test_a_run_started_while_the_worker_is_away_waits_for_it(platform: Platform, runs: Runs) -> None:
    scale(platform, "prefect-worker", 0)
    try:
        run = runs.start("train/iris", TRIAL)
        assert runs.run(run).state == "SCHEDULED"
    finally:
        scale(platform, "prefect-worker", 1)
    runs.wait(run, "COMPLETED", seconds=180)
    _ran_once(platform, runs, run)


@pytest.mark.drill
def test_a_run_whose_job_vanished_while_the_worker_was_away_is_crashed(platform: Platform, runs: Runs) -> None:
    """Nobody is there to see it, as when a node is lost: Prefect misses the run's heartbeat."""
    parameters, variables = slow_source(NEVER)
    run = runs.start("train/iris", {**TRIAL, **parameters}, variables)
    runs.reading(run)
    wait_for(lambda: _heartbeats(runs, run), "a heartbeat of the run", 60)
    scale(platform, "prefect-worker", 0)
    try:
        (job,) = runs.jobs(run)
        runs.batch.delete_namespaced_job(
            job.metadata.name, runs.namespace, grace_period_seconds=0, propagation_policy="Background"
        )
        for pod in runs.pods(run):
            _kill(runs.core, pod)  # at once: it gets no chance to say goodbye
        gone = time.monotonic()
        crashed = runs.wait(run, "CRASHED", seconds=240)
        print(f"{crashed.message} after {time.monotonic() - gone:.0f} s")
        assert "heard" in (crashed.message or "")
    finally:
        scale(platform, "prefect-worker", 1)
    assert runs.run(run).state == "CRASHED"


def _heartbeats(runs: Runs, run: str) -> int:
    chosen = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{run}"]}}
    return len(runs.prefect.request("POST", "/events/filter", {"filter": chosen})["events"])
