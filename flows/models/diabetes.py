"""Diabetes: how far the disease has progressed after a year, from ten standardised baseline measurements."""

import pandas as pd
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_selection import VarianceThreshold
from sklearn.pipeline import Pipeline

from flows.model import Gate, Model


def load() -> pd.DataFrame:
    """The 442 patients of scikit-learn's own copy."""
    return load_diabetes(as_frame=True).frame.rename(columns={"target": "progression"})


def estimator(seed: int) -> Pipeline:
    """A forest of 100 trees."""
    forest = RandomForestRegressor(n_estimators=100, min_samples_leaf=5, random_state=seed)
    return Pipeline([("drop_constant", VarianceThreshold()), ("forest", forest)])


model = Model(
    task="regression",
    target="progression",
    load=load,
    estimator=estimator,
    gate=Gate(metric="rmse", threshold=70.0, max_regression=2.0),
    schedule="0 4 * * 1",
)
