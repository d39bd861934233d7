"""The API through the ingress, beside the API without it, on the cluster of `make up`: `make bench ARGS=--ingress`.

wrk, the ingress controller and the API share the machine's cores, so the API is held to a share of one: it is what is
short, and figures are of each second of CPU that its pods use. wrk runs in the network of the cluster's node, as root:
what a container engine does with published ports is not measured.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import psutil
from sklearn.datasets import load_iris

from bench import wrk
from bench.load import Load, Request
from bench.platform import API, KUBECTL, run, wait
from bench.report import markdown

NODE = "mlops-control-plane"
NODE_PORT, SERVICE_PORT = 30080, 8086
CORES = 0.1  # that each pod of the API may use
CONNECTIONS = (16, 64)
ROUNDS, SECONDS, WARM_UP = 3, 5, 2
GOAL = 0.6  # requests for a second of CPU by way of the ingress, over those without it
DEPLOYMENT = "deployment/mlops-model-api"
LIMIT = "/spec/template/spec/containers/0/resources/limits/cpu"


@dataclass(frozen=True)
class Figure:
    """One load. cpu: seconds of CPU that the API's pods used in each second of it."""

    load: Load
    cpu: float

    @property
    def efficiency(self) -> float:
        """Requests for each second of the API's CPU."""
        return self.load.rate / self.cpu


@dataclass(frozen=True)
class Comparison:
    """Loads of so many connections, in turns."""

    connections: int
    direct: list[Figure]
    by_ingress: list[Figure]

    @property
    def ratio(self) -> float:
        """Requests for a second of the API's CPU by way of the ingress, over those without it; medians."""
        return median(one.efficiency for one in self.by_ingress) / median(one.efficiency for one in self.direct)


def measure(tell: Callable[[str], None]) -> list[Comparison]:
    """Measure both ways.

    Args:
        tell: is called with what is being done.

    Raises:
        SystemExit: there is no cluster, this is not root, or a command fails.
    """
    if os.geteuid():
        raise SystemExit("wrk runs in the network of the cluster's node, which only root can do")
    within = ["nsenter", "--net", "--target", run(["docker", "inspect", "--format={{.State.Pid}}", NODE]).strip()]
    node = run([*KUBECTL, "get", "node", NODE, "-o", 'jsonpath={.status.addresses[?(@.type=="InternalIP")].address}'])
    service = run([*KUBECTL, "get", "service", "mlops-model-api", "-o", "jsonpath={.spec.clusterIP}"])
    direct, by_ingress = f"http://{service}:{SERVICE_PORT}", f"http://{node}:{NODE_PORT}"
    requests = _requests()

    def one(base: str, connections: int, seconds: int = SECONDS) -> Figure:
        before = _cpu()
        load = wrk.load(base, requests, connections, seconds, within, API)
        return Figure(load, (_cpu() - before) / seconds)

    comparisons = [Comparison(connections, [], []) for connections in CONNECTIONS]
    with _held(tell):
        for base in (direct, by_ingress):
            one(base, CONNECTIONS[0], WARM_UP)
        for number in range(ROUNDS):
            for comparison in comparisons:
                tell(f"{comparison.connections} connections: round {number + 1} of {ROUNDS}")
                comparison.direct.append(one(direct, comparison.connections))
                comparison.by_ingress.append(one(by_ingress, comparison.connections))
    return comparisons


def table(comparisons: Sequence[Comparison]) -> str:
    """Two rows for each number of connections."""
    rows = [
        ["connections", "way", "requests/s", "p50", "p99", "failed", "requests for a CPU second", "of the direct ones"]
    ]
    for comparison in comparisons:
        for way, figures in (("direct", comparison.direct), ("by the ingress", comparison.by_ingress)):
            rows.append(
                [
                    str(comparison.connections),
                    way,
                    f"{median(one.load.rate for one in figures):,.0f}/s",
                    f"{median(one.load.p50 for one in figures):.1f} ms",
                    f"{median(one.load.p99 for one in figures):.1f} ms",
                    str(sum(one.load.failed for one in figures)),
                    f"{median(one.efficiency for one in figures):,.0f}",
                    "" if figures is comparison.direct else f"{comparison.ratio:.0%} (wanted {GOAL:.0%})",
                ]
            )
    return markdown(rows)


def as_json(comparisons: Sequence[Comparison], description: dict[str, str]) -> dict[str, Any]:
    """All figures."""
    return {
        "machine": description,
        "cores of each pod": CORES,
        "seconds": SECONDS,
        "goal": GOAL,
        "comparisons": [{**asdict(comparison), "ratio": round(comparison.ratio, 3)} for comparison in comparisons],
    }


def _requests() -> list[Request]:
    """One flower each."""
    frame = load_iris(as_frame=True).data
    frame.columns = [name.removesuffix(" (cm)").replace(" ", "_") for name in frame.columns]
    return [Request("/models/iris/predict", json.dumps(row).encode()) for row in frame.to_dict("records")[::3]]


def _cpu() -> float:
    """Seconds of CPU that the processes of the API have used."""
    total = 0.0
    for process in psutil.process_iter(["cmdline"]):
        if process.info["cmdline"] and process.info["cmdline"][-2:] == ["-m", "app.api"]:
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextmanager
def _held(tell: Callable[[str], None]) -> Iterator[None]:
    """Meanwhile each pod of the API may use a share of a core."""
    tell(f"holding the API's pods to {CORES:g} cores each")
    patch = [{"op": "add", "path": LIMIT, "value": f"{CORES * 1000:.0f}m"}]
    run([*KUBECTL, "patch", DEPLOYMENT, "--type=json", f"--patch={json.dumps(patch)}"])
    try:
        _rolled_out()
        yield
    finally:
        tell("giving them what they had")
        run([*KUBECTL, "rollout", "undo", DEPLOYMENT])
        _rolled_out()


def _rolled_out() -> None:
    run([*KUBECTL, "rollout", "status", DEPLOYMENT, "--timeout=5m"])
    # those of before may be ending still
    wait(lambda: len(_pods()) == len(_pods("--field-selector=status.phase=Running")) > 0, "the API's pods", 120)


def _pods(*options: str) -> list[str]:
    names = run([*KUBECTL, "get", "pods", "-l", "app.kubernetes.io/name=model-api", "-o", "name", *options])
    return names.split()
