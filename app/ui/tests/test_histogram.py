from __future__ import annotations

import math

import pytest

from app.ui.live.histogram import quantile

BOUNDS = [0.001, 0.01, math.inf]


@pytest.mark.parametrize(
    ("q", "cumulative", "value"),
    [
        (0.5, [10.0, 10.0, 10.0], 0.0005),
        (0.5, [0.0, 10.0, 10.0], 0.0055),
        (0.99, [50.0, 100.0, 100.0], 0.001 + 0.009 * 49 / 50),
        (0.99, [0.0, 0.0, 10.0], 0.01),  # above every finite bound
        (0.5, [0.0, 0.0, 0.0], None),
    ],
)
def test_quantile_is_linear_within_a_bucket(q: float, cumulative: list[float], value: float | None) -> None:
    assert quantile(q, BOUNDS, cumulative) == (None if value is None else pytest.approx(value))


def test_quantile_of_nothing() -> None:
    assert quantile(0.5, [], []) is None
