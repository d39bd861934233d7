"""A steady load on the platform's ingress, of which every answer counts."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlencode

from flows.models import iris

FLOWER = "/predict?sepal_length=5.1&sepal_width=3.5&petal_length=1.4&petal_width=0.2"
ADDRESS = ("127.0.0.1", 8080)
TIMEOUT = 10  # seconds for one answer


@dataclass(frozen=True)
class Answer:
    """What came back: when (monotonic seconds), after how many seconds, with which status (0: nothing) and body."""

    at: float
    took: float
    status: int
    body: str

    @property
    def version(self) -> str:
        return str(json.loads(self.body)["version"])


def flowers() -> list[str]:
    """Questions about every row that iris was trained on: all of them together are no drift, and start no training."""
    return [f"/predict?{urlencode(row)}" for row in iris.load().drop(columns="species").to_dict(orient="records")]


class Load:
    """Ask questions in turn at a constant rate over connections that are kept alive, while the `with` block runs.

    Args:
        paths: of the questions; by default those about all flowers.
        rate: requests per second, of all connections together.
    """

    def __init__(self, host: str, paths: Sequence[str] = (), rate: float = 100, connections: int = 8) -> None:
        self.host, self.rate, self.connections = host, rate, connections
        self._paths = itertools.cycle(paths or flowers())
        self.answers: list[Answer] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(connections)]

    def __enter__(self) -> Load:
        self.begun = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.seconds = time.monotonic() - self.begun

    def _run(self, number: int) -> None:
        pause = self.connections / self.rate
        due = self.begun + pause * number / self.connections
        connection = http.client.HTTPConnection(*ADDRESS, timeout=TIMEOUT)
        while not self._over.wait(max(0.0, due - time.monotonic())):
            self.answers.append(self._ask(connection))
            due = max(due + pause, time.monotonic() - 1)  # a second's backlog is made up for, more is not
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> Answer:
        sent = time.monotonic()
        try:
            connection.request("GET", next(self._paths), headers={"Host": self.host})
            response = connection.getresponse()
            status, body = response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            status, body = 0, f"{type(error).__name__}: {error}"
            connection.close()  # the next request opens another
        now = time.monotonic()
        return Answer(now, now - sent, status, body)

    def saw(self, wanted: Callable[[Answer], bool], since: float = 0.0) -> bool:
        """Whether there was such an answer to a request since."""
        return any(answer.at - answer.took >= since and wanted(answer) for answer in list(self.answers))

    def check(self) -> None:
        """Every answer was a 200, and the load was what it was meant to be."""
        answers = sorted(self.answers, key=lambda answer: answer.at)
        failed = [answer for answer in answers if answer.status != 200]
        took = sorted(answer.took * 1000 for answer in answers)
        rate = len(answers) / self.seconds
        p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
        said = f"{len(answers)} requests in {self.seconds:.0f} s ({rate:.0f}/s), {len(failed)} failed"
        print(f"{said}; p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {took[-1]:.0f} ms")
        first = "\n".join(f"  at {a.at - self.begun:6.1f} s: {a.status} {a.body[:300]}" for a in failed[:10])
        assert not failed, f"{said}, the first ten:\n{first}"
        assert rate > 0.7 * self.rate, f"{said}: too few for what this is about"
