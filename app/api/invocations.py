"""POST /invocations: MLflow's scoring protocol, for the default model."""

from __future__ import annotations

import csv
import io
from typing import Any

from pydantic_core import to_json
from starlette.types import Scope

from app.api.asgi import header
from app.api.endpoint import Asked, PredictedRows, PredictionEndpoint, Reply
from app.api.errors import Location, invalid
from app.api.router import Route
from app.api.row_decoder import Row
from app.api.row_schema import read_json, repeated
from app.api.served_model import ServedModel
from app.contract import MAX_ROWS

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class Invocations(PredictionEndpoint[None]):
    """Answers `contract.Scores`."""

    def read(self, served: ServedModel, scope: Scope, body: bytes) -> Asked[None]:
        """As `PredictionEndpoint.read`: the body is JSON, or CSV where its content type is text/csv."""
        content_type = header(scope, b"content-type").split(b";")[0].strip().lower()
        if content_type == b"text/csv":
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
    if name != "dataframe_records" and data and all(isinstance(row, list) for row in data):
        data = _name_values(served, list(served.schema.features), data, location)
    return served.schema.from_python(data, location)


def _split(served: ServedModel, data: Any, location: Location) -> list[Row]:
    if not isinstance(data, dict) or not isinstance(data.get("data"), list):
        raise invalid(location, 'send {"columns": [...], "data": [[...], ...]}', "dict_type")
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
    _check_columns(columns, ("body", 0))
    if not 1 <= len(rows) <= MAX_ROWS:
        raise invalid(("body",), f"send 1 to {MAX_ROWS} rows after the header, not {len(rows)}", "length")
    return served.schema.from_text(_name_values(served, columns, rows, ("body",)))


def routes(endpoint: Invocations) -> list[Route]:
    """The route of /invocations."""
    return [Route("/invocations", endpoint)]
