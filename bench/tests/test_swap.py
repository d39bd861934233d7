"""What is told of loads with a swap and without."""

from __future__ import annotations

from bench.load import Load
from bench.swap import Swaps, as_json

SWAPS = Swaps([Load(9000, 1.5, 4, 0), Load(9100, 1.6, 5, 0)], [Load(8000, 1.7, 9, 1), Load(8100, 1.7, 9, 2)])


def test_the_ratio_is_of_the_medians() -> None:
    assert SWAPS.ratio == 2.0
    usual, swapped = SWAPS.table().splitlines()[2:4]
    assert [cell.strip() for cell in usual.split("|")[1:-1]] == [
        *("usual", "2", "9,050/s", "1.55 ms", "4.50 ms", "0"),
    ]
    assert [cell.strip() for cell in swapped.split("|")[1:-1]][-1] == "3"


def test_every_load_is_kept() -> None:
    kept = as_json(SWAPS, {})
    assert [load["p99"] for load in kept["swapped"]] == [9, 9]
    assert kept["ratio"] == 2.0
