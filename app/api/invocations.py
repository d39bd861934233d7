"""POST /invocations: MLflow's scoring protocol, for the default model."""

from __future__ import annotations

import csv
import io
from typing import Any

from pydantic_core import to_json
from starlette.types import Scope

from app.api.asgi import header
from app.api.endpoint import Asked, PredictedRows, PredictionEndpoint, Reply
from app.api.errors import Location, Refusal, invalid
from app.api.router import Route
from app.api.row_decoder import Row
from app.api.row_schema import read_json, repeated
from app.api.served_model import ServedModel
from app.contract import MAX_ROWS

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class Invocations(PredictionEndpoint[None]):
    """Answers `contract.Scores`."""

    def read(self, served: ServedModel, scope: Scope, body: bytes) -> Asked[None]:
        """As `PredictionEndpoint.read`: the body is JSON, or CSV where its content type says so."""
        if is_csv(header(scope, b"content-type")):
            return Asked(rows_of_csv(served, body), None)
        return Asked(served.schema.decoder.table(body) or rows_of_json(served, body), None)

    def write(self, served: ServedModel, request: None, predicted: PredictedRows) -> Reply:
        """As `PredictionEndpoint.write`."""
        scores = {
            "predictions": predicted.predictions.labels,
            "model": served.name,
            "version": served.version,
            "run_id": served.run_id,
            "prediction_ids": predicted.ids,
        }
        if predicted.tokens:
            scores["feedback_tokens"] = predicted.tokens
        return Reply(to_json(scores))


def is_csv(content_type: bytes) -> bool:
    """Whether a body is CSV; all others are read as JSON, whatever else they are said to be.

    Raises:
        Refusal: 415 it is of a kind, or in an encoding, that MLflow has (or had) and that is not read here.
    """
    if content_type in (b"application/json", b""):
        return False
    kind, *parameters = [part.strip() for part in content_type.decode("latin-1").lower().split(";")]
    values = {name: value.strip('"') for name, _, value in (parameter.partition("=") for parameter in parameters)}
    if values.get("charset", "utf-8") not in ("utf-8", "utf8", "us-ascii"):
        raise Refusal(415, f"the content type has the charset {values['charset'][:20]!r}: send UTF-8")
    if "format" in values:  # MLflow 1: pandas-split, pandas-records
        known = f'{{"dataframe_split": ...}} or another of {", ".join(FORMATS)}'
        raise Refusal(415, f"the content type has the format {values['format'][:20]!r}, of MLflow 1: send {known}")
    if kind == "application/vnd.apache.parquet":
        raise Refusal(415, "Parquet is not read here: send application/json or text/csv, or use /v2 for many rows")
    return kind == "text/csv"


def rows_of_json(served: ServedModel, body: bytes) -> list[Row]:
    """The rows of one of MLflow's JSON formats.

    Raises:
        Invalid: naming the place.
    """
    content = read_json(body)
    formats = [name for name in FORMATS if isinstance(content, dict) and name in content]
    extra = [name for name in content if name not in (*FORMATS, "params")] if isinstance(content, dict) else []
    if len(formats) != 1 or extra:
        message = f"send an object with exactly one of: {', '.join(FORMATS)}"
        raise invalid(("body", *extra[:1]), message, "format")
    name = formats[0]
    data, location = content[name], ("body", name)
    if name == "dataframe_split":
        return _split(served, data, location)
    if isinstance(data, dict):
        data = _rows_of_columns(data, location)
    if not isinstance(data, list):
        raise invalid(location, f"{name} should be an array of rows", "list_type")
    if name != "dataframe_records" and len(served.schema.features) == 1:
        data = [row if isinstance(row, list | dict) else [row] for row in data]  # a column of values
    if name != "dataframe_records" and data and all(isinstance(row, list) for row in data):
        data = _name_values(served, list(served.schema.features), data, location)
    return served.schema.from_python(data, location)


def _split(served: ServedModel, data: Any, location: Location) -> list[Row]:
    if not isinstance(data, dict) or not isinstance(data.get("data"), list):
        raise invalid(location, 'send {"columns": [...], "data": [[...], ...]}', "dict_type")
    extra = [key for key in data if key not in ("columns", "data", "index")]
    if extra:
        raise invalid((*location, extra[0]), "send columns and data, and index or not", "format")
    columns = data.get("columns", list(served.schema.features))
    if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
        raise invalid((*location, "columns"), "columns should be an array of names", "list_type")
    _check_columns(columns, (*location, "columns"))
    return served.schema.from_python(
        _name_values(served, columns, data["data"], (*location, "data")), (*location, "data")
    )


def _name_values(served: ServedModel, columns: list[str], rows: list[Any], location: Location) -> list[dict[str, Any]]:
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            message = f"each row should be an array of {len(columns)} values: {', '.join(columns)}"
            raise invalid((*location, i), message, "row")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _rows_of_columns(data: dict[str, Any], location: Location) -> list[dict[str, Any]]:
    """{"a": [1, 2], "b": [3, 4]} or {"a": 1, "b": 3} as rows."""
    columns = {name: values if isinstance(values, list) else [values] for name, values in data.items()}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise invalid(location, f"columns have different lengths: {sorted(lengths)}", "shape")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _check_columns(columns: list[str], location: Location) -> None:
    twice = repeated(columns)
    if twice:
        raise invalid(location, f"the column {twice[0]} is there more than once", "duplicate")


def rows_of_csv(served: ServedModel, body: bytes) -> list[Row]:
    """The rows of a CSV with a header line.

    Raises:
        Invalid: naming row and column.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(("body",), f"the CSV is not UTF-8: {error}", "encoding") from None
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except csv.Error as error:
        raise invalid(("body",), f"the CSV cannot be read: {error}", "csv") from None
    if not lines:
        raise invalid(("body",), "the body is empty: send a header line with the features, then rows", "csv")
    columns, rows = lines[0], lines[1:]
    if columns[0] == "" and "" not in served.schema.features:  # the index, which pandas writes if not told otherwise
        columns, rows = columns[1:], [row[1:] for row in rows]
    _check_columns(columns, ("body", 0))
    if not 1 <= len(rows) <= MAX_ROWS:
        raise invalid(("body",), f"send 1 to {MAX_ROWS} rows after the header, not {len(rows)}", "length")
    return served.schema.from_text(_name_values(served, columns, rows, ("body",)))


def routes(endpoint: Invocations) -> list[Route]:
    """The route of /invocations."""
    return [Route("/invocations", endpoint)]
