from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.api.batching import MAX_BATCH, Batcher
from app.api.errors import Refusal
from app.api.row_decoder import Row
from app.api.workers import MAX_WAITING, Workers
from app.registry.predictor import Predictions


class Model:
    """Says of each row what its first value is; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go = threading.Event()
        self.go.set()

    def predict(self, rows: list[Row], _: int) -> Predictions:
        self.go.wait(30)
        self.batches.append(len(rows))
        if any(row[0] == "bad" for row in rows):
            raise ValueError("bad")
        return Predictions([row[0] for row in rows], [[row[0]] for row in rows])


def run(work: Callable[[Model, Workers, Batcher], Any], in_thread: bool = False) -> None:
    async def go() -> None:
        model, workers = Model(), Workers()
        await work(model, workers, Batcher(model.predict, in_thread))
        assert workers._bytes == 0, "all that was held is given back"
        workers.close()

    asyncio.run(go())


@pytest.mark.parametrize("in_thread", [False, True])
def test_requests_that_come_together_are_predicted_together(in_thread: bool) -> None:
    async def work(model: Model, workers: Workers, batcher: Batcher) -> None:
        sizes = [1, 3, 2, 1] * 20
        rows = [[(f"{i}-{j}",) for j in range(size)] for i, size in enumerate(sizes)]
        results = await asyncio.gather(*(batcher.predict(some, 100, workers) for some in rows))
        for some, result in zip(rows, results, strict=True):
            assert result.labels == [row[0] for row in some]
            assert result.probabilities == [[row[0]] for row in some]
        assert len(model.batches) < 5
        assert sum(model.batches) == sum(sizes)

    run(work, in_thread)


def test_one_that_comes_alone_waits_for_no_other() -> None:
    async def work(model: Model, workers: Workers, batcher: Batcher) -> None:
        assert (await batcher.predict([("a",)], 1, workers)).labels == ["a"]
        assert (await batcher.predict([("b",)], 1, workers)).labels == ["b"]
        assert model.batches == [1, 1]

    run(work)


def test_what_comes_while_a_slow_batch_runs_is_the_next_one() -> None:
    async def work(model: Model, workers: Workers, batcher: Batcher) -> None:
        model.go.clear()
        first = asyncio.ensure_future(batcher.predict([("first",)], 1, workers))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        others = [asyncio.ensure_future(batcher.predict([(str(i),)], 1, workers)) for i in range(50)]
        await asyncio.sleep(0)
        model.go.set()
        assert (await first).labels == ["first"]
        assert [result.labels for result in await asyncio.gather(*others)] == [[str(i)] for i in range(50)]
        assert model.batches == [1, 50]

    run(work, in_thread=True)


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_request_that_fails_fails_alone(in_thread: bool) -> None:
    async def work(model: Model, workers: Workers, batcher: Batcher) -> None:
        rows = ["a", "bad", "c"]
        results = await asyncio.gather(
            *(batcher.predict([(value,)], 1, workers) for value in rows), return_exceptions=True
        )
        assert [getattr(result, "labels", str(result)) for result in results] == [["a"], "bad", ["c"]]

    run(work, in_thread)


def test_a_batch_has_a_most_of_rows() -> None:
    async def work(model: Model, workers: Workers, batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.predict([("a",)] * 100, 1, workers) for _ in range(9)))
        assert max(model.batches) <= MAX_BATCH
        assert sum(model.batches) == 900

    run(work)


def test_more_than_may_wait_is_503() -> None:
    async def work(model: Model, workers: Workers, batcher: Batcher) -> None:
        model.go.clear()
        half = asyncio.ensure_future(batcher.predict([("a",)], MAX_WAITING // 2, workers))
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await batcher.predict([("b",)], MAX_WAITING // 2, workers)
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "5"})
        model.go.set()
        assert (await half).labels == ["a"]

    run(work, in_thread=True)


def test_a_request_that_is_gone_stops_no_other() -> None:
    async def work(model: Model, workers: Workers, batcher: Batcher) -> None:
        gone = asyncio.ensure_future(batcher.predict([("a",)], 1, workers))
        other = asyncio.ensure_future(batcher.predict([("b",)], 1, workers))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await other).labels == ["b"]
        assert (await batcher.predict([("c",)], 1, workers)).labels == ["c"]

    run(work)
