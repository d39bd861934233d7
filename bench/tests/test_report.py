"""The table, the JSON and the chart say what was measured, and what was not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import report
from bench.load import Load
from bench.machine import ROOT
from bench.serving import CASES, QUICK, Result, Round
from bench.targets import OURS, TARGETS

BY_NAME = {target.name: target for target in TARGETS}
MACHINE = {"processor": "Abacus", "date": "2026-11-27"}


def measured(rate: float, failed: int = 0, at_rate: Load | None = None) -> Round:
    loads = {case: Load(rate / case.rows, 16000 / rate, 64000 / rate, failed) for case in CASES}
    return Round(start=rate / 10000, memory=rate / 50, loads=loads, at_rate=at_rate)


@pytest.fixture
def results() -> list[Result]:
    rates = (5000.0, 7000.0, 6000.0)
    ours = Result(BY_NAME[OURS], [measured(rate, at_rate=Load(1000, 0.3, rate / 5000, 0)) for rate in rates])
    slow = Result(BY_NAME["mlserver"], [measured(60), measured(50, failed=2), measured(80, failed=1)])
    absent = Result(BY_NAME["kserve"], reason="error: a|b is not there")
    return [ours, slow, absent]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]


def test_the_table_has_medians_ratios_and_reasons(results: list[Result]) -> None:
    head, rule, ours, slow, absent = map(cells, report.table(results).splitlines())
    assert head[1:5] == [str(case) for case in CASES]
    assert set("".join(rule)) == {"-"}
    assert {len(line) for line in (head, rule, ours, slow, absent)} == {8}
    assert ours == [
        "**API, POST /predict**",
        *["6,000/s, 2.7 / 10.7 ms"] * 3,
        "60.0/s, 2.7 / 10.7 ms",
        "1.20 ms",
        "120 MB",
        "0.60 s",
    ]
    assert slow[0].startswith("**MLServer** (mlserver 1.")
    assert slow[2] == "60.0/s (100×), 267 / 1067 ms, 3 FAILED"
    assert slow[5:] == ["", "1 MB", "0.01 s"]
    assert absent[1:] == ["not measured: error: a/b is not there", *[""] * 6]


def test_without_the_api_there_are_no_ratios(results: list[Result]) -> None:
    assert "×" not in report.table(results[1:])


@pytest.mark.parametrize(
    ("shares", "told"), [((0.0, 0.1, 0.9), ""), ((0.2, 0.3, 0.4), "Others used 30% of the cores, up to 40%")]
)
def test_a_machine_that_others_used_is_told(shares: tuple[float, ...], told: str) -> None:
    rounds = [replace(measured(5000), others=share) for share in shares]
    assert report.noise([Result(BY_NAME[OURS], rounds)]).partition(":")[0] == told


def test_the_json_has_every_round(results: list[Result], tmp_path: Path) -> None:
    report.write_json(tmp_path / "made" / "serving.json", report.as_json(results, QUICK, MACHINE))
    written = json.loads((tmp_path / "made" / "serving.json").read_text())
    assert written["machine"] == MACHINE
    servers = written["servers"]
    assert servers["kserve"]["reason"] == "error: a|b is not there"
    assert servers["kserve"]["median"] is None
    assert servers["mlserver"]["api is faster by"]["1 row, 16 connections"] == 100
    rounds = [measured["loads"]["1 row, 1 connection"]["rate"] for measured in servers["mlserver"]["rounds"]]
    assert rounds == [60, 50, 80]
    assert servers[OURS]["median"]["at 1,000/s"] == {"rate": 1000, "p50": 0.3, "p99": 1.2, "failed": 0}


def test_the_chart_is_drawn(results: list[Result], tmp_path: Path) -> None:
    report.chart(results, MACHINE, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_the_readme_quotes_the_results_that_are_committed() -> None:
    written = json.loads((ROOT / "bench" / "results" / "serving.json").read_text())
    assert report.summary(written) in (ROOT / "README.md").read_text(), "`make bench` writes the README's table"


def test_a_page_quotes_the_api_and_others_by_their_rate(results: list[Result], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):
        report.quote(page, report.as_json(results, QUICK, MACHINE))
        before, mark, head, rule, ours, slow, *rest = [line for line in page.read_text().splitlines() if line]
        assert (before, mark, rest) == (
            "before",
            report.BEGIN,
            ["processor: Abacus; date: 2026-11-27", report.END, "after"],
        )
    assert len({len(cells(line)) for line in (head, rule, ours, slow)}) == 1
    assert cells(ours)[:3] == ["**API, POST /predict**", "**6,000/s**", ""]
    assert cells(slow)[0].startswith("MLServer (mlserver 1.")
    assert cells(slow)[1:5] == ["60.0/s", "100×", "0.6/s", "100×"]


@pytest.mark.parametrize("text", ["no marks", f"{report.BEGIN}\nand no end"])
def test_a_page_without_marks_is_left_alone(results: list[Result], tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="substring"):
        report.quote(page, report.as_json(results, QUICK, MACHINE))
    assert page.read_text() == text
