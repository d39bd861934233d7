"""Micro-batching: requests that come while others are predicted are predicted together, as the next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from app.api.row_decoder import Row
from app.api.workers import Workers
from app.registry.predictor import Predictions

MAX_BATCH = 256  # rows, or one request with more


class _Waiting(NamedTuple):
    rows: list[Row]
    size: int
    done: asyncio.Future[Predictions]


Result = Predictions | Exception


class Batcher:
    """Predicts for one model. All but the prediction itself of a slow model is on the event loop.

    Nothing waits for a batch to fill: the first request is predicted as soon as the loop has read what else has
    arrived, and what comes meanwhile is the next batch.

    Args:
        predict: predicts rows, which came in bodies of so many bytes; called in a thread where the model is slow.
        in_thread: whether it is.
    """

    def __init__(self, predict: Callable[[list[Row], int], Predictions], in_thread: bool) -> None:
        self._predict, self._in_thread = predict, in_thread
        self._waiting: deque[_Waiting] = deque()
        self._busy = False
        self._loop: asyncio.AbstractEventLoop | None = None  # looked up once, as that is a system call

    async def predict(self, rows: list[Row], size: int, workers: Workers) -> Predictions:
        """The predictions for rows, which may be predicted with those of other requests.

        Args:
            size: bytes of the request's body.

        Raises:
            Refusal: 503, so much waits already that this would take too much memory.
            Exception: what `predict` raises for these rows alone.
        """
        workers.reserve(size)
        try:
            loop = self._loop = self._loop or asyncio.get_running_loop()
            done: asyncio.Future[Predictions] = loop.create_future()
            self._waiting.append(_Waiting(rows, size, done))
            if not self._busy:
                self._busy = True
                loop.call_soon(self._begin, loop, workers)
            return await done
        finally:
            workers.release(size)

    def _begin(self, loop: asyncio.AbstractEventLoop, workers: Workers) -> None:
        """Predict the next batch."""
        waiting = self._waiting
        batch = [waiting.popleft()]
        number = len(batch[0].rows)
        while waiting and number + len(waiting[0].rows) <= MAX_BATCH:
            batch.append(waiting.popleft())
            number += len(batch[-1].rows)
        if not self._in_thread:
            self._end(batch, self._results(batch), loop, workers)
            return
        job = loop.run_in_executor(workers.pool, self._results, batch)
        job.add_done_callback(lambda job: self._end(batch, _outcome(job, batch), loop, workers))

    def _end(
        self, batch: list[_Waiting], results: list[Result], loop: asyncio.AbstractEventLoop, workers: Workers
    ) -> None:
        """Hand out the results, and go on."""
        for waiting, result in zip(batch, results, strict=True):
            if waiting.done.done():  # its request is gone
                continue
            if isinstance(result, Exception):
                waiting.done.set_exception(result)
            else:
                waiting.done.set_result(result)
        if self._waiting:
            loop.call_soon(self._begin, loop, workers)
        else:
            self._busy = False

    def _results(self, batch: list[_Waiting]) -> list[Result]:
        """What each request of a batch gets; a request that cannot be predicted fails alone."""
        if len(batch) == 1:
            return [self._alone(batch[0])]
        try:
            rows = [row for waiting in batch for row in waiting.rows]
            labels, probabilities = self._predict(rows, sum(waiting.size for waiting in batch))
        except Exception:
            return [self._alone(waiting) for waiting in batch]
        results: list[Result] = []
        begin = 0
        for waiting in batch:
            end = begin + len(waiting.rows)
            results.append(Predictions(labels[begin:end], None if probabilities is None else probabilities[begin:end]))
            begin = end
        return results

    def _alone(self, waiting: _Waiting) -> Result:
        try:
            return self._predict(waiting.rows, waiting.size)
        except Exception as error:
            return error


def _outcome(job: asyncio.Future[list[Result]], batch: list[_Waiting]) -> list[Result]:
    """A batch's results; the same error for all where the thread could not do it."""
    if job.cancelled():
        return [RuntimeError("the API is shutting down")] * len(batch)
    error = job.exception()
    if error is not None:
        return [error if isinstance(error, Exception) else RuntimeError(str(error))] * len(batch)
    return job.result()
