"""Goals are compared with the medians of what was measured."""

from __future__ import annotations

from bench.goals import goals
from bench.load import Load
from bench.serving import CASES, Result, Round
from bench.targets import OURS, TARGETS

BY_NAME = {target.name: target for target in TARGETS}


def result(name: str, rate: float, p99: float = 1.0) -> Result:
    loads = {case: Load(rate, 1.0, 2.0, 0) for case in CASES}
    return Result(BY_NAME[name], [Round(start=0.6, memory=120, loads=loads, at_rate=Load(1000, 1, p99, 0))])


def test_each_goal_has_its_ratio() -> None:
    results = [result(OURS, 10_000, p99=2.0), result("asgi", 30_000), result("kserve", 50), result("mlserver", 125)]
    assert [(goal.what, round(goal.measured, 3), goal.reached) for goal in goals(results)] == [
        ("1 row, 16 connections: requests/s against MLServer", 80, False),
        ("1 row, 16 connections: requests/s against KServe", 200, True),
        ("1 row, 16 connections: requests/s against raw ASGI, a constant", 0.333, False),
        ("100 rows, 16 connections: requests/s against the best as it comes", 80, True),
        ("p99 at 1,000 requests/s over raw ASGI's", 2, True),
        ("start to the first prediction, from the cache", 0.6, True),
        ("memory after the load", 120, False),
    ]


def test_a_goal_is_told() -> None:
    first, *_, last = (goal.row() for goal in goals([result(OURS, 10_000), result("fastapi", 5000)]))
    assert first == ("1 row, 16 connections: requests/s against FastAPI, a constant", "at least 1.4×", "2×", "yes")
    assert last == ("memory after the load", "at most 100 MB", "120 MB", "**no**")


def test_without_the_api_there_is_nothing_to_reach() -> None:
    assert goals([result("asgi", 30_000), Result(BY_NAME[OURS], reason="it does not answer")]) == []
