"""BentoML with the scikit-learn model, as its documentation writes a service. BENCH_MODEL: the model's joblib file."""

from __future__ import annotations

import os

import bentoml
import joblib
import numpy as np


@bentoml.service
class Iris:
    """Takes {"rows": rows}, answers a list of classes."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    @bentoml.api
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The class of each row, shape (n_rows,)."""
        labels: np.ndarray = self.model.predict(rows)
        return labels
