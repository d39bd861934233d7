"""How good a fitted estimator is on the held-out rows: metrics, feature importances, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("Agg")
from matplotlib.figure import Figure
from sklearn.inspection import permutation_importance
from sklearn.metrics import ConfusionMatrixDisplay, PredictionErrorDisplay

from app.registry.gate_metrics import evaluate as metrics_of
from flows.model import Model

IMPORTANCE_REPEATS = 5
IMPORTANCE_ROWS = 1000


@dataclass(frozen=True)
class Evaluation:
    """How good an estimator is.

    metrics: by name.
    importances: by feature, the mean loss of score when its values are shuffled.
    figures: by file name.
    """

    metrics: dict[str, float]
    importances: dict[str, float]
    figures: dict[str, Figure]


def measure(model: Model, estimator: Any, rows: pd.DataFrame) -> dict[str, float]:
    """Every metric of the model's task on rows of features and target, by name."""
    predicted = np.asarray(estimator.predict(rows.drop(columns=model.target))).ravel()
    return metrics_of(model.task, rows[model.target].tolist(), predicted.tolist())


def over_folds(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean and standard deviation (of the folds, not of a sample of them) of each metric, as cv_accuracy_mean and _std.

    Args:
        metrics: by name, of each fold.
    """
    summary: dict[str, float] = {}
    for name in metrics[0]:
        values = [fold[name] for fold in metrics]
        summary |= {f"cv_{name}_mean": float(np.mean(values)), f"cv_{name}_std": float(np.std(values))}
    return summary


def evaluate(model: Model, estimator: Any, held_out: pd.DataFrame, seed: int) -> Evaluation:
    """Evaluate on rows the estimator has not seen.

    Importances are scikit-learn's permutation importances (Breiman, Random Forests, 2001, section 10), so they work for
    any estimator and name the data's own columns.

    Args:
        held_out: features and target.
        seed: of the shuffling.
    """
    features, true = held_out.drop(columns=model.target), held_out[model.target]
    predicted = np.asarray(estimator.predict(features)).ravel()
    sample = features.head(IMPORTANCE_ROWS)
    shuffled = permutation_importance(
        estimator, sample, true.head(IMPORTANCE_ROWS), n_repeats=IMPORTANCE_REPEATS, random_state=seed
    )
    importances = dict(zip(features.columns, map(float, shuffled.importances_mean), strict=True))
    picture = {"classification": ("confusion_matrix.png", _confusion), "regression": ("residuals.png", _residuals)}
    name, draw = picture[model.task]
    figures = {name: draw(true, predicted), "feature_importances.png": _bars(importances)}
    return Evaluation(metrics_of(model.task, true.tolist(), predicted.tolist()), importances, figures)


def _figure(width: float = 6, height: float = 4.5) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _confusion(true: pd.Series, predicted: np.ndarray) -> Figure:
    figure, axes = _figure()
    ConfusionMatrixDisplay.from_predictions(true, predicted, ax=axes, cmap="Blues", colorbar=False)
    axes.set_title(f"Confusion matrix, {len(true)} held-out rows")
    return figure


def _residuals(true: pd.Series, predicted: np.ndarray) -> Figure:
    figure, axes = _figure()
    PredictionErrorDisplay.from_predictions(true, predicted, kind="residual_vs_predicted", ax=axes)
    axes.set_title(f"Residuals, {len(true)} held-out rows")
    return figure


def _bars(importances: dict[str, float]) -> Figure:
    figure, axes = _figure(height=1 + 0.35 * min(len(importances), 30))
    top = sorted(importances.items(), key=lambda item: item[1])[-30:]
    axes.barh([name for name, _ in top], [value for _, value in top])
    axes.set_xlabel("loss of score when shuffled")
    axes.set_title("Feature importances (permutation)")
    return figure
