"""One model version in service: its bundle, loaded and tried, with all that a request needs of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from app.api.meter import Meter
from app.api.metrics import Metrics
from app.api.row_schema import RowSchema
from app.registry.bundle import Bundle
from app.registry.predictor import Predictions, Predictor, load_predictor
from app.vocabulary import Label

# What estimators and onnxruntime raise on values that they do not know. Anything else is no fault of the values; nor is
# memory that cannot be had, for which onnxruntime raises RuntimeException.
CAUSED_BY_VALUES = (ValueError, ArithmeticError, Fail, InvalidArgument)
SLOW_SECONDS = 0.005  # for the golden rows, which are about as many as fit into a body that is not large


class NoPrediction(Exception):
    """The model has no prediction for these values."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A version in service. A request takes one of these and uses it from begin to end.

    incarnation: tells apart registered models of one name; one that was deleted and made anew counts from version 1.
    digits: rounds a number to the digits that the predictor computes with.
    classes: each label to the bundle's own, which has the right type; empty for a regression.
    in_thread: whether it takes milliseconds, which the event loop cannot wait for.
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
    in_thread: bool

    @property
    def is_classifier(self) -> bool:
        """Whether it predicts classes, and not numbers."""
        return self.bundle.task == "classification"

    def predict(self, rows: Sequence[Sequence[Any]]) -> Predictions:
        """Labels or values, and probabilities, of rows in the signature's order.

        Raises:
            NoPrediction: the model fails on these values, or computes something infinite.
            Exception: it fails for another reason, such as too little memory.
        """
        try:
            raw = self.predictor.predict(rows)
        except CAUSED_BY_VALUES as error:
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
        in_thread=bundle.serving != "onnx" or _seconds(predictor, bundle) > SLOW_SECONDS,
    )


def _seconds(predictor: Predictor, bundle: Bundle) -> float:
    """The CPU time that the golden rows take, the shortest of three: what else the machine does is not counted."""
    times = []
    for _ in range(3):
        begin = time.thread_time()
        predictor.predict(bundle.golden.rows)
        times.append(time.thread_time() - begin)
    return min(times)


def _seven_digits(value: float) -> float:
    """What a float32 holds: 0.99, not 0.9900000095367432."""
    return float(f"{value:.7g}")
