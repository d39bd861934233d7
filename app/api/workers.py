"""The threads that work on large bodies and slow models, so that the event loop turns meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.api.errors import RETRY_AFTER, Refusal

MAX_WAITING = 32 * 1024 * 1024  # bytes of the bodies that are worked on or wait for it
OVERHEAD = 2048  # bytes that a request without a body takes

T = TypeVar("T")


class Workers:
    """A few threads, and the requests that wait for a prediction; how much these hold is bounded."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(4, thread_name_prefix="predict")
        self._bytes = 0

    def reserve(self, size: int) -> None:
        """Count the bytes of a request's body as held, until `release`.

        Raises:
            Refusal: 503, so much is held already that this would take too much memory.
        """
        total = self._bytes + size + OVERHEAD
        if total > MAX_WAITING:
            raise Refusal(503, "too many large or slow requests wait already: send it again", RETRY_AFTER)
        self._bytes = total

    def release(self, size: int) -> None:
        """Undo `reserve`."""
        self._bytes -= size + OVERHEAD

    async def run(self, size: int, work: Callable[..., T], *args: object) -> T:
        """What `work(*args)` returns, from a thread; called on the event loop.

        Args:
            size: bytes of the request's body.

        Raises:
            Refusal: 503, as `reserve`.
        """
        self.reserve(size)
        try:
            return await asyncio.get_running_loop().run_in_executor(self.pool, work, *args)
        finally:
            self.release(size)

    def close(self) -> None:
        """Begin nothing more."""
        self.pool.shutdown(wait=False, cancel_futures=True)
