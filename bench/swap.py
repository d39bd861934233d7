"""What a promotion costs those who ask meanwhile: loads in which the API changes to another version, and usual ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from app.clients.mlflow import PRODUCTION, MlflowClient
from app.runtime.processes import free_port
from bench import wrk
from bench.load import Load, Request
from bench.models import Iris, put_into_production
from bench.report import markdown
from bench.servers import Server
from bench.serving import requests
from bench.targets import OURS, TARGETS, Start
from flows.catalog import load_model

CONNECTIONS = 16
POLL_SECONDS = 1  # of the API, between two looks at MLflow: so it changes in the first second of a load
SECONDS = 2  # of a load
GOAL = 2.0  # p99 of loads with a swap over that of usual ones


@dataclass(frozen=True)
class Swaps:
    """usual: loads without a swap; swapped: those in which the API changed to another version."""

    usual: list[Load]
    swapped: list[Load]

    @property
    def ratio(self) -> float:
        """The median p99 with a swap over the usual one."""
        return median(load.p99 for load in self.swapped) / median(load.p99 for load in self.usual)

    def table(self) -> str:
        """One row per kind of load, and the ratio."""
        rows = [["load", "loads", "requests/s", "p50", "p99", "failed"]]
        for what, loads in (("usual", self.usual), ("with a swap", self.swapped)):
            middle = {name: median(getattr(load, name) for load in loads) for name in ("rate", "p50", "p99")}
            figures = (f"{middle['rate']:,.0f}/s", f"{middle['p50']:.2f} ms", f"{middle['p99']:.2f} ms")
            rows.append([what, str(len(loads)), *figures, str(sum(load.failed for load in loads))])
        return f"{markdown(rows)}\n\np99 over a swap: {self.ratio:.1f} times the usual one, wanted at most {GOAL:g}"


def measure(iris: Iris, rounds: int, folder: Path, tell: Callable[[str], None]) -> Swaps:
    """Measure so many loads of each kind, in turns, of 16 connections and one row.

    Args:
        folder: for the API's cache.
        tell: is called with what is being done.

    Raises:
        bench.servers.NotMeasured: the API does not start, or did not change to the other version within a load.
    """
    first, second = "1", put_into_production(load_model("iris"), "iris").version
    target = next(target for target in TARGETS if target.name == OURS)
    port = free_port()
    launch = target.launch(Start(target.programs(), iris, port, folder))
    env = {**launch.env, "MLOPS_POLL_SECONDS": str(POLL_SECONDS)}
    server = Server("swap", launch.command, env, port, folder)
    asked = requests(target, iris, 1)
    swaps = Swaps([], [])
    try:
        _await_version(server, asked[0], second)
        wrk.load(server.base, asked, CONNECTIONS, SECONDS)
        for number in range(rounds):
            tell(f"swap {number + 1} of {rounds}")
            swaps.usual.append(wrk.load(server.base, asked, CONNECTIONS, SECONDS))
            version = second if number % 2 else first
            with MlflowClient() as registry:
                registry.set_alias("iris", PRODUCTION, version)
            swaps.swapped.append(wrk.load(server.base, asked, CONNECTIONS, SECONDS))
            _await_version(server, asked[0], version)
    finally:
        server.stop()
    return swaps


def _await_version(server: Server, request: Request, version: str) -> None:
    server.answer(request, f'"version":"{version}"')


def as_json(swaps: Swaps, machine: dict[str, str]) -> dict[str, Any]:
    """All loads. Rates in requests/s, latencies in ms."""
    loads = {"usual": swaps.usual, "swapped": swaps.swapped}
    return {
        "machine": machine,
        "connections": CONNECTIONS,
        "seconds": SECONDS,
        "ratio": round(swaps.ratio, 2),
        **{what: [asdict(load) for load in some] for what, some in loads.items()},
    }
