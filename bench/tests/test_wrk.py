"""What wrk reports is read, and a real one is run."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.runtime.processes import free_port
from bench import wrk
from bench.load import Request

REPORT = """Running 5s test @ http://127.0.0.1:8086
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.49ms    1.02ms  30.71ms   92.34%
    Req/Sec     6.66k   296.54     7.14k    68.42%
  Latency Distribution
     50%  {p50}
     75%    2.83ms
     90%    3.10ms
     99%  {p99}
  33211 requests in 5.02s, 11.40MB read
{errors}Requests/sec:   6624.05
Transfer/sec:      2.27MB
"""


@pytest.mark.parametrize(
    ("p50", "p99", "milliseconds"),
    [
        ("  2.27ms", "  5.01ms", (2.27, 5.01)),
        ("140.00us", "   1.50s ", (0.14, 1500)),
        ("  30.00s ", "   1.10m ", (30e3, 66e3)),
    ],
)
def test_rate_and_percentiles(p50: str, p99: str, milliseconds: tuple[float, float]) -> None:
    load = wrk.parse(REPORT.format(p50=p50, p99=p99, errors=""))
    assert (load.rate, load.failed) == (6624.05, 0)
    assert (load.p50, load.p99) == pytest.approx(milliseconds)


def test_errors_of_sockets_and_of_statuses_are_counted() -> None:
    errors = "  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 50000\n"
    assert wrk.parse(REPORT.format(p50="1.00ms", p99="1.00ms", errors=errors)).failed == 54321


@pytest.mark.parametrize("text", ["", "unable to connect", REPORT.partition("  Latency Distribution")[0]])
def test_anything_else_is_no_report(text: str) -> None:
    with pytest.raises(ValueError, match="no report of wrk"):
        wrk.parse(text)


class Handler(BaseHTTPRequestHandler):
    """Answers 500 at /bad, and counts by path, type and body."""

    protocol_version = "HTTP/1.1"
    seen: Counter[tuple[str, str, str]]
    hosts: set[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.seen[(self.path, self.headers["Content-Type"], body)] += 1
        self.hosts.add(self.headers["Host"])
        self.send_response(500 if self.path == "/bad" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


needs_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed (apt-get install wrk)")


@pytest.fixture
def server() -> Iterator[str]:
    Handler.seen, Handler.hosts = Counter(), set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.daemon_threads = True
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()
        thread.join()


@needs_wrk
def test_the_requests_are_sent_in_turn(server: str) -> None:
    bodies = [json.dumps({"x": f"ä % {i}"}, ensure_ascii=False) for i in range(3)]
    load = wrk.load(server, [Request(f"/{i}", body.encode()) for i, body in enumerate(bodies)], 2, 1)
    assert set(Handler.seen) == {(f"/{i}", "application/json", body) for i, body in enumerate(bodies)}
    assert max(Handler.seen.values()) - min(Handler.seen.values()) <= 1
    assert load.rate > 0
    assert load.failed == 0
    assert 0 < load.p50 <= load.p99


@needs_wrk
def test_wrk_is_run_by_another_command_with_headers_of_its_own(server: str) -> None:
    load = wrk.load(server, [Request("/", b"{}")], 1, 1, ["env", "LC_ALL=C"], {"Host": "api.localhost:8080"})
    assert Handler.hosts == {"api.localhost:8080"}
    assert load.failed == 0


@needs_wrk
def test_refused_requests_are_failures(server: str) -> None:
    load = wrk.load(server, [Request("/good", b"{}"), Request("/bad", b"{}")], 1, 1)
    assert load.failed > 0
    assert abs(load.failed - Handler.seen[("/good", "application/json", "{}")]) <= 1


@needs_wrk
def test_a_server_that_is_not_there() -> None:
    with pytest.raises(RuntimeError, match=r"wrk failed: unable to connect"):
        wrk.load(f"http://127.0.0.1:{free_port()}", [Request("/", b"{}")], 1, 1)


def test_a_missing_wrk_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="wrk is not installed: apt-get install wrk"):
        wrk.check_installed()
