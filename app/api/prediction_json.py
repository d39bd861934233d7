"""Writes the answers of /predict: `contract.Prediction` as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from app.registry.predictor import Predictions
from app.vocabulary import Label

encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, gc=False):
    """The fields of `contract.Prediction`, in their order; what is UNSET is not written."""

    prediction: Any
    probabilities: Any
    model: str
    version: str
    run_id: str
    prediction_id: str
    feedback_token: Any = UNSET


def class_name(label: Label) -> str:
    """A class label as a key of a JSON object."""
    return label if isinstance(label, str) else json.dumps(label)


def _probabilities_type(names: list[str]) -> Callable[..., Any]:
    """What takes a row's probabilities and is written as an object with these names."""
    fields = {f"p{i}": name for i, name in enumerate(names)}
    try:
        return msgspec.defstruct("Probabilities", [(field, float) for field in fields], rename=fields, gc=False)
    except ValueError:  # a name with a quotation mark, or the same one twice
        return lambda *values: dict(zip(names, values, strict=True))


class PredictionWriter:
    """Writes the answers of one version.

    Args:
        model, version, run_id: of the version.
        classes: its labels; empty for a regression.
    """

    def __init__(self, model: str, version: str, run_id: str, classes: tuple[Label, ...]) -> None:
        self._origin = (model, version, run_id)
        self._probabilities = _probabilities_type([class_name(label) for label in classes])

    def write(self, predictions: Predictions, ids: list[str], tokens: list[str] | None, as_list: bool) -> bytes:
        """The answer for one row, or for many as a list.

        Args:
            tokens: for feedback, where they were asked for.
        """
        model, version, run_id = self._origin
        answers = [
            Answer(label, row, model, version, run_id, name)
            for label, row, name in zip(predictions.labels, self._rows(predictions), ids, strict=True)
        ]
        if tokens:
            for answer, token in zip(answers, tokens, strict=True):
                answer.feedback_token = token
        return encode(answers if as_list else answers[0])

    def _rows(self, predictions: Predictions) -> Iterator[Any]:
        """What each row has under `probabilities`."""
        rows = predictions.probabilities
        if rows is None:
            return iter([UNSET] * len(predictions.labels))
        of_row = self._probabilities
        return (of_row(*row) for row in rows)
