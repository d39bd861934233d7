"""The load at a rate counts what went wrong, and what waited."""

from __future__ import annotations

import math
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.runtime.processes import free_port
from bench.load import Request, load_at_rate

REQUESTS = [Request("/predict", b"{}"), Request("/predict?again", b"[]")]


@contextmanager
def server(answers: int = 10**9, status: str = "200 OK", stall: float = 0, close: bool = False) -> Iterator[str]:
    """The URL of a server that drops each connection after so many answers, with the next request unanswered.

    stall: seconds after the first request in which it answers none.
    close: say in each answer that the connection ends, and end it.
    """
    begun: list[float] = []
    head = f"HTTP/1.1 {status}\r\ncontent-length: 2\r\n{'connection: close' if close else 'x: y'}\r\n\r\n"

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            for _ in range(answers):
                if not self.request.recv(4096):
                    return
                begun.append(time.perf_counter())
                while time.perf_counter() < begun[0] + stall:
                    threading.Event().wait(0.001)
                self.request.sendall(f"{head}ok".encode())
                if close:
                    return
            self.request.recv(4096)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as made:
        made.daemon_threads = True
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()
        thread.join()


def test_a_dropped_connection_is_a_failure_and_the_load_goes_on() -> None:
    with server(answers=3) as url:
        measured = load_at_rate(url, REQUESTS, rate=100, seconds=0.2, connections=1)
    assert measured.failed == 5, "of 20 requests each fourth"
    assert measured.rate > 0


def test_an_answer_that_is_no_success_is_a_failure() -> None:
    with server(status="500 Oh") as url:
        measured = load_at_rate(url, REQUESTS, rate=100, seconds=0.2)
    assert measured.failed == 20


@pytest.mark.parametrize("close", [False, True])
def test_good_answers_are_no_failures(close: bool) -> None:
    with server(close=close) as url:
        measured = load_at_rate(url, REQUESTS, rate=200, seconds=0.2, connections=2)
    assert measured.failed == 0
    assert 0 < measured.p50 <= measured.p99


def test_a_server_that_is_not_there_is_failures_only() -> None:
    measured = load_at_rate(f"http://127.0.0.1:{free_port()}", REQUESTS, rate=100, seconds=0.2)
    assert (measured.rate, measured.failed) == (0, 20)
    assert math.isnan(measured.p99)


def test_all_whom_a_stall_kept_waiting_are_charged_with_it() -> None:
    with server(stall=0.2) as url:
        measured = load_at_rate(url, REQUESTS, rate=500, seconds=0.2, connections=1)
    assert measured.failed == 0
    # the first waited 200 ms, the 50th, due at 98 ms, the rest of them; sent one after another, one had been slow
    assert measured.p50 >= 100
    assert measured.p99 >= 195


def test_the_requests_are_sent_in_turn() -> None:
    seen: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(4096):
                seen.append(data)
                self.request.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as made:
        made.daemon_threads = True
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        load_at_rate(f"http://127.0.0.1:{made.server_address[1]}", REQUESTS, rate=100, seconds=0.04, connections=1)
        made.shutdown()
        thread.join()
    assert [data.split(b" HTTP")[0] for data in seen] == [b"POST /predict", b"POST /predict?again"] * 2
    assert seen[1].endswith(b"\r\n\r\n[]")
