"""Stores feedback in MLflow, many requests with one upload."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from app.api.errors import RETRY_AFTER, Refusal
from app.clients.mlflow import MlflowClient, MlflowError
from app.registry import feedback_store

MAX_PENDING = 20_000  # rows waiting to be stored
MAX_PENDING_BYTES = 16 * 1024 * 1024  # of the bodies that they came in; in memory they are some times as large

log = logging.getLogger("mlops.feedback")


class _Pending(NamedTuple):
    """Rows of one model that one request waits for. size: their share of its body, in bytes."""

    model: str
    rows: list[feedback_store.Row]
    size: int
    done: asyncio.Future[None]


class Committer:
    """Group commit: what comes in while one upload is under way goes with the next one, one file per model.

    Runs on the event loop; the upload itself is in a thread of its own. After every so many uploads the store is
    compacted, in another thread that may end at any time: nobody waits for it.
    """

    def __init__(self, registry: MlflowClient) -> None:
        self.registry = registry
        self._pending: list[_Pending] = []
        self._rows = self._bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feedback")
        self._task: asyncio.Task[None] | None = None
        self._uploads: Counter[str] = Counter()  # by model
        self._compacting: threading.Thread | None = None

    def start(self) -> None:
        """Begin to store; from within the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Store what is pending, then stop."""
        self._closing = True
        self._wake.set()
        if self._task:
            await self._task
        self._thread.shutdown()

    async def put(self, rows: dict[str, list[feedback_store.Row]], size: int) -> None:
        """Store rows by model; returns once MLflow has all of them.

        Args:
            size: bytes of the body that they came in.

        Raises:
            Refusal: 503, and any of them may not be stored.
        """
        count = sum(map(len, rows.values()))
        is_full = self._rows + count > MAX_PENDING or self._bytes + size > MAX_PENDING_BYTES
        if self._closing or is_full:
            why = "the API is shutting down" if self._closing else "too much feedback waits to be stored"
            raise Refusal(503, f"{why}: nothing of this request was stored, send it again", RETRY_AFTER)
        loop = asyncio.get_running_loop()
        pending = [
            _Pending(model, some, size * len(some) // count, loop.create_future()) for model, some in rows.items()
        ]
        self._pending += pending
        self._rows += count
        self._bytes += sum(part.size for part in pending)
        self._wake.set()
        results = await asyncio.gather(*(part.done for part in pending), return_exceptions=True)
        errors = [result for result in results if result is not None]
        if errors:
            message = f"the feedback could not be stored, send it again: {errors[0]}"
            raise Refusal(503, message, RETRY_AFTER) from errors[0]

    async def _run(self) -> None:
        while self._pending or not self._closing:
            if not self._pending:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch, self._pending = self._pending, []
            by_model: dict[str, list[_Pending]] = {}
            for pending in batch:
                by_model.setdefault(pending.model, []).append(pending)
            for model, parts in by_model.items():
                await self._store(model, parts)

    async def _store(self, model: str, parts: list[_Pending]) -> None:
        """Store what waits for one model as one file, and tell those who wait."""
        rows = [row for part in parts for row in part.rows]
        loop = asyncio.get_running_loop()
        error: Exception | None = None
        try:
            await loop.run_in_executor(self._thread, feedback_store.store, self.registry, model, rows)
        except Exception as failure:  # the waiters must hear of whatever it is
            error = failure
            is_expected = isinstance(failure, MlflowError)
            log.error("%d labels for %s were not stored: %s", len(rows), model, error, exc_info=not is_expected)
        else:
            self._compact_now_and_then(model)
        self._rows -= len(rows)
        self._bytes -= sum(part.size for part in parts)
        for part in parts:
            if not part.done.done():  # done when the client went away
                part.done.set_exception(error) if error else part.done.set_result(None)

    def _compact_now_and_then(self, model: str) -> None:
        """Compact at the first upload, for what earlier processes left, and then after as many as make it worth it."""
        due = self._uploads[model] % feedback_store.COMPACT_AT == 0
        if due and self._compacting and self._compacting.is_alive():
            return  # at the next upload
        self._uploads[model] += 1
        if due:
            self._compacting = threading.Thread(target=self._compact, args=(model,), name="compaction", daemon=True)
            self._compacting.start()

    def _compact(self, model: str) -> None:
        try:
            done = feedback_store.compact(self.registry, model)
        except Exception as error:  # it is as good without, until the next time
            log.warning("the feedback on %s was not compacted: %s", model, error)
        else:
            if done:
                log.info("compacted the feedback on %s: %d runs", model, done)
