"""Shapley values, against what is known of them."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from app.registry.explanation import EXACT, explain

RANDOM = np.random.default_rng(0)


def linear(weights: np.ndarray) -> Any:
    return lambda rows: np.asarray(rows, dtype=float) @ weights + 5


@pytest.mark.parametrize("n", [1, 2, EXACT, EXACT + 1, 40])
def test_of_a_linear_model_each_feature_contributes_its_weight_times_its_distance_from_the_mean(n: int) -> None:
    weights, row = RANDOM.normal(size=n), tuple(RANDOM.normal(size=n))
    background = [tuple(RANDOM.normal(size=n)) for _ in range(32)]
    explained = explain(linear(weights), row, background)
    assert explained.method == ("exact" if n <= EXACT else "sampled")
    expected = weights * (np.array(row) - np.mean(background, axis=0))
    assert explained.contributions == pytest.approx(expected, abs=1e-9)
    assert explained.value == pytest.approx(float(linear(weights)([row])[0]))


def interaction(rows: Any) -> np.ndarray:
    values = np.asarray(rows, dtype=float)
    return values[:, 0] * values[:, 1] + np.maximum(values[:, 2], 0) - 3 * values[:, 0]


def test_few_features_are_exactly_the_mean_over_all_orders() -> None:
    row, background = (1.0, 2.0, 3.0), [(0.0, -1.0, 0.5), (2.0, 1.0, -1.0)]
    expected = np.zeros(3)
    orders = list(permutations(range(3)))
    for order in orders:
        for other in background:
            now = list(other)
            for place in order:
                before = interaction([now])[0]
                now[place] = row[place]
                expected[place] += (interaction([now])[0] - before) / len(orders) / len(background)
    assert explain(interaction, row, background).contributions == pytest.approx(expected)


@pytest.mark.parametrize("n", [3, 12])
def test_contributions_add_up_and_a_feature_that_is_not_used_contributes_nothing(n: int) -> None:
    row = tuple(RANDOM.normal(size=n))
    background = [tuple(RANDOM.normal(size=n)) for _ in range(8)]
    explained = explain(interaction, row, background)
    assert explained.base + sum(explained.contributions) == pytest.approx(explained.value)
    assert explained.contributions[3:] == pytest.approx([0.0] * (n - 3))


def test_the_same_row_is_explained_the_same_way() -> None:
    row, background = tuple(range(12)), [tuple(RANDOM.normal(size=12)) for _ in range(8)]
    assert explain(interaction, row, background) == explain(interaction, row, background)
