"""Tries a model file without MLflow and Prefect: fit it once, and see what its gate would say."""

from __future__ import annotations

from dataclasses import dataclass

from sklearn.dummy import DummyClassifier, DummyRegressor

from app.registry.gate_metrics import at_least_as_good
from flows import dataset
from flows.catalog import load_model
from flows.evaluate import measure

SEED = 42


@dataclass(frozen=True)
class Trial:
    """How good a model is on its held-out rows.

    metric, value: of the gate; baseline: the metric of always the same answer; threshold: of the gate.
    rows, held_out: how many rows there are, and how many of them are held out.
    """

    metric: str
    value: float
    baseline: float
    threshold: float
    rows: int
    held_out: int

    @property
    def passes(self) -> bool:
        """Whether it reaches the gate's threshold."""
        return at_least_as_good(self.metric, self.value, self.threshold)


def trial(name: str) -> Trial:
    """Load the model's own rows, fit it on the training rows and evaluate it on the others.

    Raises:
        ModelFileError, DatasetError: the file, or its data, cannot be used.
    """
    model = load_model(name)
    rows = dataset.validate(model, model.load())
    train, held_out = dataset.split(model, rows)
    features, labels = train.drop(columns=model.target), train[model.target]
    constant = DummyClassifier(strategy="most_frequent") if model.task == "classification" else DummyRegressor()
    metric = model.gate.metric
    value, baseline = (
        measure(model, estimator.fit(features, labels), held_out)[metric]
        for estimator in (model.estimator(SEED), constant)
    )
    return Trial(metric, value, baseline, model.gate.threshold, len(rows), len(held_out))
