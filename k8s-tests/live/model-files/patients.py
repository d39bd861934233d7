"""Patients: whether a disease progressed, from measurements of which some are missing."""

import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingClassifier

from flows.model import Gate, Model


def load() -> pd.DataFrame:
    """The 442 patients of scikit-learn's own copy, each tenth blood pressure missing."""
    bunch = load_diabetes(as_frame=True)
    frame = bunch.data[["age", "bmi", "bp", "s5"]].copy()
    frame.loc[::10, "bp"] = np.nan
    return frame.assign(progressed=np.where(bunch.target > 140, "yes", "no"))


def estimator(seed: int) -> HistGradientBoostingClassifier:
    """Trees that know missing values."""
    return HistGradientBoostingClassifier(max_iter=50, random_state=seed)


model = Model("classification", "progressed", load, estimator, Gate("accuracy", 0.6, 0.05))
