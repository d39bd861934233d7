"""Digits: which one an image of 8 x 8 points shows."""

import pandas as pd
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from flows.model import Gate, Model


def load() -> pd.DataFrame:
    """The 1,797 images of scikit-learn's own copy, a column for each point."""
    bunch = load_digits(as_frame=True)
    return bunch.data.assign(digit=bunch.target.map("digit {}".format))


def estimator(seed: int) -> object:
    """A support vector machine behind a scaler."""
    return make_pipeline(StandardScaler(), SVC(random_state=seed))


model = Model("classification", "digit", load, estimator, Gate("accuracy", 0.9, 0.05))
