"""Fixtures of the tests that need the cluster of `make cluster`: a namespace for each test, a report when it fails."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from namespace import Namespace, wait_for
from release import CONTEXT, Platform, run
from runs import Runs, new_version, port_forward, runs_of
from upgraded import Upgraded, upgrade
from xdist.scheduler import LoadScopeScheduling

from app.clients.prometheus import PrometheusClient

# `make test-k8s` has two processes. Tests that need the cluster and its registry alone are for whichever is free.
BESIDE = ("test_cluster.py", "test_install.py", "test_push.py")
# Those that start trainings all the time are for one of them. The other begins with the quiet ones; all that are left
# wait for the last training: they upgrade, restart, count and promote.
TRAININGS = ("test_loop.py", "test_training.py")
REPORTS = Path(__file__).parent / "reports"
LOCK = Path(__file__).parent / ".turn"
TURN = pytest.StashKey["Turn"]()


@pytest.fixture(scope="session")
def api() -> client.ApiClient:
    """A client of the cluster; the tests fail where there is none, they are not for elsewhere."""
    try:
        config.load_kube_config(context=CONTEXT)
        client.VersionApi().get_code(_request_timeout=10)
    except Exception as error:
        pytest.fail(f"no cluster answers at kubectl's context {CONTEXT}: run `make cluster` first ({error})")
    return client.ApiClient()


@pytest.fixture
def namespace(api: client.ApiClient, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace under Pod Security `restricted`, named after the test. KEEP=1 leaves it there."""
    core = client.CoreV1Api(api)
    test = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"metadata": {"generateName": f"{test[:40]}-", "labels": labels}}
    namespace = Namespace(core.create_namespace(body).metadata.name, api)
    wait_for(
        lambda: "default" in [a.metadata.name for a in core.list_namespaced_service_account(namespace.name).items],
        "the namespace's service account",
    )
    yield namespace
    if not os.environ.get("KEEP"):
        core.delete_namespace(namespace.name)


@pytest.fixture(scope="session")
def platform(api: client.ApiClient) -> Platform:
    """The platform, ready; installed by `make up` where it is not there."""
    platform = Platform("mlops", api)
    if not platform.installed:
        print(run(["make", "up", "ARGS="], 2400))
    platform.ready()
    return platform


@pytest.fixture
def runs(platform: Platform, tmp_path: Path) -> Iterator[Runs]:
    """The platform's flow runs; those that the test starts end with it."""
    with runs_of(platform, tmp_path) as runs:
        yield runs


@pytest.fixture(scope="session")
def spare_version(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A version of iris that was trained and not promoted. Tests that promote it put back what was in production."""
    with runs_of(platform, tmp_path_factory.mktemp("spare-version")) as runs:
        return new_version(platform, runs)


@pytest.fixture(scope="session")
def upgraded(platform: Platform, api: client.ApiClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    """The platform after the one upgrade of a session, and as it was again."""
    core = client.CoreV1Api(api)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    git = core.create_namespace({"metadata": {"generateName": "git-", "labels": labels}}).metadata.name
    try:
        with upgrade(platform, Namespace(git, api), tmp_path_factory.mktemp("upgraded")) as upgraded:
            yield upgraded
    finally:
        core.delete_namespace(git)


@pytest.fixture
def prometheus(platform: Platform) -> Iterator[PrometheusClient]:
    """A client of the platform's Prometheus, through a port-forward."""
    with (
        port_forward(platform, "prometheus", 9090) as port,
        PrometheusClient(f"http://127.0.0.1:{port}", 30) as prometheus,
    ):
        yield prometheus


class Groups(LoadScopeScheduling):
    """Which tests stay together in one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.split("::")[0]).name
        return nodeid if file in BESIDE else "trainings" if file in TRAININGS else "platform"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Of `-n 2`. (The marks of `--dist loadgroup` do nothing: xdist 3.8 writes them where pytest 9 does not look.)"""
    return Groups(config, log)


class Turn:
    """This process' share of the cluster: beside others, with other trainings, or alone."""

    def __init__(self) -> None:
        self._lock = LOCK.open("w")
        self._mode = fcntl.LOCK_UN

    def take(self, item: pytest.Item) -> None:
        """Wait until the test may run."""
        mode = fcntl.LOCK_SH if item.path.name in TRAININGS else fcntl.LOCK_EX
        if item.path.name in BESIDE or item.get_closest_marker("quiet"):
            mode = fcntl.LOCK_UN
        if mode != self._mode:
            self.release()
            fcntl.flock(self._lock, mode)
            self._mode = mode

    def release(self) -> None:
        """Let others run that wait for this process."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._mode = fcntl.LOCK_UN


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the test's fixtures: have it wait while tests run that it disturbs."""
    if TURN not in item.config.stash:
        item.config.stash[TURN] = Turn()
    item.config.stash[TURN].take(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """After the last test of this process: the other one may wait for it."""
    try:
        return (yield)
    finally:
        if nextitem is None:
            item.config.stash[TURN].release()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Trainings first; what removes the release comes last."""

    def place(item: pytest.Item) -> int:
        name = item.path.name
        if name in TRAININGS:
            return TRAININGS.index(name)
        if item.get_closest_marker("quiet"):
            return 10
        if name in BESIDE:
            return 20
        return 40 if name == "test_data.py" else 30

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A failing test leaves the report of its namespace in the output and in reports/."""
    result = yield
    namespace = next(
        (item.funcargs[n] for n in ("namespace", "on_postgres", "replicated", "platform") if n in item.funcargs), None
    )
    if result.when == "call" and result.failed and isinstance(namespace, Namespace):
        report = namespace.report()
        REPORTS.mkdir(exist_ok=True)
        (REPORTS / f"{item.name}.txt").write_text(report)
        result.sections.append((f"namespace report, also in {REPORTS / item.name}.txt", report))
    return result


@pytest.fixture(scope="session")
def nodes(api: client.ApiClient) -> list[str]:
    """The names of the cluster's nodes."""
    return [node.metadata.name for node in client.CoreV1Api(api).list_node().items]
