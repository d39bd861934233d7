"""The exponent of growth, and its table."""

from __future__ import annotations

import pytest

from bench.load import Load
from bench.scaling import Curve, as_json, exponent, table


@pytest.mark.parametrize("power", [-0.5, 0, 1, 1.7])
def test_a_power_is_found(power: float) -> None:
    assert exponent({size: 0.3 * size**power for size in (1, 3, 10, 1000)}) == pytest.approx(power)


def test_noise_is_averaged_on_the_logarithms() -> None:
    assert exponent({1: 2, 10: 10, 100: 100, 1000: 2000}) == pytest.approx(1)


def test_one_size_has_no_exponent() -> None:
    with pytest.raises(ValueError, match="two sizes"):
        exponent({1: 1})


def test_the_exponent_of_a_curve_is_of_the_time_per_request() -> None:
    curve = Curve("rows per request", {1: Load(5000, 1, 2, 0), 100: Load(50, 1, 2, 3)})
    assert curve.exponent == pytest.approx(1)
    assert table([curve]).splitlines()[2].split(" | ")[1:] == [
        "size^1.00                ",
        "1: 5,000, 100: 50 (3 FAILED) |",
    ]
    assert as_json([curve], {})["curves"]["rows per request"]["loads"]["100"]["failed"] == 3
