"""Writes the answers of /predict: `contract.Prediction` as JSON, by a template for each model version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

from pydantic_core import to_json

from app.registry.predictor import Predictions
from app.vocabulary import Label


def class_name(label: Label) -> str:
    """A class label as a key of a JSON object."""
    return label if isinstance(label, str) else json.dumps(label)


def _json(value: Any) -> str:
    return to_json(value).decode()


class PredictionWriter:
    """Writes the answers of one version.

    Args:
        model, version, run_id: of the version.
        classes: its labels; empty for a regression.
    """

    def __init__(self, model: str, version: str, run_id: str, classes: tuple[Label, ...]) -> None:
        self._labels = {label: _json(label) for label in classes}
        names = ",".join(f"{_escaped(class_name(label))}:%s" for label in classes)
        origin = f'"model":{_escaped(model)},"version":{_escaped(version)},"run_id":{_escaped(run_id)}'
        end = f',{origin},"prediction_id":"%s"'
        self._plain = f'{{"prediction":%s{end}'
        self._probable = f'{{"prediction":%s,"probabilities":{{{names}}}{end}'

    def write(self, predictions: Predictions, ids: list[str], tokens: list[str] | None, as_list: bool) -> bytes:
        """The answer for one row, or for many as a list.

        Args:
            tokens: for feedback, where they were asked for.
        """
        known = self._labels
        labels = [known.get(label) or _json(label) for label in predictions.labels]
        if predictions.probabilities is None:
            answers = [self._plain % pair for pair in zip(labels, ids, strict=True)]
        else:
            template = self._probable
            columns = [_numbers(predictions.probabilities)] * len(predictions.probabilities[0])
            answers = [template % row for row in zip(labels, *columns, ids, strict=True)]
        if tokens:
            answers = [f'{answer},"feedback_token":"{token}"' for answer, token in zip(answers, tokens, strict=True)]
        return (f"[{'},'.join(answers)}}}]" if as_list else f"{answers[0]}}}").encode()


def _numbers(rows: list[list[float]]) -> Iterator[str]:
    """The numbers of all rows as JSON, one after another."""
    if len(rows) == 1:
        return map(repr, rows[0])
    # at once is three times as fast as one by one
    return iter(to_json([*chain.from_iterable(rows)])[1:-1].decode().split(","))


def _escaped(text: str) -> str:
    """Text as JSON, for a template."""
    return _json(text).replace("%", "%%")
