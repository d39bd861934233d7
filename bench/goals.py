"""What the API must reach beside the other servers, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.report import medians
from bench.serving import Case, Result, Round
from bench.targets import OURS

STOCK = ("mlflow", "mlserver", "bentoml", "litserve", "kserve")  # as they come
ONE_ROW, HUNDRED_ROWS = Case(1, 16), Case(100, 16)
# API's requests/s over those of: at 1 row and 16 connections
TIMES = {**dict.fromkeys(STOCK, 100.0), "mlserver-onnx": 4.0, "fastapi": 1.4, "asgi": 0.35}
TIMES_BEST_STOCK = 15.0  # at 100 rows and 16 connections
TIMES_LATENCY = 3.0  # p99 at 1,000 requests/s over that of raw ASGI
SECONDS_TO_START = 0.6
MEGABYTES = 100.0


@dataclass(frozen=True)
class Goal:
    """A figure that is to be reached: at least `bound`, or at most where is_most; in `unit`."""

    what: str
    measured: float
    bound: float
    unit: str
    is_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether it is."""
        return self.measured <= self.bound if self.is_most else self.measured >= self.bound

    def row(self) -> tuple[str, str, str, str]:
        """For a table: what, goal, measured, reached."""
        goal = f"at {'most' if self.is_most else 'least'} {self.bound:g}{self.unit}"
        return self.what, goal, f"{self.measured:.3g}{self.unit}", "yes" if self.reached else "**no**"


HEAD = ("goal", "wanted", "measured", "reached")


def goals(results: Sequence[Result]) -> list[Goal]:
    """The goals whose servers were measured; none without the API."""
    measured = {result.target.name: medians(result) for result in results if result.rounds}
    labels = {result.target.name: result.target.label for result in results}
    return list(_goals(measured, labels)) if OURS in measured else []


def _goals(measured: dict[str, Round], labels: dict[str, str]) -> Iterator[Goal]:
    ours = measured[OURS]
    for name, bound in TIMES.items():
        if name in measured:
            times = ours.loads[ONE_ROW].rate / measured[name].loads[ONE_ROW].rate
            yield Goal(f"{ONE_ROW}: requests/s against {labels[name]}", times, bound, "×")
    if stock := [measured[name].loads[HUNDRED_ROWS].rate for name in STOCK if name in measured]:
        times = ours.loads[HUNDRED_ROWS].rate / max(stock)
        yield Goal(f"{HUNDRED_ROWS}: requests/s against the best as it comes", times, TIMES_BEST_STOCK, "×")
    asgi = measured.get("asgi")
    if asgi and asgi.at_rate and ours.at_rate:
        times = ours.at_rate.p99 / asgi.at_rate.p99
        yield Goal("p99 at 1,000 requests/s over raw ASGI's", times, TIMES_LATENCY, "×", is_most=True)
    yield Goal("start to the first prediction, from the cache", ours.start, SECONDS_TO_START, " s", is_most=True)
    yield Goal("memory after the load", ours.memory, MEGABYTES, " MB", is_most=True)
