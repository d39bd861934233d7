"""Iris: the species of a flower from four measurements in centimetres."""

import pandas as pd
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import VarianceThreshold
from sklearn.pipeline import Pipeline

from flows.model import Gate, Model


def load() -> pd.DataFrame:
    """The 150 flowers of scikit-learn's own copy."""
    bunch = load_iris(as_frame=True)
    frame = bunch.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
    return frame.assign(species=bunch.target_names[bunch.target])


def estimator(seed: int) -> Pipeline:
    """A forest of 100 trees."""
    forest = RandomForestClassifier(n_estimators=100, random_state=seed)
    return Pipeline([("drop_constant", VarianceThreshold()), ("forest", forest)])


model = Model(
    task="classification",
    target="species",
    load=load,
    estimator=estimator,
    gate=Gate(metric="accuracy", threshold=0.85, max_regression=0.02),
    schedule="0 3 * * 1",
)
