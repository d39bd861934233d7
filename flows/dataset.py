"""Training data: where it is read from, and what it must be like."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any
from urllib.error import URLError

import numpy as np
import pandas as pd
import pandera.pandas as pa

from flows.model import Model

MIN_PER_CLASS = 4  # of which the split puts at least one into the held-out rows


class DatasetError(ValueError):
    """The data cannot be trained on; the message says what is wrong with it."""


class SourceUnavailable(OSError):
    """The data's source could not be read; trying again may help."""


def read_source(source: str) -> pd.DataFrame:
    """Read a CSV or Parquet file from a path or URL.

    Raises:
        SourceUnavailable: the file is missing, or its server does not answer.
        DatasetError: it is of another kind, or half-written.
    """
    suffix = source.split("?", 1)[0].rsplit(".", 1)[-1].lower()
    readers: dict[str, Callable[[str], pd.DataFrame]] = {
        "csv": pd.read_csv,
        "parquet": pd.read_parquet,
        "pq": pd.read_parquet,
    }
    if suffix not in readers:
        raise DatasetError(f"the source {source!r} ends in {suffix!r}; .csv and .parquet can be read")
    try:
        return readers[suffix](source)
    except (OSError, ValueError) as error:
        # pyarrow raises a bare OSError for some damaged files
        if isinstance(error, URLError | TimeoutError | FileNotFoundError) or getattr(error, "errno", None):
            raise SourceUnavailable(f"the source {source!r} cannot be read: {error}") from error
        raise DatasetError(f"the source {source!r} is not a whole {suffix} file: {error}") from error


def load(model: Model, source: str | None = None) -> tuple[pd.DataFrame, str]:
    """The model's data as it is, and where it came from.

    Args:
        source: path or URL of a file to read; by default the model's own source, and then its `load()`.

    Raises:
        SourceUnavailable, DatasetError: as `read_source`.
    """
    chosen = source or model.source
    if chosen:
        return read_source(chosen), chosen
    return model.load(), f"flows/models/{model.name}.py"


def column_kind(dtype: Any) -> str:
    """The signature's type name of a column, or "" for one that cannot be a feature."""
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if pd.api.types.is_integer_dtype(dtype):
        return "long"
    if pd.api.types.is_float_dtype(dtype):
        return "double"
    if pd.api.types.is_string_dtype(dtype) or pd.api.types.is_object_dtype(dtype) or dtype == "category":
        return "string"
    return ""


PANDAS = {"boolean": "bool", "long": "int64", "double": "float64", "string": "str"}


def nullable_features(model: Model, like: pd.DataFrame) -> tuple[str, ...]:
    """The features that a row may be without: those that the model file names, and those that lack values.

    Args:
        like: the model's data, or some of it.

    Raises:
        DatasetError: the model file names what is no feature, or one whose values can be told from no value by nothing.
    """
    lacking = [str(name) for name in like.columns[like.isna().any()] if name != model.target]
    unknown = [name for name in model.nullable if name not in like.columns.drop(model.target, errors="ignore")]
    if unknown:
        raise DatasetError(f"nullable of {model.name} names {unknown[0]!r}, which is no feature")
    names = tuple(dict.fromkeys([*model.nullable, *lacking]))
    for name in names:
        if column_kind(like[name].dtype) in ("boolean", "long") or _has_booleans(like[name]):
            raise DatasetError(
                f"column {name!r} may be without a value, so it cannot be {like[name].dtype}: make it fractions in "
                f'load(), as with frame["{name}"].astype("float64")'
            )
    return names


def _has_booleans(column: pd.Series) -> bool:
    return column.dtype == object and any(isinstance(value, bool) for value in column)


def schema(model: Model, like: pd.DataFrame) -> pa.DataFrameSchema:
    """The pandera schema of the model's data.

    Args:
        like: the data to take columns and types from: what the model's `load()` gives.

    Raises:
        DatasetError: a column is of a type that cannot be used.
    """
    columns = {}
    nullable = nullable_features(model, like)
    for name, dtype in like.dtypes.items():
        kind = column_kind(dtype)
        if not kind:
            raise DatasetError(f"column {name!r} has the type {dtype}; numbers, booleans and text can be used")
        finite = pa.Check(np.isfinite, name="finite", error="infinite values") if kind == "double" else None
        columns[name] = pa.Column(PANDAS[kind], checks=finite, nullable=name in nullable, required=True)
    return pa.DataFrameSchema(columns, strict="filter")


def validate(model: Model, frame: pd.DataFrame) -> pd.DataFrame:
    """The columns the model needs, in its own order and types.

    Whole numbers are taken where the model has fractions, never the other way round. Columns the model does not know
    are left out. Values may be missing (NaN) where the model's own data lacks some, too, or the model file says so.

    Raises:
        DatasetError: a column is missing, has another type, holds infinity, or NaN where none may be; there are too few
            rows, or a single class. All that is wrong with the columns is named at once.
    """
    own = _plain_types(model.load())
    if model.target not in own.columns:
        raise DatasetError(f"load() of {model.name} gives no column {model.target!r}, which is its target")
    _check_categories(model, own)
    expected = schema(model, own)
    frame = _cast(_plain_types(frame), own)
    try:
        frame = expected.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        raise DatasetError("; ".join(_reasons(errors.failure_cases, own, frame, model.target))) from errors
    frame = frame[list(own.columns)].reset_index(drop=True)
    if len(frame) < model.min_rows:
        raise DatasetError(f"{len(frame)} rows, the model {model.name} needs at least {model.min_rows} (min_rows)")
    _check_target(model, frame[model.target])
    empty = frame.columns[frame.isna().all()]
    if len(empty):
        raise DatasetError(f"column {empty[0]!r} has no value in any row")
    return frame


