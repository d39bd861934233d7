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
    """requests per second over the whole time; p50 and p99 in milliseconds; failed: answers that were not 200."""

    rate: float
    p50: float
    p99: float
    failed: int


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, until: float, done: asyncio.Future[None]) -> None:
        self.request, self.until, self.done = request, until, done
        self.times: list[float] = []
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpResponseParser(self)
        self._send()

    def _send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        self.times.append(now - self.sent)
        self.failed += self.parser.get_status_code() != 200
        if now < self.until:
            self._send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _run(url: str, body: bytes | None, connections: int, seconds: float) -> Load:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    head = [f"{'POST' if body is not None else 'GET'} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    if body is not None:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    request = ("\r\n".join(head) + "\r\n\r\n").encode() + (body or b"")
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    clients = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        made = _Connection(request, begun + seconds, done)
        await loop.create_connection(lambda made=made: made, str(parts.hostname), parts.port or 80)  # type: ignore[misc]
        clients.append(made)
    await asyncio.gather(*(client.done for client in clients))
    took = time.perf_counter() - begun
    times = np.concatenate([client.times for client in clients]) * 1000
    p50, p99 = np.percentile(times, [50, 99])
    return Load(len(times) / took, float(p50), float(p99), sum(client.failed for client in clients))


def load(url: str, body: bytes | None = None, connections: int = 16, seconds: float = 5.0) -> Load:
    """Send one request over and over: GET, or POST where there is a body (JSON).

    Args:
        url: on this machine.
        seconds: how long.
    """
    return uvloop.run(_run(url, body, connections, seconds))
