"""What is told of loads by way of the ingress and without it."""

from __future__ import annotations

import os

import pytest

from bench import ingress, platform
from bench.ingress import Comparison, Figure, as_json, table
from bench.load import Load
from bench.machine import ROOT

COMPARISON = Comparison(
    16,
    [Figure(Load(1000, 5, 9, 0), 0.1), Figure(Load(2000, 6, 8, 0), 0.1), Figure(Load(3000, 7, 7, 0), 0.2)],
    [Figure(Load(900, 8, 9, 1), 0.1), Figure(Load(800, 8, 9, 0), 0.1), Figure(Load(1000, 9, 9, 2), 0.1)],
)


def test_the_ratio_is_of_the_requests_for_a_second_of_cpu() -> None:
    assert COMPARISON.ratio == pytest.approx(9000 / 15000)
    direct, by_ingress = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table([COMPARISON]).splitlines()[2:]
    )
    assert direct == ["16", "direct", "2,000/s", "6.0 ms", "8.0 ms", "0", "15,000", ""]
    assert by_ingress == ["16", "by the ingress", "900/s", "8.0 ms", "9.0 ms", "3", "9,000", "60% (wanted 60%)"]


def test_every_load_is_kept() -> None:
    kept = as_json([COMPARISON], {})["comparisons"]
    assert [figure["load"]["rate"] for figure in kept[0]["direct"]] == [1000, 2000, 3000]
    assert kept[0]["ratio"] == 0.6


def test_somebody_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match="only root can do"):
        ingress.measure(lambda _: None)


def test_the_line_that_is_edited_with_skaffold_is_there() -> None:
    assert (ROOT / platform.EDITED).read_text().count(platform.BEFORE) == 1