def _check_categories(model: Model, own: pd.DataFrame) -> None:
    """Raises DatasetError when the model file names what is no feature of text as one with known values alone."""
    for name in model.categories:
        if name not in own.columns.drop(model.target):
            raise DatasetError(f"categories of {model.name} names {name!r}, which is no feature")
        if column_kind(own[name].dtype) != "string" or _has_booleans(own[name]):
            raise DatasetError(f"categories of {model.name} names {name!r}, which is no text but {own[name].dtype}")


_MASKED = (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)


def _plain_types(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with pandas' own numbers (Int64, boolean) as numpy's, and as fractions where values are missing."""
    plain = frame.copy(deep=False)
    for name, dtype in frame.dtypes.items():
        if isinstance(frame[name].array, _MASKED):
            plain[name] = frame[name].astype("float64" if frame[name].isna().any() else dtype.type)
    return plain


def _cast(frame: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """The frame with whole numbers as fractions and text as text, where the model's own data has these."""
    frame = frame.copy(deep=False)
    for name in frame.columns.intersection(own.columns):
        kind, own_kind = column_kind(frame[name].dtype), column_kind(own[name].dtype)
        if own_kind == "double" and kind in ("double", "long"):
            frame[name] = frame[name].astype("float64")
        elif own_kind == kind == "string":
            frame[name] = frame[name].astype("str").where(frame[name].notna())
    return frame


def _check_target(model: Model, target: pd.Series) -> None:
    """Raises DatasetError when the column cannot be learned: classes are missing or rare, or values are no numbers."""
    if model.task == "regression":
        if column_kind(target.dtype) not in ("double", "long"):
            raise DatasetError(f"the target {model.target!r} of a regression must be a number")
        return
    counts = target.value_counts()
    if len(counts) < 2:
        raise DatasetError(f"the target {model.target!r} has the single class {counts.index[0]!r}; two are needed")
    rare = counts[counts < MIN_PER_CLASS]
    if len(rare):
        raise DatasetError(
            f"the class {rare.index[0]!r} of {model.target!r} has {rare.iloc[0]} rows, "
            f"at least {MIN_PER_CLASS} are needed"
        )


def _reasons(cases: pd.DataFrame, own: pd.DataFrame, frame: pd.DataFrame, target: str) -> list[str]:
    reasons: dict[str, None] = {}
    mistyped = set(cases.loc[cases["check"].astype(str).str.startswith("dtype"), "column"])
    for case in cases.to_dict("records"):
        column, check = case["column"], str(case["check"])
        if column in mistyped and not check.startswith("dtype"):
            continue  # other checks of such a column say nothing
        if check == "column_in_dataframe":
            reasons[f"column {case['failure_case']!r} is missing"] = None
        elif check.startswith("dtype"):
            reasons[
                f"column {column!r} has the type {frame[column].dtype}, {column_kind(own[column].dtype)} is needed"
            ] = None
        elif check == "not_nullable":
            rows = cases[(cases["column"] == column) & (cases["check"] == "not_nullable")]
            reasons[
                f"column {column!r} has {len(rows)} empty values (NaN), the first in row {rows['index'].iloc[0]}"
                + (f"; if it may, say nullable=({column!r},) in the model file" if column != target else "")
            ] = None
        else:
            reasons[f"column {column!r}: {check} (row {case['index']}: {case['failure_case']!r})"] = None
    return list(reasons)


def split(model: Model, frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out `model.holdout` of the rows of each class, of all rows for a regression.

    Which rows depends on a hash of their content and on `model.split_seed`, not on their place. So a row that was held
    out stays so when rows are added, but for a few at the edge, and production was not trained on the rows that its
    successor is compared with it on; equal rows are on the same side.

    Returns:
        training rows and held-out rows.
    """
    order = row_order(frame, model.split_seed)
    groups = frame[model.target] if model.task == "classification" else pd.Series(0, index=frame.index)
    held_out = np.zeros(len(frame), dtype=bool)
    for _, rows in frame.groupby(groups.to_numpy()).indices.items():
        hashes = order[rows]
        quota = min(max(1, round(model.holdout * len(rows))), len(rows) - 1)
        held_out[rows] = hashes <= np.sort(hashes)[quota - 1]
    return frame[~held_out].reset_index(drop=True), frame[held_out].reset_index(drop=True)


def row_order(frame: pd.DataFrame, seed: int) -> np.ndarray:
    """A number from 0 to 2**64 - 1 for each row, by its content and the seed alone, shape (n_rows,).

    pandas' hash of the row, and one step of SplitMix64 (Steele, Lea and Flood, 2014) for the seed.
    """
    hashes = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    mixed = hashes + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def fingerprint(frame: pd.DataFrame) -> str:
    """sha256, hex, of the frame's columns, types and values."""
    digest = hashlib.sha256(repr([(name, str(dtype)) for name, dtype in frame.dtypes.items()]).encode())
    digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()
