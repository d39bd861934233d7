from __future__ import annotations

import pytest

from app.registry.reference import psi
from app.ui.live.drift import MIN_ROWS, judge


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ([500, 500], "stable"),
        ([620, 380], "stable"),
        ([680, 320], "moderate"),
        ([800, 200], "strong"),
        ([1000, 0], "strong"),
        ([10, 0], "too few"),
        ([0, 0], "too few"),
    ],
)
def test_verdicts(counts: list[float], verdict: str) -> None:
    assert judge("x", [0.5, 0.5], counts).verdict == verdict


def test_the_figure_is_the_index() -> None:
    drift = judge("x", [0.2, 0.8], [300, 700])
    assert (drift.psi, drift.rows, drift.feature) == (pytest.approx(psi([0.2, 0.8], [0.3, 0.7])), 1000, "x")


def test_without_rows_there_is_no_figure() -> None:
    assert judge("x", [0.5, 0.5], [0, 0]).psi is None


def test_the_smallest_number_of_rows_that_is_judged() -> None:
    assert judge("x", [1.0], [MIN_ROWS - 1]).verdict == "too few"
    assert judge("x", [1.0], [MIN_ROWS]).verdict == "stable"


@pytest.mark.parametrize(("reference", "counts"), [([0.5, 0.5], [300.0]), ([0.0, 0.0], [300.0, 1.0]), ([], [])])
def test_a_broken_reference_is_unknown_or_too_few(reference: list[float], counts: list[float]) -> None:
    assert judge("x", reference, counts).verdict in ("unknown", "too few")
