"""Training data: what it must be like, which rows are held out, and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold, TimeSeriesSplit

from flows import sources
from flows.date_columns import date_features, holds_dates, with_days
from flows.model import GroupSplit, Model, TimeSplit
from flows.sources import DatasetError

MIN_PER_CLASS = 4  # of which the split puts at least one into the held-out rows


def load(model: Model, source: str | None = None) -> tuple[pd.DataFrame, str]:
    """The model's data as it is, and where it came from, without passwords.

    Args:
        source: path or URL of what to read; by default the model's own source, and then its `load()`.

    Raises:
        SourceUnavailable, DatasetError: as `sources.read`.
    """
    chosen = source or model.source
    if chosen:
        return sources.read(chosen, model.max_rows), sources.shown(chosen)
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
            named = "" if model.dates is None else " (as far as dates= of the model file names them)"
            raise DatasetError(
                f"column {name!r} has the type {dtype}; numbers, booleans, text and dates{named} can be used"
            )
        finite = pa.Check(np.isfinite, name="finite", error="infinite values") if kind == "double" else None
        columns[name] = pa.Column(PANDAS[kind], checks=finite, nullable=name in nullable, required=True)
    return pa.DataFrameSchema(columns, strict="filter")


def validate(model: Model, frame: pd.DataFrame) -> pd.DataFrame:
    """As `validate_and_find_dates`, the rows alone."""
    return validate_and_find_dates(model, frame)[0]


def validate_and_find_dates(model: Model, frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The columns the model needs, in its own order and types.

    Whole numbers are taken where the model has fractions, never the other way round. Columns the model does not know
    are left out. Values may be missing (NaN) where the model's own data lacks some, too, or the model file says so. A
    column that splits the rows and is no feature is kept as `split` needs it, times as UTC. Features that are dates are
    days since 1970-01-01 UTC, float64; their names are the second of what is returned.

    Raises:
        DatasetError: a column is missing, has another type, holds infinity, or NaN where none may be, or a value that
            is no date; there are too few rows, or a single class; the target is a date. All that is wrong with the
            columns is named at once, after what is no date.
    """
    own = _plain_types(model.load())
    if model.target not in own.columns:
        raise DatasetError(f"load() of {model.name} gives no column {model.target!r}, which is its target")
    if model.split and model.split.column not in own.columns:
        raise DatasetError(f"load() of {model.name} gives no column {model.split.column!r}, which splits its rows")
    if holds_dates(own[model.target]):
        raise DatasetError(
            f"the target {model.target!r} is a date, which cannot be predicted: have load() make a number of it, as by "
            f'(pd.to_datetime(frame["{model.target}"]) - pd.to_datetime(frame["..."])).dt.days, or classes'
        )
    dates = date_features(model, own)
    own, frame = with_days(own, dates), with_days(frame, dates)
    learned = features_and_target(model, own)
    _check_categories(model, learned)
    expected = schema(model, learned)
    frame = _cast(_plain_types(frame), own)
    reasons = _reasons_of_split(model, frame, own)
    try:
        checked = expected.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        reasons = [*_reasons(errors.failure_cases, learned, frame, model.target), *reasons]
    if reasons:
        raise DatasetError("; ".join(dict.fromkeys(reasons)))
    if apart := model.column_apart:
        checked[apart] = _times(frame[apart]) if isinstance(model.split, TimeSplit) else frame[apart]
    checked = checked[list(own.columns)].reset_index(drop=True)
    if len(checked) < model.min_rows:
        raise DatasetError(f"{len(checked)} rows, the model {model.name} needs at least {model.min_rows} (min_rows)")
    _check_target(model, checked[model.target])
    empty = checked.columns[checked.isna().all()]
    if len(empty):
        raise DatasetError(f"column {empty[0]!r} has no value in any row")
    return checked, dates


