"""One model version in service: its bundle, loaded and tried, with all that a request needs of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from app.api.batching import MAX_BATCH, Batcher
from app.api.meter import Meter
from app.api.metrics import Metrics
from app.api.prediction_json import PredictionWriter
from app.api.row_decoder import Rows
from app.api.row_schema import RowSchema
from app.api.shadow import Shadow
from app.registry.bundle import Bundle
from app.registry.prediction_id import model_digest
from app.registry.predictor import Predictions, Predictor, load_predictor
from app.vocabulary import Label

if TYPE_CHECKING:
    from app.api.canary import Canary

# What estimators and onnxruntime raise on values that they do not know. Anything else is no fault of the values; nor is
# memory that cannot be had, for which onnxruntime raises RuntimeException.
CAUSED_BY_VALUES = (ValueError, ArithmeticError, Fail, InvalidArgument)
EXACT = frozenset({"double", "float", "integer", "datetime"})  # types of features whose values are doubles, or None
SLOW_SECONDS = 0.005  # that the event loop may wait: for the golden rows, or for all rows of one request


class NoPrediction(Exception):
    """The model has no prediction for these values."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A version in service. A request takes one of these and uses it from begin to end.

    incarnation: tells apart registered models of one name; one that was deleted and made anew counts from version 1.
    classes: each label to the bundle's own, which has the right type; empty for a regression, and where all are text
        and need it not.
    as_matrix: whether one array of doubles holds its rows exactly, and is what the model takes.
    in_thread: whether it takes milliseconds, which the event loop cannot wait for.
    inline_rows: how many rows of one request are not too many for the event loop or for a batch with others.
    shadow: the challenger that gets copies of its rows.
    canary: the version that answers a share of the requests for it.
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
    classes: dict[Any, Label]
    as_matrix: bool
    in_thread: bool
    inline_rows: int
    shadow: Shadow | None = None
    canary: Canary | None = None

    @cached_property
    def digest(self) -> str:
        """What prediction ids have of its name."""
        return model_digest(self.name)

    @cached_property
    def writer(self) -> PredictionWriter:
        """Writes the answers of /predict."""
        return PredictionWriter(self.name, self.version, self.run_id, self.bundle.classes)

    @cached_property
    def batcher(self) -> Batcher:
        """Predicts the rows of many requests at once, and counts them."""
        return Batcher(self.predict_and_count, self.in_thread)

    @property
    def is_classifier(self) -> bool:
        """Whether it predicts classes, and not numbers."""
        return self.bundle.task == "classification"

    def predict(self, rows: Rows) -> Predictions:
        """Labels or values, and probabilities, of rows in the signature's order.

        Raises:
            NoPrediction: the model fails on these values, or computes something infinite.
            Exception: it fails for another reason, such as too little memory.
        """
        try:
            labels, probabilities = self.predictor.predict(rows)
        except CAUSED_BY_VALUES as error:
            text = str(error).strip().splitlines()
            raise NoPrediction(f"{type(error).__name__}: {text[0][:300] if text else ''}") from error
        if self.is_classifier:
            classes = self.classes
            if classes:
                labels = [classes.get(label, label) for label in labels]
            if probabilities is not None and not math.isfinite(sum(chain.from_iterable(probabilities))):
                raise NoPrediction("a probability is not a finite number; a value is far out of the model's range")
            return Predictions(labels, probabilities)
        values = list(map(float, labels))
        if not math.isfinite(sum(map(abs, values))) and not all(map(math.isfinite, values)):
            raise NoPrediction("the prediction is not a finite number; a value is far out of the model's range")
        return Predictions(values, None)

    def predict_and_count(self, rows: Rows, size: int) -> Predictions:
        """As `predict`; the rows and their predictions are counted.

        Args:
            size: bytes of the request bodies that the rows came in.
        """
        if self.as_matrix and not isinstance(rows, np.ndarray):
            # once, for the model and for the counts; from a list of tuples numpy would first find out the shape
            values = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * len(rows[0]))
            rows = values.reshape(len(rows), -1)
        predictions = self.predict(rows)
        self.meter.count(rows, predictions.labels, size)
        if self.shadow is not None:
            self.shadow.offer(rows, predictions.labels, size)
        return predictions


def load_served_model(
    name: str, version: str, run_id: str, bundle: Bundle, metrics: Metrics, incarnation: str, loaded_at: str
) -> ServedModel:
    """Load a verified bundle and try it on its golden rows.

    Raises:
        BundleError: the model does not load, or (GoldenMismatch) answers the golden rows differently.
    """
    predictor = load_predictor(bundle)  # first: a version that does not load gets no meter
    seconds = _seconds(predictor, bundle) if bundle.serving == "onnx" else math.inf
    in_thread = seconds > SLOW_SECONDS
    rows = len(bundle.golden.rows)
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
        classes={} if all(type(label) is str for label in bundle.classes) else {one: one for one in bundle.classes},
        as_matrix=predictor.takes_matrix and all(feature.dtype in EXACT for feature in bundle.features),
        in_thread=in_thread,
        inline_rows=MAX_BATCH if in_thread else max(1, min(MAX_BATCH, int(rows * SLOW_SECONDS / seconds))),
    )


def _seconds(predictor: Predictor, bundle: Bundle) -> float:
    """The CPU time that the golden rows take, the shortest of three: what else the machine does is not counted."""
    times = []
    for _ in range(3):
        begin = time.thread_time()
        predictor.predict(bundle.golden.rows)
        times.append(time.thread_time() - begin)
    return min(times)
