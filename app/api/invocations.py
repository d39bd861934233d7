"""POST /invocations: MLflow's scoring protocol, for the default model."""

from __future__ import annotations

import csv
import io
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.routing import Route
from starlette.types import Scope

from app.api.asgi import header
from app.api.endpoint import PredictionEndpoint, Reply, answer
from app.api.errors import Invalid, Location, field_error, invalid
from app.api.schema import MAX_ROWS, json_message
from app.api.served_models import ServedModel

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


class Invocations(PredictionEndpoint):
    def reply(self, served: ServedModel, scope: Scope, body: bytes) -> Reply:
        kind = header(scope, b"content-type").split(b";")[0].strip().lower()
        rows = read_csv(served, body) if kind == b"text/csv" else read_json(served, body)
        answered = answer(served, self.signer, rows)
        sent = {
            "predictions": answered.said.labels,
            "model": served.name,
            "version": served.version,
            "run_id": served.run_id,
            "prediction_ids": answered.ids,
        }
        return Reply(to_json(sent), answered)


def read_json(served: ServedModel, body: bytes) -> list[dict[str, Any]]:
    """The rows of one of MLflow's JSON formats.

    Raises:
        Invalid: naming the place.
    """
    try:
        content = _ANY.validate_json(body)
    except ValidationError as error:
        message = json_message(error.errors(include_url=False)[0]["ctx"]["error"])
        raise Invalid([field_error(("body",), message, "json_invalid")]) from None
    given = [name for name in FORMATS if isinstance(content, dict) and name in content]
    extra = [name for name in content if name not in (*FORMATS, "params")] if isinstance(content, dict) else []
    if len(given) != 1 or extra:
        message = f"send an object with exactly one of: {', '.join(FORMATS)}"
        raise invalid(("body", *extra[:1]), message, "format")
    name = given[0]
    data, where = content[name], ("body", name)
    if name == "dataframe_split":
        return _split(served, data, where)
    if isinstance(data, dict):
        data = _rows_of_columns(data, where)
    if not isinstance(data, list):
        raise invalid(where, f"{name} should be an array of rows", "list_type")
    if name != "dataframe_records" and data and all(isinstance(row, list) for row in data):
        data = _named(served, list(served.schema.features), data, where)
    return served.schema.from_python(data, where)


def _split(served: ServedModel, data: Any, where: Location) -> list[dict[str, Any]]:
    if not isinstance(data, dict) or not isinstance(data.get("data"), list):
        raise invalid(where, 'send {"columns": [...], "data": [[...], ...]}', "dict_type")
    columns = data.get("columns", list(served.schema.features))
    if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
        raise invalid((*where, "columns"), "columns should be an array of names", "list_type")
    _check_columns(columns, (*where, "columns"))
    return served.schema.from_python(_named(served, columns, data["data"], (*where, "data")), (*where, "data"))


def _named(served: ServedModel, columns: list[str], rows: list[Any], where: Location) -> list[dict[str, Any]]:
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            message = f"each row should be an array of {len(columns)} values: {', '.join(columns)}"
            raise invalid((*where, i), message, "row")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _rows_of_columns(data: dict[str, Any], where: Location) -> list[dict[str, Any]]:
    """{"a": [1, 2], "b": [3, 4]} or {"a": 1, "b": 3} as rows."""
    columns = {name: column if isinstance(column, list) else [column] for name, column in data.items()}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise invalid(where, f"columns have different lengths: {sorted(lengths)}", "shape")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _check_columns(columns: list[str], where: Location) -> None:
    twice = sorted({column for column in columns if columns.count(column) > 1}) if len(columns) < 10_000 else []
    if twice:
        raise invalid(where, f"the column {twice[0]} is there more than once", "duplicate")


def read_csv(served: ServedModel, body: bytes) -> list[dict[str, Any]]:
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
    return served.schema.from_text(_named(served, columns, rows, ("body",)))


def routes(endpoint: Invocations) -> list[Route]:
    return [Route("/invocations", endpoint, methods=["POST"])]


def describe(served: ServedModel) -> dict[str, Any]:
    """OpenAPI of /invocations."""
    row, example = served.schema.json_schema(), served.bundle.example
    columns = list(served.schema.features)
    rows = {"type": "array", "items": row, "minItems": 1, "maxItems": MAX_ROWS}
    split = {
        "type": "object",
        "properties": {
            "columns": {"type": "array", "items": {"enum": columns}},
            "data": {"type": "array", "items": {"type": "array"}},
        },
        "required": ["columns", "data"],
    }
    formats = [
        {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}
        for name, schema in (
            ("dataframe_split", split),
            ("dataframe_records", rows),
            ("instances", rows),
            ("inputs", rows),
        )
    ]
    reply = {
        "type": "object",
        "properties": {
            "predictions": {"type": "array"},
            "model": {"type": "string"},
            "version": {"type": "string"},
            "run_id": {"type": "string"},
            "prediction_ids": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["predictions", "model", "version", "run_id", "prediction_ids"],
    }
    return {
        "post": {
            "tags": ["mlflow"],
            "summary": f"Predict with {served.name}: MLflow's scoring protocol",
            "operationId": "post_invocations",
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"oneOf": formats},
                        "example": {"dataframe_split": {"columns": columns, "data": [list(example.values())]}},
                    },
                    "text/csv": {"schema": {"type": "string"}},
                },
            },
            "responses": {
                "200": {"description": "The predictions.", "content": {"application/json": {"schema": reply}}},
                "413": {"$ref": "#/components/responses/Refused"},
                "422": {"$ref": "#/components/responses/Invalid"},
                "503": {"$ref": "#/components/responses/Refused"},
            },
        }
    }
