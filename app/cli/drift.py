"""`mlops drift`: sends the API rows as they would come if the world had changed, to give the loop something to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import pandas as pd

from flows.model import Model

BATCH = 100  # rows of one request


class DriftError(Exception):
    """The rows could not be made or sent; the message says why."""


def shifted(model: Model, rows: int, shift: float, features: Sequence[str], seed: int) -> pd.DataFrame:
    """Rows of the model's own load(), drawn with replacement, whose numeric features are shifted; with the target.

    Args:
        shift: in standard deviations of each feature.
        features: those that are shifted; all numeric ones where none is named.

    Raises:
        DriftError: a feature is not there or not a number.
    """
    own = model.load()
    numeric = [name for name in own.columns.drop(model.target) if _is_number(own[name])]
    if wrong := [name for name in features if name not in numeric]:
        raise DriftError(f"{wrong[0]!r} is no numeric feature of {model.name}; those are: {', '.join(numeric)}")
    drawn = own.sample(rows, replace=True, random_state=seed).reset_index(drop=True)
    for name in features or numeric:
        moved = drawn[name] + shift * own[name].std()
        drawn[name] = moved.round().astype(own[name].dtype) if own[name].dtype.kind in "iu" else moved
    return drawn


def _is_number(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def send(api: httpx.Client, model: Model, frame: pd.DataFrame, feedback: bool) -> Iterator[str]:
    """Send the rows to the API, and their true labels where `feedback`; yields what happened, a line at a time.

    Raises:
        DriftError: the API does not answer, or refuses.
    """
    answered: list[dict[str, Any]] = []
    for begin in range(0, len(frame), BATCH):
        batch = frame.iloc[begin : begin + BATCH]
        said = _post(api, f"/models/{model.name}/predict", _plain(batch.drop(columns=model.target)))
        answered += said
        if feedback:
            labels = [
                {"prediction_id": one["prediction_id"], "label": label} for one, label in _paired(said, batch, model)
            ]
            _post(api, "/feedback", labels)
        yield f"{begin + len(batch):6} of {len(frame)} rows predicted{' and fed back on' if feedback else ''}"
    versions = ", ".join(sorted({one["version"] for one in answered}, key=int))
    yield f"answered by version {versions} of {model.name}: {_outcome(answered, frame, model)}"


def _outcome(answered: list[dict[str, Any]], frame: pd.DataFrame, model: Model) -> str:
    pairs = [(one["prediction"], label) for one, label in _paired(answered, frame, model)]
    if model.task == "regression":
        return f"mean absolute error {np.mean([abs(said - label) for said, label in pairs]):.4g}"
    counts = Counter(str(said) for said, _ in pairs)
    mix = ", ".join(f"{count} {label}" for label, count in counts.most_common())
    return f"{mix}; {sum(said == label for said, label in pairs) / len(pairs):.0%} right"


def _paired(said: list[dict[str, Any]], rows: pd.DataFrame, model: Model) -> Iterator[tuple[dict[str, Any], Any]]:
    return zip(said, rows[model.target].tolist(), strict=True)


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of Python's own types, as JSON has them."""
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _post(api: httpx.Client, path: str, body: Any) -> Any:
    try:
        answer = api.post(path, json=body)
    except httpx.HTTPError as error:
        raise DriftError(
            f"the API at {api.base_url} does not answer ({error}); start it with `make demo`, or name it with --url"
        ) from error
    if answer.is_error:
        raise DriftError(f"the API at {api.base_url} answered {answer.status_code} to {path}: {answer.text[:500]}")
    return answer.json()
