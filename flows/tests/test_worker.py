"""The worker as the cluster runs it, against a real Prefect server, where no Kubernetes answers."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.runtime.processes import ChildProcess, Server, free_port
from app.runtime.waiting import wait_until
from app.testing.kubernetes import write_kubeconfig

# In a pod it is told where Kubernetes is; here, that there is none. And kopf would give up after two tries, not nine.
PROGRAM = """
import sys
from pathlib import Path
import kopf
from kubernetes_asyncio import config
@kopf.on.startup()
def impatient(settings, **_):
    settings.networking.error_backoffs = (0.1,)
from flows import worker
config.load_incluster_config = lambda: None
worker.NAMESPACE_FILE = Path(sys.argv.pop(1))
worker.main()
"""


@pytest.fixture
def port() -> int:
    """Where Kubernetes does not answer yet."""
    return free_port()


@pytest.fixture
def worker(prefect_server: Server, tmp_path: Path, port: int) -> Iterator[ChildProcess]:
    namespace = tmp_path / "namespace"
    namespace.write_text("mlops")
    write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{port}")
    env = {
        "PREFECT_API_URL": prefect_server.uri,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "1",
        "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()),
        "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES": "mlops",
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
    }
    command = [sys.executable, "-c", PROGRAM, str(namespace), "--work-pool", "worker-test", "--name", "tested"]
    command += ["--job-template", str(tmp_path / "template.json"), "--models-folder", str(tmp_path / "models")]
    process = ChildProcess("worker", command, env, tmp_path)
    yield process
    process.stop()


@contextmanager
def starting_kubernetes(port: int) -> Iterator[list[str]]:
    """A Kubernetes that answers 503, as one does that has just come up; the paths that it was asked for."""
    asked: list[str] = []

    class Starting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", port), Starting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield asked
        server.shutdown()
        thread.join()


def test_it_goes_on_without_kubernetes_and_ends_when_it_is_told_to(worker: ChildProcess, port: int) -> None:
    """Both its removal of Jobs and Prefect's observer."""

    def tried_often_enough() -> bool:
        assert not worker.ended, worker.tail(40)
        log = worker.tail(400)
        looks = log.count("the Jobs of ended runs cannot be removed: Kubernetes does not answer")
        return looks >= 2 and "Request attempt #3 failed; will retry: GET" in log

    wait_until(tried_often_enough, 120, lambda: worker.tail(40))
    with starting_kubernetes(port) as asked:
        wait_until(lambda: "/apis" in asked, 60, lambda: worker.tail(40))  # only the observer asks for that
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(30) == 0, worker.tail(40)
    assert "Traceback" not in worker.tail(200)
