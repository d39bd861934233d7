"""A steady load on the platform's ingress, of which every answer counts."""

from __future__ import annotations

import http.client
import itertools
import json
import select
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlencode

from flows.models import iris

FLOWER = "/predict?sepal_length=5.1&sepal_width=3.5&petal_length=1.4&petal_width=0.2"
ADDRESS = ("127.0.0.1", 8080)
TIMEOUT = 10  # seconds for one answer


@dataclass(frozen=True)
class Answer:
    """One answer, or what there was instead.

    at: when it came, in monotonic seconds; seconds: how long it took.
    status: of HTTP, 0 where no answer came; body: of the answer, or the error.
    """

    at: float
    seconds: float
    status: int
    body: str

    @property
    def sent(self) -> float:
        """When its request was sent, in monotonic seconds."""
        return self.at - self.seconds

    @property
    def version(self) -> str:
        """The model version that answered."""
        return str(json.loads(self.body)["version"])


def flowers() -> list[str]:
    """Requests for every row that iris was trained on: all of them together are no drift, and start no training."""
    return [f"/predict?{urlencode(row)}" for row in iris.load().drop(columns="species").to_dict(orient="records")]


class Load:
    """Send requests in turn at a constant rate over connections that are kept alive, while the `with` block runs.

    Args:
        host: value of the Host header.
        paths: of the requests; by default those for all flowers.
        rate: requests per second, of all connections together.
    """

    def __init__(self, host: str, paths: Sequence[str] = (), rate: float = 100, connections: int = 8) -> None:
        self.host, self.rate, self.connections = host, rate, connections
        self._paths = itertools.cycle(paths or flowers())
        self.answers: list[Answer] = []
        self.sent_again = 0  # over a new connection, as the old one was closed
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(connections)]

    def __enter__(self) -> Load:
        self.begin = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self.seconds = time.monotonic() - self.begin

    def _run(self, number: int) -> None:
        pause = self.connections / self.rate
        due = self.begin + pause * number / self.connections
        connection = http.client.HTTPConnection(*ADDRESS, timeout=TIMEOUT)
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            self.answers.append(self._answer(connection))
            due = max(due + pause, time.monotonic() - 1)  # a second's backlog is made up for, more is not
        connection.close()

    def _answer(self, connection: http.client.HTTPConnection) -> Answer:
        begin, path = time.monotonic(), next(self._paths)
        if connection.sock and select.select([connection.sock], [], [], 0)[0]:
            connection.close()  # by the other side since the last answer, as it may; every client looks
        was_open = connection.sock is not None
        try:
            try:
                status, body = self._ask(connection, path)
            except (http.client.RemoteDisconnected, ConnectionResetError):
                if not was_open:
                    raise
                # Closed while the request was on its way: RFC 9112, 9.3.1, has clients send a GET again, and they do.
                connection.close()
                status, body = self._ask(connection, path)
                self.sent_again += 1
        except (OSError, http.client.HTTPException) as error:
            status, body = 0, f"{type(error).__name__}: {error}"
            connection.close()  # the next request opens another
        now = time.monotonic()
        return Answer(now, now - begin, status, body)

    def _ask(self, connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
        """Status and body."""
        connection.request("GET", path, headers={"Host": self.host})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")

    def check(self) -> None:
        """Fail unless every answer was a 200, and the rate was what it was meant to be."""
        answers = sorted(self.answers, key=lambda answer: answer.at)
        failed = [answer for answer in answers if answer.status != 200]
        times = sorted(answer.seconds * 1000 for answer in answers)
        rate = len(answers) / self.seconds
        p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
        summary = f"{len(answers)} requests in {self.seconds:.0f} s ({rate:.0f}/s), {len(failed)} failed"
        print(
            f"{summary}, {self.sent_again} sent again; p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {times[-1]:.0f} ms"
        )
        first = "\n".join(f"  at {a.at - self.begin:6.1f} s: {a.status} {a.body[:300]}" for a in failed[:10])
        assert not failed, f"{summary}, the first ten:\n{first}"
        assert rate > 0.7 * self.rate, f"{summary}: too few for what this is about"
