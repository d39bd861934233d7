"""The API beside other servers: the same model, the same cores, the same client, in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.runtime.processes import free_port
from bench import machine, wrk
from bench.load import Load, Request, load_at_rate
from bench.models import Iris
from bench.servers import NotMeasured, Server
from bench.targets import Start, Target

RATE = 1000.0  # requests per second
DIFFERENT = 50  # requests that are sent in turn
REASON = 200  # characters of it, on one line
FIRST_FLOWER = "setosa"  # the species of the first row


@dataclass(frozen=True)
class Case:
    """What is asked: rows per request, and how many requests at once."""

    rows: int
    connections: int

    def __str__(self) -> str:
        return f"{_count(self.rows, 'row')}, {_count(self.connections, 'connection')}"


CASES = (Case(1, 1), Case(1, 16), Case(1, 64), Case(100, 16))


@dataclass(frozen=True)
class Plan:
    """How often and how long: rounds over all servers, seconds of each load, seconds before the first of them."""

    rounds: int = 3
    seconds: int = 5
    warm_up: int = 2


QUICK = Plan(rounds=1, seconds=1, warm_up=0)


@dataclass(frozen=True)
class Round:
    """What was measured of one server in one round.

    start: seconds from the start of its process to its first prediction.
    memory: of all of its processes after the load, in MB.
    loads: as fast as it can; at_rate: 1,000 requests a second.
    others: the share of the cores that others used just before, 0 to 1.
    """

    start: float
    memory: float
    loads: dict[Case, Load]
    at_rate: Load | None
    others: float = 0.0


@dataclass
class Result:
    """A server's rounds. reason: why it could not be measured, where it could not."""

    target: Target
    rounds: list[Round] = field(default_factory=list)
    reason: str = ""


Tell = Callable[[str], None]


def measure(targets: Sequence[Target], iris: Iris, plan: Plan, folder: Path, tell: Tell) -> list[Result]:
    """Measure the servers, all of them in each round.

    Before the first round each is installed and started once: so each start that counts finds its files compiled, and
    the API its cache filled.

    Args:
        folder: for what servers write; of each it keeps what is there from one start to the next.
        tell: is called with what is being done.

    Returns:
        a result per server, in their order; of one that fails all rounds are left out.
    """
    results = [Result(target) for target in targets]
    for result in results:
        tell(f"{result.target.label}: first start")
        _attempt(result, lambda target: _prepare(target, iris, folder))
    for number in range(plan.rounds):
        for result in results:
            if not result.reason:
                tell(f"{result.target.label}: round {number + 1} of {plan.rounds}")
                _attempt(result, lambda target: _one_round(target, iris, plan, folder), result.rounds)
        for result in results:
            if result.reason:
                result.rounds.clear()
    return results


def _attempt(result: Result, what: Callable[[Target], Round | None], rounds: list[Round] | None = None) -> None:
    """Do it, and keep what it returns, or the reason why it fails."""
    try:
        measured = what(result.target)
    except (NotMeasured, RuntimeError) as error:
        result.reason = " ".join(str(error).split())[:REASON]
    else:
        if measured and rounds is not None:
            rounds.append(measured)


def _prepare(target: Target, iris: Iris, folder: Path) -> None:
    server, _ = start(target, iris, folder)
    server.stop()


def start(target: Target, iris: Iris, folder: Path) -> tuple[Server, float]:
    """Start a server, and wait for its first prediction; returns the seconds that it took, too.

    Raises:
        NotMeasured: it does not start, or answers wrongly.
        RuntimeError: its environment cannot be made.
    """
    own = folder / target.name
    own.mkdir(exist_ok=True)
    port = free_port()
    launch = target.launch(Start(target.programs(), iris, port, own))
    server = Server(target.name, launch.command, launch.env, port, folder)
    try:
        return server, server.answer(target.request(iris, iris.rows[:1]), FIRST_FLOWER)
    except BaseException:
        server.stop()
        raise


def requests(target: Target, iris: Iris, rows: int) -> list[Request]:
    """Requests that differ: each of other flowers, over and over those that there are."""
    count = len(iris.rows)
    starts = range(0, count, count // DIFFERENT)
    return [target.request(iris, [iris.rows[(first + i) % count] for i in range(rows)]) for first in starts]


def _one_round(target: Target, iris: Iris, plan: Plan, folder: Path) -> Round:
    others = machine.busy()
    server, seconds = start(target, iris, folder)
    try:
        bodies = {rows: requests(target, iris, rows) for rows in {case.rows for case in CASES}}
        if plan.warm_up:
            wrk.load(server.base, bodies[1], 16, plan.warm_up)
        loads = {}
        for case in CASES:
            # a slow server may still be busy with what wrk did not wait for
            server.answer(bodies[1][0], FIRST_FLOWER)
            loads[case] = wrk.load(server.base, bodies[case.rows], case.connections, plan.seconds)
            if not loads[case].rate:
                raise NotMeasured(f"{case}: no answer in {plan.seconds} s")
        server.answer(bodies[1][0], FIRST_FLOWER)
        at_rate = load_at_rate(server.base, bodies[1], RATE, plan.seconds) if target.has_rate else None
        return Round(seconds, server.memory(), loads, at_rate, others)
    finally:
        server.stop()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
