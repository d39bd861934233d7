"""The threads that work on large bodies and slow models, so that the event loop turns meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.api.errors import Refusal
from app.api.served_models import RETRY_AFTER

MAX_WAITING = 32 * 1024 * 1024  # bytes of the bodies that are worked on or wait for it
OVERHEAD = 2048  # bytes that a request without a body takes

T = TypeVar("T")


class Workers:
    """A few threads, and the requests that wait for one; how much these hold is bounded."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="predict")
        self._bytes = 0

    async def run(self, size: int, work: Callable[..., T], *args: object) -> T:
        """What `work(*args)` returns, from a thread; called on the event loop.

        Args:
            size: bytes of the request's body.

        Raises:
            Refusal: 503, so much waits already that this would take too much memory.
        """
        size += OVERHEAD
        if self._bytes + size > MAX_WAITING:
            raise Refusal(503, "too many large or slow requests wait already: send it again", RETRY_AFTER)
        self._bytes += size
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        finally:
            self._bytes -= size

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
