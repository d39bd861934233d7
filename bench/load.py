"""Load at a rate, as users are: each request is sent when it is due, however slow the answers before it are.

A latency is counted from the time when the request was due, so one that had to wait for a connection counts its wait: a
server that stalls is charged for all whom it kept waiting, not for one of them (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools
import numpy as np
import uvloop

PAUSE = 0.05  # seconds after a connection that was refused
GRACE = 10.0  # seconds that the last answers may take


@dataclass(frozen=True)
class Request:
    """A POST of JSON. path: with its query; body: on one line."""

    path: str
    body: bytes


@dataclass(frozen=True)
class Load:
    """What a load measured.

    rate: answers per second; p50, p99: percentiles of the latency in milliseconds, NaN without answers.
    failed: how many answers were not good, and how many requests got none.
    """

    rate: float
    p50: float
    p99: float
    failed: int


class _Connection(asyncio.Protocol):
    """One request at a time; tells `sender` when it is free for another."""

    def __init__(self, sender: _Sender) -> None:
        self.sender = sender
        self.due: float | None = None  # of the request that waits for its answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpResponseParser(self)
        self.sender.connected(self)

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        assert self.due is not None
        self.sender.answered(self.due, self.parser.get_status_code() // 100 == 2)
        self.due = None
        if self.parser.should_keep_alive():
            self.sender.is_free(self)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.sender.disconnected(self)


class _Sender:
    """Sends requests in turn over the connections that are free, first due first; a lost connection is opened again."""

    def __init__(self, base: str, requests: Sequence[Request]) -> None:
        self.address = urlsplit(base)
        self.requests = itertools.cycle([_as_bytes(self.address.netloc, request) for request in requests])
        self.waiting: deque[float] = deque()  # when each was due
        self.free: deque[_Connection] = deque()
        self.opening: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.is_refused = False  # the server is not there
        self.times: list[float] = []  # seconds, of each answer
        self.bad = self.lost = 0  # answers that are no success; requests whose connection was dropped

    def connect(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect())
        self.opening.add(task)
        task.add_done_callback(self.opening.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.create_connection(
                    lambda: _Connection(self), str(self.address.hostname), self.address.port or 80
                )
                return
            except OSError:
                self.is_refused = True
                await asyncio.sleep(PAUSE)

    def offer(self, due: float) -> None:
        self.waiting.append(due)
        self._send()

    def _send(self) -> None:
        while self.waiting and self.free:
            self.free.popleft().send(next(self.requests), self.waiting.popleft())

    def connected(self, connection: _Connection) -> None:
        self.connections += 1
        self.is_refused = False
        self.is_free(connection)

    def is_free(self, connection: _Connection) -> None:
        self.free.append(connection)
        self._send()

    def answered(self, due: float, is_good: bool) -> None:
        self.times.append(time.perf_counter() - due)
        self.bad += not is_good

    def disconnected(self, connection: _Connection) -> None:
        self.connections -= 1
        if connection in self.free:
            self.free.remove(connection)
        self.lost += connection.due is not None
        self.connect()

    def is_done(self, count: int) -> bool:
        """Whether nothing is to be expected any more of so many requests."""
        return len(self.times) + self.lost >= count or (self.is_refused and not self.connections)

    def stop(self) -> None:
        for task in self.opening:
            task.cancel()


def _as_bytes(host: str, request: Request) -> bytes:
    """An HTTP request, as it is sent."""
    head = f"POST {request.path} HTTP/1.1\r\nHost: {host}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(request.body)}\r\n\r\n"
    return head.encode() + request.body


async def _offer(base: str, requests: Sequence[Request], rate: float, seconds: float, connections: int) -> Load:
    sender = _Sender(base, requests)
    for _ in range(connections):
        sender.connect()
    while not sender.free and not sender.is_refused:
        await asyncio.sleep(0)
    count = round(rate * seconds)
    begin = time.perf_counter()
    for i in range(count):
        due = begin + i / rate
        # no timer, as the event loop's are of whole milliseconds: this process has a core of its own
        while time.perf_counter() < due:
            await asyncio.sleep(0)
        sender.offer(due)
    until = time.perf_counter() + GRACE
    while not sender.is_done(count) and time.perf_counter() < until:
        await asyncio.sleep(0)
    elapsed = time.perf_counter() - begin
    sender.stop()
    times = np.array(sender.times) * 1000
    p50, p99 = np.percentile(times, [50, 99]) if len(times) else (np.nan, np.nan)
    return Load(len(times) / elapsed, float(p50), float(p99), count - len(times) + sender.bad)


def load_at_rate(
    base: str, requests: Sequence[Request], rate: float = 1000.0, seconds: float = 5.0, connections: int = 64
) -> Load:
    """Send the requests in turn, so many a second, evenly.

    Args:
        base: http://host:port, of this machine.
        rate: requests per second.
        connections: how many may wait for their answers at once; what is due beyond that waits, which counts.
    """
    gc.disable()  # its pauses would be the server's
    try:
        return uvloop.run(_offer(base, requests, rate, seconds, connections))
    finally:
        gc.enable()
