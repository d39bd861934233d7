"""What each feature contributed to one prediction: Shapley values, against rows of the training data.

The value of a set of features is the mean prediction for the background rows, in which these features have the values
of the explained row (the interventional kind of Lundberg and Lee, A Unified Approach to Interpreting Model Predictions,
2017). Few features are computed exactly, from all sets; many are sampled by permutations and their reverses (Strumbelj
and Kononenko, Explaining prediction models and individual predictions with feature contributions, 2014). Either way the
contributions and the base add up to the prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, Literal

import numpy as np

EXACT = 6  # features; of so many there are 64 sets
MAX_FEATURES = 1_000
SAMPLED_ROWS = 20_000  # that are predicted at most, but for MIN_PERMUTATIONS
MAX_PERMUTATIONS, MIN_PERMUTATIONS = 128, 8

Values = tuple[Any, ...]


@dataclass(frozen=True)
class Explanation:
    """base: the mean prediction for the background; value: that for the row; contributions: shape (n_features,)."""

    base: float
    value: float
    contributions: list[float]
    method: Literal["exact", "sampled"]


def explain(
    predict: Callable[[list[Values]], np.ndarray], row: Values, background: Sequence[Sequence[Any]]
) -> Explanation:
    """Shapley values of one row's features.

    Args:
        predict: numbers, shape (n_rows,), for rows of values.
        row: the values of the features, shape (n_features,), 1 to MAX_FEATURES.
        background: rows of the training data, shape (n_background, n_features), one at least.
    """
    if len(row) <= EXACT:
        return _exact(predict, row, background)
    return _sampled(predict, row, background)


def _exact(
    predict: Callable[[list[Values]], np.ndarray], row: Values, background: Sequence[Sequence[Any]]
) -> Explanation:
    n = len(row)
    sets = range(2**n)
    mixed: list[Values] = [
        tuple(value if chosen >> place & 1 else other[place] for place, value in enumerate(row))
        for chosen in sets
        for other in background
    ]
    worth = predict(mixed).reshape(len(sets), len(background)).mean(axis=1)
    contributions = np.zeros(n)
    for chosen in sets:
        size = chosen.bit_count()
        for place in range(n):
            if not chosen >> place & 1:
                gained = worth[chosen | 1 << place] - worth[chosen]
                contributions[place] += gained / (n * comb(n - 1, size))
    return Explanation(float(worth[0]), float(worth[-1]), contributions.tolist(), "exact")


def _sampled(
    predict: Callable[[list[Values]], np.ndarray], row: Values, background: Sequence[Sequence[Any]]
) -> Explanation:
    n = len(row)
    random = np.random.default_rng(0)  # the same row is explained the same way
    pairs = max(MIN_PERMUTATIONS, min(MAX_PERMUTATIONS, SAMPLED_ROWS // (n + 1))) // 2
    permutations = [order for _ in range(pairs) for order in _and_reverse(random.permutation(n))]
    mixed: list[Values] = []
    for number, order in enumerate(permutations):
        changing = list(background[number // 2 % len(background)])
        mixed.append(tuple(changing))
        for place in order:
            changing[place] = row[place]
            mixed.append(tuple(changing))
    values = predict(mixed).reshape(len(permutations), n + 1)
    gains = np.diff(values, axis=1)
    contributions = np.zeros(n)
    for order, gained in zip(permutations, gains, strict=True):
        contributions[order] += gained
    contributions /= len(permutations)
    return Explanation(float(values[:, 0].mean()), float(values[:, -1].mean()), contributions.tolist(), "sampled")


def _and_reverse(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return order, order[::-1]
