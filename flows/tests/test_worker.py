"""The worker as the cluster runs it, against a real Prefect server, where no Kubernetes answers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.runtime.processes import ChildProcess, Server, free_port
from app.runtime.waiting import wait_until

# In a pod it is told where Kubernetes is; here, that there is none.
PROGRAM = """
import sys
from pathlib import Path
from kubernetes_asyncio import config
from flows import worker
config.load_incluster_config = lambda: None
worker.NAMESPACE_FILE = Path(sys.argv.pop(1))
worker.main()
"""


@pytest.fixture
def worker(prefect_server: Server, tmp_path: Path) -> Iterator[ChildProcess]:
    namespace = tmp_path / "namespace"
    namespace.write_text("mlops")
    env = {
        "PREFECT_API_URL": prefect_server.uri,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "1",
        "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()),
        "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_ENABLED": "false",  # it needs Kubernetes
    }
    command = [sys.executable, "-c", PROGRAM, str(namespace), "--work-pool", "worker-test", "--name", "tested"]
    process = ChildProcess("worker", command, env, tmp_path)
    yield process
    process.stop()


def test_it_goes_on_without_kubernetes_and_ends_when_it_is_told_to(worker: ChildProcess) -> None:
    def looked_twice() -> bool:
        assert not worker.ended, worker.tail(40)
        return worker.tail(200).count("the Jobs of ended runs cannot be removed: Kubernetes does not answer") >= 2

    wait_until(looked_twice, 120, lambda: worker.tail(40))
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(30) == 0, worker.tail(40)
    assert "Traceback" not in worker.tail(200)
