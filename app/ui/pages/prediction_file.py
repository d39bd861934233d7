"""Predictions for a file of rows: a CSV is dropped, and comes back with what the model says of each row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

import streamlit as st

from app.clients.errors import ServiceError
from app.clients.model_api import ModelApiClient
from app.contract.models import FeatureInfo, ModelInfo
from app.dates import EXPECTED, days_of
from app.ui.elements import show_error
from app.vocabulary import INTEGER, NUMERIC

MAX_ROWS = 100_000
AT_ONCE = 1000  # rows of one request
TRUE_FALSE = {"true": True, "1": True, "false": False, "0": False}

Line = dict[str, str]


def ask_for_file(api: ModelApiClient, info: ModelInfo) -> None:
    """Take a CSV, and offer it with the predictions."""
    with st.expander("Many rows, from a file", icon=":material/upload_file:"):
        names = ", ".join(f"`{feature.name}`" for feature in info.features)
        file = st.file_uploader(
            "CSV", type="csv", key=f"file {info.name}", help="A header line, then a row a line; other columns are kept."
        )
        st.caption(f"Its columns: {names}. Up to {MAX_ROWS:,} rows.")
        if file is None:
            return
        try:
            with st.spinner("Asking the model API"):
                bar = st.progress(0.0)
                answered = with_predictions(api, info, file.getvalue(), bar.progress)
                bar.empty()
        except ServiceError as error:
            show_error(error)
            return
        name = f"{file.name.removesuffix('.csv')} with predictions.csv"
        st.download_button("Download with predictions", answered, name, "text/csv", icon=":material/download:")


def with_predictions(
    api: ModelApiClient, info: ModelInfo, content: bytes, progress: Callable[[float], Any] = lambda share: None
) -> bytes:
    """The CSV with further columns: the prediction, the version, and the probability of each class.

    Args:
        content: in UTF-8, with a header line that has every feature.
        progress: is called with the share that is done, 0 to 1.

    Raises:
        ServiceError: the file is no such CSV, a value is not one of its feature's, or the API does not answer.
    """
    columns, lines = _read(content, info)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    classes: list[str] = []
    for begin in range(0, len(lines), AT_ONCE):
        part = lines[begin : begin + AT_ONCE]
        rows = [_row(info.features, line, begin + i + 1) for i, line in enumerate(part)]
        try:
            answers = api.predict_rows(info.name, rows, with_tokens=False)
        except ServiceError as error:
            raise ServiceError(f"Rows {begin + 1} to {begin + len(part)}: {error.what}", error.cure) from error
        if begin == 0:
            classes = list(answers[0].probabilities or {})
            more = [
                _free(columns, name) for name in (info.target, "version", *(f"probability_{one}" for one in classes))
            ]
            writer.writerow([*columns, *more])
        for line, answer in zip(part, answers, strict=True):
            shares = [(answer.probabilities or {}).get(one, "") for one in classes]
            writer.writerow([*line.values(), answer.prediction, answer.version, *shares])
        progress((begin + len(part)) / len(lines))
    return text.getvalue().encode()


def _free(columns: list[str], name: str) -> str:
    """A name for a further column: the file may have the target already."""
    while name in columns:
        name = f"predicted_{name}"
    return name


def _read(content: bytes, info: ModelInfo) -> tuple[list[str], list[Line]]:
    """The columns and lines of the file."""
    try:
        table = [line for line in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ServiceError(f"The file is no CSV in UTF-8: {error}.", "Save it as CSV, with commas and UTF-8.") from None
    columns, lines = (table[0], table[1:]) if table else ([], [])
    missing = [f.name for f in info.features if f.name not in columns and f.missing is None]
    if missing:
        raise ServiceError(f"The file has no column {', '.join(missing)}.", "Its first line must name every feature.")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ServiceError(f"The column {twice[0]} is there more than once.", "Leave all but one out.")
    if not 1 <= len(lines) <= MAX_ROWS:
        raise ServiceError(f"The file has {len(lines):,} rows.", f"1 to {MAX_ROWS:,} are predicted; split it.")
    for number, line in enumerate(lines, 1):
        if len(line) != len(columns):
            raise ServiceError(f"Row {number} has {len(line)} values, the header {len(columns)}.", "Correct the row.")
    return columns, [dict(zip(columns, line, strict=True)) for line in lines]


def _row(features: list[FeatureInfo], line: Line, number: int) -> dict[str, Any]:
    """The features of a line, in their types."""
    return dict(_values(features, line, number))


def _values(features: list[FeatureInfo], line: Line, number: int) -> Iterator[tuple[str, Any]]:
    for feature in features:
        text = line.get(feature.name, "")
        if not text and feature.missing is not None:
            continue
        try:
            yield feature.name, _value(feature, text)
        except (ValueError, KeyError):
            kind = "a whole number" if feature.dtype in INTEGER else "a number" if feature.dtype in NUMERIC else "text"
            kind = {"boolean": "true or false", "datetime": EXPECTED}.get(feature.dtype, kind)
            raise ServiceError(f"Row {number}: {feature.name} is {text!r}, not {kind}.", "Correct the row.") from None


def _value(feature: FeatureInfo, text: str) -> Any:
    """The value of a text; ValueError or KeyError where it is none."""
    if feature.dtype == "string":
        return text
    if feature.dtype == "datetime":
        days_of(text.strip())
        return text.strip()
    if feature.dtype == "boolean":
        return TRUE_FALSE[text.strip().lower()]
    number = float(text)
    if feature.dtype in INTEGER:
        return int(text) if text.strip().lstrip("+-").isdigit() else _whole(number)
    if number - number != 0:  # NaN and infinity, which JSON has none of
        raise ValueError(text)
    return number


def _whole(number: float) -> int:
    """5 for 5.0, which pandas writes for one."""
    if not number.is_integer():
        raise ValueError(number)
    return int(number)
