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

PAUSE = 0.05  # seconds after a connection that was refused


@dataclass(frozen=True)
class Load:
    """What a load measured.

    rate: requests per second over the whole time; p50, p99: percentiles of the latency in milliseconds.
    failed: how many answers were not 200, and how many requests got none: a connection that is dropped is opened again.
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
        self.is_waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpResponseParser(self)
        self._send()

    def _send(self) -> None:
        self.is_waiting = True
        self.begin = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.is_waiting = False
        now = time.perf_counter()
        self.times.append(now - self.begin)
        self.failed += self.parser.get_status_code() != 200
        if now < self.until:
            self._send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed += self.is_waiting
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


async def _keep_sending(url: str, request: bytes, until: float) -> tuple[list[float], int]:
    """Send the request over one connection after another, until the time is over; returns durations and failures."""
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    times: list[float] = []
    failed = 0
    while time.perf_counter() < until:
        client = _Connection(request, until, loop.create_future())
        try:
            await loop.create_connection(lambda client=client: client, str(parts.hostname), parts.port or 80)  # type: ignore[misc]
            await client.done
        except OSError:
            failed += 1
            await asyncio.sleep(PAUSE)
        times += client.times
        failed += client.failed
    return times, failed


async def _run(url: str, body: bytes | None, connections: int, seconds: float) -> Load:
    request = _request(url, body)
    begin = time.perf_counter()
    results = await asyncio.gather(*(_keep_sending(url, request, begin + seconds) for _ in range(connections)))
    elapsed = time.perf_counter() - begin
    times = np.concatenate([times for times, _ in results]) * 1000
    p50, p99 = np.percentile(times, [50, 99]) if len(times) else (np.nan, np.nan)
    return Load(len(times) / elapsed, float(p50), float(p99), sum(failed for _, failed in results))


def load(url: str, body: bytes | None = None, connections: int = 16, seconds: float = 5.0) -> Load:
    """Send one request over and over: GET, or POST where there is a body (JSON).

    Args:
        url: an http URL on this machine.
        body: JSON.
        connections: how many, each with one request at a time.
        seconds: how long to go on.
    """
    return uvloop.run(_run(url, body, connections, seconds))
