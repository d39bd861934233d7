"""Load on one HTTP URL over keep-alive connections: as lean as a Python client can be, for one core of its own."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools
import numpy as np
import uvloop


@dataclass(frozen=True)
class Load:
    """What a load measured.

    rate: requests per second over the whole time; p50, p99: percentiles of the latency in milliseconds.
    failed: how many answers were not 200.
    """

    rate: float
    p50: float
    p99: float
    failed: int


class _Connection(asyncio.Protocol):
    """Sends the request again as soon as its answer is complete, until the time is over."""

    def __init__(self, request: bytes, until: float, done: asyncio.Future[None]) -> None:
        self.request, self.until, self.done = request, until, done
        self.times: list[float] = []
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpResponseParser(self)
        self._send()

    def _send(self) -> None:
        self.begin = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        self.times.append(now - self.begin)
        self.failed += self.parser.get_status_code() != 200
        if now < self.until:
            self._send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def _request(url: str, body: bytes | None) -> bytes:
    """The bytes of one HTTP request."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    head = [f"{'POST' if body is not None else 'GET'} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    if body is not None:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + (body or b"")


async def _run(url: str, body: bytes | None, connections: int, seconds: float) -> Load:
    parts, request = urlsplit(url), _request(url, body)
    loop = asyncio.get_running_loop()
    begin = time.perf_counter()
    clients = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        client = _Connection(request, begin + seconds, done)
        await loop.create_connection(lambda client=client: client, str(parts.hostname), parts.port or 80)  # type: ignore[misc]
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    elapsed = time.perf_counter() - begin
    times = np.concatenate([client.times for client in clients]) * 1000
    p50, p99 = np.percentile(times, [50, 99])
    return Load(len(times) / elapsed, float(p50), float(p99), sum(client.failed for client in clients))


def load(url: str, body: bytes | None = None, connections: int = 16, seconds: float = 5.0) -> Load:
    """Send one request over and over: GET, or POST where there is a body (JSON).

    Args:
        url: an http URL on this machine.
        body: JSON.
        connections: how many, each with one request at a time.
        seconds: how long to go on.
    """
    return uvloop.run(_run(url, body, connections, seconds))
