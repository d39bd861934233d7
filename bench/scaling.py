"""How the API's requests per second change with what is asked of it, one thing at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from app.runtime.processes import free_port
from bench import wrk
from bench.load import Load, Request
from bench.models import Iris, put_into_production, synthetic, take_out_of_production
from bench.report import markdown
from bench.servers import Server
from bench.serving import DIFFERENT, requests, start
from bench.targets import OURS, TARGETS, Start
from flows.catalog import load_model

CONNECTIONS = 16
PREDICTION = '"prediction"'  # what an answer has in it
LOADS = 3  # of each point, of which the median is taken


@dataclass(frozen=True)
class Sizes:
    """The sizes that are tried of each thing, and the seconds of one load."""

    rows: Sequence[int] = (1, 3, 10, 30, 100, 300, 1000)
    features: Sequence[int] = (4, 8, 16, 32, 64, 128, 256)
    trees: Sequence[int] = (10, 30, 100, 300, 1000)
    models: Sequence[int] = (1, 2, 4, 8, 16, 32)
    connections: Sequence[int] = (1, 4, 16, 64, 256)
    seconds: int = 2


QUICK = Sizes(rows=(1, 10, 100), features=(4, 32), trees=(10, 50), models=(1, 2), connections=(1, 16), seconds=1)


@dataclass(frozen=True)
class Curve:
    """What was measured along one axis: for each size of `what` a load at 16 connections, one row, 4 features."""

    what: str
    loads: dict[int, Load]

    @property
    def exponent(self) -> float:
        """How the time per request grows with the size."""
        return exponent({size: 1 / load.rate for size, load in self.loads.items()})


def exponent(times: dict[int, float]) -> float:
    """The e of time = c * size**e that fits best: least squares on the logarithms.

    Args:
        times: by size, at least two of them; both above 0.

    Raises:
        ValueError: there are fewer than two sizes.
    """
    if len(times) < 2:
        raise ValueError("an exponent needs two sizes at least")
    slope, _ = np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)
    return float(slope)


def measure(iris: Iris, sizes: Sizes, folder: Path, tell: Callable[[str], None]) -> list[Curve]:
    """All curves. Models are registered for them in the MLflow of the environment.

    Args:
        folder: for the API's caches.
        tell: is called with what is being done.
    """
    bench = _Bench(iris, sizes.seconds, folder, tell)
    return [
        Curve("rows per request", dict(bench.rows(sizes.rows))),
        Curve("connections", dict(bench.connections(sizes.connections))),
        Curve("features", dict(bench.forests("features", [(size, size, 100) for size in sizes.features]))),
        Curve("trees", dict(bench.forests("trees", [(size, 4, size) for size in sizes.trees]))),
        Curve("models loaded", dict(bench.models(sizes.models))),
    ]


Points = Iterator[tuple[int, Load]]


class _Bench:
    def __init__(self, iris: Iris, seconds: int, folder: Path, tell: Callable[[str], None]) -> None:
        self.iris, self.seconds, self.folder, self.tell = iris, seconds, folder, tell
        self.api = next(target for target in TARGETS if target.name == OURS)

    def load(self, server: Server, asked: Sequence[Request], connections: int = CONNECTIONS) -> Load:
        """The load whose rate is the median of some."""
        loads = []
        for _ in range(LOADS):
            server.answer(asked[0], PREDICTION)  # so that it is done with what wrk did not wait for
            loads.append(wrk.load(server.base, asked, connections, self.seconds))
        rate = median(load.rate for load in loads)
        return next(load for load in loads if load.rate == rate)

    def rows(self, sizes: Sequence[int]) -> Points:
        server, _ = start(self.api, self.iris, self.folder)
        try:
            for size in sizes:
                self.tell(f"{size} rows")
                yield size, self.load(server, requests(self.api, self.iris, size))
        finally:
            server.stop()

    def connections(self, sizes: Sequence[int]) -> Points:
        server, _ = start(self.api, self.iris, self.folder)
        try:
            for size in sizes:
                self.tell(f"{size} connections")
                yield size, self.load(server, requests(self.api, self.iris, 1), size)
        finally:
            server.stop()

    def forests(self, what: str, shapes: Sequence[tuple[int, int, int]]) -> Points:
        """shapes: the size that is told, features, trees."""
        for size, features, trees in shapes:
            self.tell(f"{size} {what}")
            model, name = synthetic(features, trees), f"{what}-{size}"
            put_into_production(model, name)
            rows = model.load().drop(columns=model.target).head(DIFFERENT).to_dict("records")
            asked = [Request(f"/models/{name}/predict", json.dumps(row).encode()) for row in rows]
            server = self.start(name, asked[:1])
            try:
                yield size, self.load(server, asked)
            finally:
                server.stop()
                take_out_of_production(name)

    def models(self, sizes: Sequence[int]) -> Points:
        """Iris under so many names, asked in turn; the model itself is one of them."""
        names = ["iris"]
        for size in sizes:
            self.tell(f"{size} models")
            while len(names) < size:
                names.append(f"iris-{len(names) + 1}")
                put_into_production(load_model("iris"), names[-1])
            bodies = [request.body for request in requests(self.api, self.iris, 1)]
            paths = [f"/models/{name}/predict" for name in names]
            count = max(len(paths), len(bodies))
            asked = [Request(paths[i % len(paths)], bodies[i % len(bodies)]) for i in range(count)]
            server = self.start(f"models-{size}", asked[: len(paths)])
            try:
                yield size, self.load(server, asked)
            finally:
                server.stop()

    def start(self, name: str, asked: Sequence[Request]) -> Server:
        """An API with a cache of its own, once it answers each of the requests."""
        own = self.folder / name
        own.mkdir()
        port = free_port()
        launch = self.api.launch(Start(self.api.programs(), self.iris, port, own))
        server = Server(name, launch.command, launch.env, port, self.folder)
        try:
            for request in asked:
                server.answer(request, PREDICTION)
        except BaseException:
            server.stop()
            raise
        return server


def table(curves: Sequence[Curve]) -> str:
    """One row per curve: the exponent, and requests per second by size."""
    rows = [["what grows", "time per request grows as", "requests/s by size"]]
    for curve in curves:
        by_size = ", ".join(f"{size:,}: {load.rate:,.0f}{_failures(load)}" for size, load in curve.loads.items())
        rows.append([curve.what, f"size^{curve.exponent:.2f}", by_size])
    return markdown(rows)


def as_json(curves: Sequence[Curve], machine: dict[str, str]) -> dict[str, Any]:
    """All curves. Rates in requests/s, latencies in ms."""
    return {
        "machine": machine,
        "connections": CONNECTIONS,
        "curves": {
            curve.what: {
                "exponent": round(curve.exponent, 3),
                "loads": {
                    str(size): {"rate": round(load.rate, 1), "p50": load.p50, "p99": load.p99, "failed": load.failed}
                    for size, load in curve.loads.items()
                },
            }
            for curve in curves
        },
    }


def _failures(load: Load) -> str:
    return f" ({load.failed:,} FAILED)" if load.failed else ""
