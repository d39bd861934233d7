"""Columns of dates in training data: which they are, and as what the estimator gets them."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from app.dates import EXPECTED, FIRST, LAST, days_of, is_date
from app.registry.reference import is_missing
from flows.model import Model
from flows.sources import DatasetError

SHOWN = 3  # values that are no dates
PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}  # pandas' units


def date_features(model: Model, own: pd.DataFrame) -> tuple[str, ...]:
    """The features that are dates: those that the model file names or, where it says nothing, those that are found.

    Args:
        own: what the model's load() gives.

    Raises:
        DatasetError: the model file names what is no feature.
    """
    features = [name for name in own.columns if name not in (model.target, model.column_apart)]
    if model.dates is None:
        return tuple(name for name in features if name not in model.categories and holds_dates(own[name]))
    unknown = [name for name in model.dates if name not in features]
    if unknown:
        raise DatasetError(f"dates of {model.name} names {unknown[0]!r}, which is no feature")
    return model.dates


def holds_dates(column: pd.Series) -> bool:
    """Whether every value of a column is a date, by its type or as ISO 8601 text, and one is there at least."""
    dtype = column.dtype
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return True
    is_arrow_date = isinstance(dtype, pd.ArrowDtype) and issubclass(dtype.type, date)
    is_text = pd.api.types.is_string_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype)
    if not (is_arrow_date or is_text or pd.api.types.is_object_dtype(dtype)):
        return False
    is_empty = True
    for value in column:  # the first one that is no date ends it
        if is_missing(value):
            continue
        if not is_date(value):
            return False
        is_empty = False
    return not is_empty


def with_days(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """The frame with these columns, as far as it has them, as `as_days` makes them.

    Raises:
        DatasetError: values are no dates; it names the columns and the first such rows.
    """
    frame = frame.copy(deep=False)
    reasons: list[str] = []
    for name in frame.columns.intersection(list(names)):
        try:
            frame[name] = as_days(frame[name])
        except DatasetError as error:
            reasons.append(str(error))
    if reasons:
        raise DatasetError("; ".join(reasons))
    return frame


def as_days(column: pd.Series) -> pd.Series:
    """A column of dates as days since 1970-01-01 UTC: float64, NaN where it has none.

    Raises:
        DatasetError: as `with_days`.
    """
    is_missing_there = column.isna().to_numpy()
    if pd.api.types.is_datetime64_any_dtype(column.dtype) and not isinstance(column.dtype, pd.ArrowDtype):
        days = _days_of_times(column)
    else:
        known: dict[Any, float] = {}  # the same dates are there again and again
        pairs = zip(column, is_missing_there, strict=True)
        values = (np.nan if lacks else _days_or_nan(value, known) for value, lacks in pairs)
        days = np.fromiter(values, np.float64, len(column))
    wrong = np.flatnonzero(np.isnan(days) & ~is_missing_there)
    if len(wrong):
        rows = ", ".join(f"{_told(column.iloc[row])} in row {row}" for row in wrong[:SHOWN])
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise DatasetError(f"column {column.name!r} has {rows}{more}: {EXPECTED} is needed, of the years 1 to 9999")
    return pd.Series(days, column.index, name=column.name)


def _days_or_nan(value: Any, known: dict[Any, float]) -> float:
    if value not in known:
        try:
            known[value] = days_of(value)
        except ValueError:
            known[value] = np.nan
    return known[value]


def _days_of_times(column: pd.Series) -> np.ndarray:
    """Days of times of any unit, shape (n_rows,), as `days_of` has them; NaN for those out of the years 1 to 9999."""
    in_utc = column if column.dt.tz is None else column.dt.tz_convert(None)
    times = in_utc.to_numpy(copy=True)
    about = times.astype("int64") / PER_DAY[np.datetime_data(times.dtype)[0]]  # no unit overflows here
    times[~((about >= FIRST) & (about <= LAST))] = np.datetime64("NaT")
    whole = times.astype("datetime64[us]")
    return np.where(np.isnat(whole), np.nan, whole.astype("int64") / PER_DAY["us"])


def _told(value: Any) -> str:
    """A value for an error: text in quotation marks."""
    return repr(value) if isinstance(value, str) else str(value)
