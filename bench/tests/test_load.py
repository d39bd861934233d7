"""The load generator counts what went wrong."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.runtime.processes import free_port
from bench.load import load


@contextmanager
def server(answers: int, status: str = "200 OK") -> Iterator[str]:
    """The URL of a server that drops each connection after so many answers, with the next request unanswered."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            for _ in range(answers):
                if not self.request.recv(4096):
                    return
                self.request.sendall(f"HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok".encode())
            self.request.recv(4096)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as made:
        made.daemon_threads = True
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_address[1]}/"
        made.shutdown()
        thread.join()


def test_a_dropped_connection_is_a_failure_and_the_load_goes_on() -> None:
    with server(answers=3) as url:
        measured = load(url, connections=1, seconds=0.5)
    assert measured.failed >= 1
    assert measured.rate * 0.5 > 3, "it has opened another connection"


def test_an_answer_other_than_200_is_a_failure() -> None:
    with server(answers=10**9, status="500 Oh") as url:
        measured = load(url, connections=2, seconds=0.2)
    assert measured.failed >= 2


def test_good_answers_are_no_failures() -> None:
    with server(answers=10**9) as url:
        measured = load(url, connections=2, seconds=0.2)
    assert (measured.failed, measured.rate > 0) == (0, True)


def test_a_server_that_is_not_there_is_failures_only() -> None:
    measured = load(f"http://127.0.0.1:{free_port()}/", connections=2, seconds=0.2)
    assert measured.rate == 0
    assert measured.failed >= 2
