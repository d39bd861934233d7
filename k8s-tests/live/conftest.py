"""Fixtures of the tests that need the cluster of `make cluster`: a namespace for each test, a report when it fails."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from namespace import Namespace, wait_for
from release import CONTEXT, Platform, run
from runs import Runs, port_forward, runs_of
from xdist.scheduler import LoadScopeScheduling

from app.clients.prometheus import PrometheusClient

# Need the cluster and its registry alone: in `make test-k8s` another process runs them, beside those of the platform.
BESIDE = ("test_cluster.py", "test_install.py", "test_push.py")
REPORTS = Path(__file__).parent / "reports"


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


@pytest.fixture
def prometheus(platform: Platform) -> Iterator[PrometheusClient]:
    """A client of the platform's Prometheus, through a port-forward."""
    with (
        port_forward(platform, "prometheus", 9090) as port,
        PrometheusClient(f"http://127.0.0.1:{port}", 30) as prometheus,
    ):
        yield prometheus


class Beside(LoadScopeScheduling):
    """Tests of the platform are for one process, as they share it; others are for whichever is free."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if Path(nodeid.split("::")[0]).name in BESIDE else "platform"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Beside:
    """Of `-n 2`. (The marks of `--dist loadgroup` do nothing: xdist 3.8 writes them where pytest 9 does not look.)"""
    return Beside(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What removes the release comes last."""
    order = {"test_loop.py": 1, "test_data.py": 3}
    items.sort(key=lambda item: order.get(item.path.name, 0 if item.path.name in BESIDE else 2))


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
