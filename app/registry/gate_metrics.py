"""The metrics a model can be gated on, from scikit-learn, each with the direction in which it is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from sklearn import metrics as sk

from app.vocabulary import Label, Task

CLASSIFICATION: dict[str, Callable[..., float]] = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "f1_macro": lambda true, predicted: sk.f1_score(true, predicted, average="macro", zero_division=0),
    "precision_macro": lambda true, predicted: sk.precision_score(true, predicted, average="macro", zero_division=0),
    "recall_macro": lambda true, predicted: sk.recall_score(true, predicted, average="macro", zero_division=0),
}
REGRESSION: dict[str, Callable[..., float]] = {
    "r2": sk.r2_score,
    "mae": sk.mean_absolute_error,
    "rmse": sk.root_mean_squared_error,
    "median_absolute_error": sk.median_absolute_error,
}
LOWER_IS_BETTER = frozenset({"mae", "rmse", "median_absolute_error"})
BY_TASK: dict[Task, dict[str, Callable[..., float]]] = {"classification": CLASSIFICATION, "regression": REGRESSION}


def evaluate(task: Task, true: Sequence[Label], predicted: Sequence[Label]) -> dict[str, float]:
    """Every metric of the task, by name.

    Args:
        true, predicted: labels or values, shape (n_rows,).
    """
    return {name: float(metric(np.asarray(true), np.asarray(predicted))) for name, metric in BY_TASK[task].items()}


def at_least_as_good(metric: str, value: float, bound: float) -> bool:
    """Whether `value` is on the right side of `bound`, or on it. False for NaN."""
    return value <= bound if metric in LOWER_IS_BETTER else value >= bound


def better(metric: str, value: float, other: float) -> bool:
    """Whether `value` is better than `other`, not merely equal. False for NaN."""
    return value < other if metric in LOWER_IS_BETTER else value > other
