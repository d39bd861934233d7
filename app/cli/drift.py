"""`mlops drift`: sends the API rows as they would come if the world had changed, to give the loop something to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from app.cli.errors import CommandError
from app.clients.model_api import ModelApiClient
from app.contract.feedback import TokenFeedback
from app.contract.predictions import Prediction
from app.dates import days_of, text_of
from app.registry.predictor import plain_rows
from flows.model import Model

BATCH = 100  # rows of one request


def shifted(model: Model, rows: int, shift: float, features: Sequence[str], seed: int) -> pd.DataFrame:
    """Rows of the model's own load(), drawn with replacement, whose numeric features are shifted; with the target.

    Args:
        rows: how many.
        shift: in standard deviations of each feature.
        features: those that are shifted; all numeric ones where none is named.
        seed: of the draw.

    Raises:
        CommandError: a feature is not one of the model's, or not a number.
    """
    training_rows = model.load()
    numeric = [name for name in training_rows.columns.drop(model.target) if _is_number(training_rows[name])]
    if unknown := [name for name in features if name not in numeric]:
        raise CommandError(f"{unknown[0]!r} is no numeric feature of {model.name}; those are: {', '.join(numeric)}")
    drawn = training_rows.sample(rows, replace=True, random_state=seed).reset_index(drop=True)
    for name in features or numeric:
        column = training_rows[name]
        moved = drawn[name] + shift * column.std()
        drawn[name] = moved.round().astype(column.dtype) if column.dtype.kind in "iu" else moved
    return drawn


def _is_number(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def send(api: ModelApiClient, model: Model, frame: pd.DataFrame, feedback: bool) -> Iterator[str]:
    """Send rows to the API, in batches, and tell of each.

    Args:
        frame: features and target.
        feedback: whether to send the target too, as the true labels.

    Yields:
        a line for each batch, and one about the answers.

    Raises:
        ServiceError: the API does not answer, or refuses.
    """
    predictions: list[Prediction] = []
    for begin in range(0, len(frame), BATCH):
        batch = frame.iloc[begin : begin + BATCH]
        answers = api.predict_rows(model.name, _as_json(batch.drop(columns=model.target)))
        predictions += answers
        if feedback:
            labels = batch[model.target].tolist()
            api.feedback_many(
                [
                    TokenFeedback(feedback_token=answer.feedback_token or "", label=label)
                    for answer, label in zip(answers, labels, strict=True)
                ]
            )
        yield f"{begin + len(batch):6} of {len(frame)} rows predicted{' and fed back on' if feedback else ''}"
    versions = ", ".join(sorted({prediction.version for prediction in predictions}, key=int))
    summary = _summary(predictions, frame[model.target].tolist(), model)
    yield f"answered by version {versions} of {model.name}: {summary}"


def _summary(predictions: Sequence[Prediction], labels: Sequence[Any], model: Model) -> str:
    """How right the predictions are."""
    pairs = [(answer.prediction, label) for answer, label in zip(predictions, labels, strict=True)]
    if model.task == "regression":
        return f"mean absolute error {np.mean([abs(predicted - label) for predicted, label in pairs]):.4g}"
    counts = Counter(str(predicted) for predicted, _ in pairs)
    mix = ", ".join(f"{count} {label}" for label, count in counts.most_common())
    return f"{mix}; {sum(predicted == label for predicted, label in pairs) / len(pairs):.0%} right"


def _as_json(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of Python's own types, as JSON has them; None for missing values, and dates as text."""
    rows = plain_rows(frame)
    texts = [[text_of(days_of(value)) if isinstance(value, date) else value for value in row] for row in rows]
    return [dict(zip(map(str, frame.columns), row, strict=True)) for row in texts]