def features_and_target(model: Model, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows without the column that splits them, where it is no feature."""
    return frame.drop(columns=model.column_apart) if model.column_apart else frame


def _reasons_of_split(model: Model, frame: pd.DataFrame, own: pd.DataFrame) -> list[str]:
    """What is wrong with the column that splits the rows."""
    if not model.split:
        return []
    name = model.split.column
    if name not in frame.columns:
        return [f"column {name!r} is missing"]
    column, like = frame[name], own[name]
    if column.isna().any():
        first = np.flatnonzero(column.isna())[0]
        return [
            f"column {name!r}, which splits the rows, has {column.isna().sum()} empty values (NaN), the first in "
            f"row {first}"
        ]
    if isinstance(model.split, TimeSplit):
        try:
            if _times(column).dtype.kind != _times(like).dtype.kind:
                return [f"column {name!r} has the type {column.dtype}, {like.dtype} is needed"]
        except DatasetError as error:
            return [str(error)]
    elif not column_kind(like.dtype):
        return [f"column {name!r} has the type {like.dtype}; numbers, booleans and text can be groups"]
    elif column_kind(column.dtype) != column_kind(like.dtype):
        # the same group would have another hash
        return [f"column {name!r} has the type {column.dtype}, {column_kind(like.dtype)} is needed"]
    return []


def _times(column: pd.Series) -> pd.Series:
    """Times that can be compared: numbers as they are, all else in UTC, shape (n_rows,).

    Raises:
        DatasetError: a value is neither a time nor a number.
    """
    if column_kind(column.dtype) in ("long", "double"):
        infinite = np.flatnonzero(np.isinf(column))
        if len(infinite):
            raise DatasetError(f"column {column.name!r}: infinite values (row {infinite[0]})")
        return column
    what = "the rows are split by it, so times (2026-01-31T12:00:00Z, where they are text) or numbers are needed"
    if column_kind(column.dtype) == "boolean":
        raise DatasetError(f"column {column.name!r} has the type {column.dtype}; {what}")
    times = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
    unread = column[times.isna() & column.notna()]
    if len(unread):
        raise DatasetError(f"column {column.name!r} has the value {unread.iloc[0]!r} in row {unread.index[0]}; {what}")
    return times.astype("datetime64[us, UTC]")


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
    """The frame with the model's own kinds of numbers and text, where nothing is lost by it."""
    frame = frame.copy(deep=False)
    for name in frame.columns.intersection(own.columns):
        kind, own_kind = column_kind(frame[name].dtype), column_kind(own[name].dtype)
        if own_kind == "double" and kind in ("double", "long"):
            frame[name] = frame[name].astype("float64")
        elif own_kind == kind == "long" and frame[name].dtype != "uint64":
            frame[name] = frame[name].astype("int64")
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


# -- which rows are held out -----------------------------------------------------------------------------------------


def split(model: Model, frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hold out some rows for the evaluation, as the model file says.

    By default these are `model.holdout` of the rows of each class, of all rows for a regression. Which ones depends on
    a hash of their content and on `model.split_seed`, not on their place. So a row that was held out stays so when rows
    are added, but for a few at the edge, and production was not trained on the rows that its successor is compared with
    it on; equal rows are on the same side. A class whose rows are all equal is trained on as a whole.

    A GroupSplit chooses each group by a hash of its value alone, so that none changes sides, but where there are so few
    that all or none would be chosen. A TimeSplit's edge moves on as newer rows come.

    Args:
        frame: validated, shape (n_rows, n_columns).

    Returns:
        training rows and held-out rows, features and target.

    Raises:
        DatasetError: there is nothing to hold out, as all rows, times or groups are the same; or a TimeSplit or a
            GroupSplit leaves a class to one side.
    """
    held_out = _held_out(model, frame)
    rows = features_and_target(model, frame)
    return rows[~held_out].reset_index(drop=True), rows[held_out].reset_index(drop=True)


def folds(model: Model, frame: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """The folds of a cross-validation on the rows that `split` trains on: `model.folds` times rows to fit, and to test.

    By scikit-learn: StratifiedKFold (KFold for a regression); for a GroupSplit StratifiedGroupKFold (GroupKFold); for a
    TimeSplit TimeSeriesSplit, of the distinct times, so that each fold is tested on rows newer than those it is fitted
    on.

    Args:
        frame: validated, as for `split`.

    Yields:
        features and target of both.

    Raises:
        DatasetError: there are fewer rows, times or groups than folds need, or a fold lacks a class.
    """
    training = frame[~_held_out(model, frame)].reset_index(drop=True)
    rows = features_and_target(model, training)
    target = training[model.target]
    is_classes = model.task == "classification"
    for number, (fitted, tested) in enumerate(_fold_places(model, training), 1):
        absent = set(target) - set(target.iloc[fitted]) if is_classes else set()
        if absent or not len(tested):
            what = f"has no row of the class {min(absent, key=str)!r} to fit" if absent else "has no rows to test"
            raise DatasetError(f"fold {number} of {model.folds} {what}; take fewer folds")
        yield rows.iloc[fitted].reset_index(drop=True), rows.iloc[tested].reset_index(drop=True)


def _fold_places(model: Model, training: pd.DataFrame) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The places of the rows to fit and of those to test."""
    target, number = training[model.target], model.folds
    is_classes = model.task == "classification"
    if model.split:
        values, codes = _values(model, training)
        if len(values) < number + isinstance(model.split, TimeSplit):
            what = "times" if isinstance(model.split, TimeSplit) else "groups"
            raise DatasetError(
                f"the training rows have {len(values)} {what} in {model.split.column!r}, too few for folds={number}"
            )
        if isinstance(model.split, TimeSplit):
            for before, after in TimeSeriesSplit(number).split(values):
                yield np.flatnonzero(np.isin(codes, before)), np.flatnonzero(np.isin(codes, after))
        else:
            by_group = StratifiedGroupKFold(number) if is_classes else GroupKFold(number)
            yield from by_group.split(training, target, codes)
        return
    fewest = target.value_counts().min() if is_classes else len(training)
    if fewest < number:
        what = f"of the class {target.value_counts().idxmin()!r} " if is_classes else ""
        raise DatasetError(f"there are {fewest} training rows {what}for folds={number}; take fewer folds")
    kind = StratifiedKFold if is_classes else KFold
    yield from kind(number, shuffle=True, random_state=model.split_seed).split(training, target)


def _values(model: Model, frame: pd.DataFrame) -> tuple[pd.Index, np.ndarray]:
    """The distinct values of the column that splits the rows, ascending, and the place of each row's among them."""
    assert model.split
    column = frame[model.split.column]
    codes, values = pd.factorize(_times(column) if isinstance(model.split, TimeSplit) else column, sort=True)
    return pd.Index(values), codes


def notes_on_split(model: Model, training: pd.DataFrame, held_out: pd.DataFrame) -> list[str]:
    """What somebody should know about the sides of a split, a sentence each.

    Args:
        training, held_out: as `split` gives them.
    """
    notes = []
    if model.task == "classification":
        for label in sorted(set(training[model.target]) - set(held_out[model.target]), key=str):
            notes.append(
                f"no row of the class {label!r} is held out, as all of its rows are the same: the metrics say nothing "
                "about it"
            )
    share = len(held_out) / (len(training) + len(held_out))
    if isinstance(model.split, GroupSplit) and not model.holdout / 2 <= share <= model.holdout * 2:
        notes.append(
            f"{share:.0%} of the rows are held out, where holdout is {model.holdout:.0%}: groups are whole, and some "
            "large; another split_seed chooses others"
        )
    return notes


def _held_out(model: Model, frame: pd.DataFrame) -> np.ndarray:
    """Whether each row is held out, shape (n_rows,)."""
    if isinstance(model.split, TimeSplit):
        held_out = _newest(model, frame)
    elif isinstance(model.split, GroupSplit):
        held_out = _some_groups(model, frame)
    else:
        return _some_of_each_class(model, frame)
    if model.task == "classification":
        sides = {"training": frame[~held_out], "held-out": frame[held_out]}
        for side, rows in sides.items():
            absent = set(frame[model.target]) - set(rows[model.target])
            if absent:
                cure = "another holdout" if isinstance(model.split, TimeSplit) else "another holdout or split_seed"
                raise DatasetError(
                    f"the class {min(absent, key=str)!r} of {model.target!r} is in none of the {len(rows)} {side} rows "
                    f"of the split by {model.split}: take {cure}, or leave its rows out in load() and the source"
                )
    return held_out


def _newest(model: Model, frame: pd.DataFrame) -> np.ndarray:
    assert model.split
    times = _times(frame[model.split.column]).to_numpy()
    quota = max(1, round(model.holdout * len(times)))
    edge = np.sort(times)[-quota]
    # rows of one time are on one side: the one that leaves the share closer to what was asked for
    sides = [newer for newer in (times >= edge, times > edge) if newer.any() and not newer.all()]
    if not sides:
        raise DatasetError(f"all rows have the same time in {model.split.column!r}: none are newer, to be held out")
    return min(sides, key=lambda newer: abs(int(newer.sum()) - quota))


def _some_groups(model: Model, frame: pd.DataFrame) -> np.ndarray:
    assert model.split
    values, codes = _values(model, frame)
    if len(values) < 2:
        raise DatasetError(f"all rows are of one group in {model.split.column!r}; at least 2 are needed")
    # by its own value alone, so that a group stays on its side when others come
    order = row_order(pd.DataFrame({"group": values}), model.split_seed)
    chosen = order < np.uint64(model.holdout * 2.0**64)
    if not chosen.any() or chosen.all():
        chosen = order <= np.sort(order)[0 if not chosen.any() else -2]
    return chosen[codes]


def _some_of_each_class(model: Model, frame: pd.DataFrame) -> np.ndarray:
    order = row_order(frame, model.split_seed)
    classes = frame[model.target] if model.task == "classification" else pd.Series(0, index=frame.index)
    held_out = np.zeros(len(frame), dtype=bool)
    for _, rows in frame.groupby(classes.to_numpy()).indices.items():
        hashes = order[rows]
        quota = min(max(1, round(model.holdout * len(rows))), len(rows) - 1)
        edge = np.sort(hashes)[quota - 1]
        # equal rows are on one side, but never all of a class on this one
        held_out[rows] = hashes <= edge if (hashes > edge).any() else hashes < edge
    if not held_out.any():
        what = "the rows of each class are" if model.task == "classification" else "all rows are"
        raise DatasetError(f"{what} the same: none can be held out, as equal rows are on one side")
    return held_out


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
