"""One model version in service: its bundle, loaded and tried, with all that a request needs of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.api.meter import Meter
from app.api.metrics import Metrics
from app.api.row_schema import RowSchema
from app.registry.bundle import Bundle
from app.registry.predictor import Predictions, Predictor, load_predictor
from app.vocabulary import Label


class NoPrediction(Exception):
    """The model has no prediction for these values."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A version in service. A request takes one of these and uses it from begin to end.

    incarnation: tells apart registered models of one name; one that was deleted and made anew counts from version 1.
    digits: rounds a number to the digits that the predictor computes with.
    classes: each label to the bundle's own, which has the right type; empty for a regression.
    """

    name: str
    version: str
    run_id: str
    bundle: Bundle
    predictor: Predictor
    meter: Meter
    schema: RowSchema
    loaded_at: str
    incarnation: str
    digits: Callable[[float], float]
    classes: dict[Any, Label]

    @property
    def is_classifier(self) -> bool:
        """Whether it predicts classes, and not numbers."""
        return self.bundle.task == "classification"

    @property
    def in_thread(self) -> bool:
        """Whether one row takes milliseconds, which the event loop cannot wait for."""
        return self.bundle.serving != "onnx"

    def predict(self, rows: Sequence[Sequence[Any]]) -> Predictions:
        """Labels or values, and probabilities, of rows in the signature's order.

        Raises:
            NoPrediction: the model fails on these values, or computes something infinite.
        """
        try:
            raw = self.predictor.predict(rows)
        except Exception as error:  # whatever an estimator raises on values it does not know
            text = str(error).strip().splitlines()
            raise NoPrediction(f"{type(error).__name__}: {text[0][:300] if text else ''}") from error
        if self.is_classifier:
            labels = [self.classes.get(label, label) for label in raw.labels]
            if raw.probabilities is None:
                return Predictions(labels, None)
            digits = self.digits
            probabilities = [[digits(p) for p in row] for row in raw.probabilities]
            if not math.isfinite(sum(map(sum, probabilities))):
                raise NoPrediction("a probability is not a finite number; a value is far out of the model's range")
            return Predictions(labels, probabilities)
        values = [self.digits(value) for value in raw.labels]
        if not all(map(math.isfinite, values)):
            raise NoPrediction("the prediction is not a finite number; a value is far out of the model's range")
        return Predictions(values, None)


def load_served_model(
    name: str, version: str, run_id: str, bundle: Bundle, metrics: Metrics, incarnation: str, loaded_at: str
) -> ServedModel:
    """Load a verified bundle and try it on its golden rows.

    Raises:
        BundleError: the model does not load, or (GoldenMismatch) answers the golden rows differently.
    """
    predictor = load_predictor(bundle)  # first: a version that does not load gets no meter
    return ServedModel(
        name=name,
        version=version,
        run_id=run_id,
        bundle=bundle,
        predictor=predictor,
        meter=metrics.meter(name, version, bundle),
        schema=RowSchema(name, bundle.features),
        loaded_at=loaded_at,
        incarnation=incarnation,
        digits=_seven_digits if bundle.serving == "onnx" else float,
        classes={label: label for label in bundle.classes},
    )


def _seven_digits(value: float) -> float:
    """What a float32 holds: 0.99, not 0.9900000095367432."""
    return float(f"{value:.7g}")
