"""Customers: whether one leaves, from a table of numbers and categories."""

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from flows.model import Gate, Model

ROWS = 600


def load() -> pd.DataFrame:
    """Invented customers, of whom those on monthly contracts with many calls leave."""
    random = np.random.default_rng(0)
    contract = random.choice(["monthly", "yearly", "two years"], ROWS)
    calls = random.poisson(2, ROWS)
    leaves = (contract == "monthly") & (calls + random.normal(0, 0.5, ROWS) > 1.5)
    return pd.DataFrame(
        {
            "age": random.integers(18, 90, ROWS),
            "calls": calls,
            "charge": random.normal(60, 20, ROWS).round(2),
            "contract": contract,
            "paperless": random.random(ROWS) < 0.5,
            "leaves": np.where(leaves, "yes", "no"),
        }
    )


def estimator(seed: int) -> object:
    """A logistic regression behind a scaler and one-hot categories."""
    columns = make_column_transformer(
        (StandardScaler(), ["age", "calls", "charge"]),
        (OneHotEncoder(handle_unknown="ignore"), ["contract"]),
        ("passthrough", ["paperless"]),
    )
    return make_pipeline(columns, LogisticRegression(C=10, random_state=seed))


model = Model("classification", "leaves", load, estimator, Gate("accuracy", 0.75, 0.05))
