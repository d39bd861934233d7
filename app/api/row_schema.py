"""The schema of a model's rows, made of its features: it reads rows and describes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal, NotRequired
from urllib.parse import parse_qsl

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    with_config,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from app.api.errors import Invalid, Location, field_error, invalid
from app.api.row_decoder import FLOAT32_MAX, MAX_TEXT, RANGES, Row, RowDecoder
from app.contract import MAX_ROWS
from app.contract.errors import FieldError
from app.dates import EXPECTED, days_of
from app.vocabulary import INTEGER, Feature

KINDS = {
    "double": "a number",
    "float": "a number",
    "long": "a whole number",
    "integer": "a whole number",
    "boolean": "true or false",
    "string": "text",
    "datetime": EXPECTED,
}
SHOWN = 20  # categories in a message
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def _whole(value: Any) -> Any:
    """5.0 is a whole number in JSON, and what pandas writes for one."""
    return int(value) if type(value) is float and value.is_integer() else value


def _days(value: Any) -> float:
    """A date of a request, which is text."""
    try:
        return days_of(value)
    except ValueError:
        raise PydanticCustomError("datetime_parsing", "this is no date") from None


def _expected(feature: Feature) -> str:
    """What to send for a feature, in words."""
    if feature.categories:
        shown = ", ".join(feature.categories[:SHOWN])
        more = f" and {len(feature.categories) - SHOWN} others" if len(feature.categories) > SHOWN else ""
        return f"one of {shown}{more}{' or null' if feature.nullable else ''}"
    if feature.dtype == "datetime":
        return f"{EXPECTED}{' or null' if feature.nullable else ''}"
    return f"{KINDS[feature.dtype]} ({feature.dtype}){' or null' if feature.nullable else ''}"


def _type_of(feature: Feature, strict: bool) -> Any:
    kind, described = _type_of_values(feature, strict), Field(description=_expected(feature))
    return NotRequired[Annotated[kind | None, described]] if feature.nullable else Annotated[kind, described]


def _type_of_values(feature: Feature, strict: bool) -> Any:
    if feature.dtype in INTEGER:
        low, high = RANGES[feature.dtype]
        return Annotated[int, Field(strict=strict, ge=low, le=high), BeforeValidator(_whole)]
    if feature.dtype == "boolean":
        return Annotated[bool, Field(strict=strict)]
    if feature.dtype == "datetime":
        return Annotated[float, PlainValidator(_days), WithJsonSchema({"type": "string", "format": "date-time"})]
    if feature.categories:
        return Literal[feature.categories]
    if feature.dtype == "string":
        return Annotated[str, Field(strict=strict, max_length=MAX_TEXT)]
    return Annotated[float, Field(strict=strict, ge=-FLOAT32_MAX, le=FLOAT32_MAX, allow_inf_nan=False)]


def _row_type(model: str, features: Sequence[Feature], strict: bool) -> Any:
    make: Any = TypedDict  # with names that are known at run time only, which type checkers do not follow
    return with_config(ConfigDict(extra="forbid"))(
        make(f"{model} row", {f.name: _type_of(f, strict) for f in features})
    )


class RowSchema:
    """Reads rows of one model's features; each row comes out as its values in the order of the signature.

    JSON is read strictly: text is no number, and neither is true. Query strings and CSV are text, so they are parsed.
    A date is text everywhere, and days since 1970-01-01 UTC in the row.
    Of a nullable feature the value may be null in JSON, empty in text, or not be there at all; it is None then.
    What `decoder` can read of a body is read by it, ten times as fast.
    """

    def __init__(self, model: str, features: Sequence[Feature]) -> None:
        self.model = model
        self.features = {feature.name: feature for feature in features}
        self.decoder = RowDecoder(features)
        strict, lax = _row_type(model, features, True), _row_type(model, features, False)
        many: Any = Annotated[list[strict], Field(min_length=1, max_length=MAX_ROWS)]  # type: ignore[valid-type]
        self._row: TypeAdapter[dict[str, Any]] = TypeAdapter(strict)
        self._rows: TypeAdapter[list[dict[str, Any]]] = TypeAdapter(many)
        self._text_row: TypeAdapter[dict[str, Any]] = TypeAdapter(lax)
        self._nullable = frozenset(feature.name for feature in features if feature.nullable)
        self._read_one = self._row.validator.validate_json
        self._read_many = self._rows.validator.validate_json
        self._read_text: Callable[[Any], dict[str, Any]] = self._text_row.validator.validate_strings

    def json_schema(self) -> dict[str, Any]:
        """JSON schema of one row."""
        schema = self._row.json_schema()
        schema["title"] = f"{self.model} row"
        for item in schema["properties"].values():
            item.pop("title", None)
        return schema

    def from_json(self, body: bytes) -> tuple[list[Row], bool]:
        """The rows of a body, and whether it was an array.

        Raises:
            Invalid: naming the field.
        """
        if body.lstrip()[:1] == b"[":
            rows = self.decoder.rows(body)
            return (self.read_many(body) if rows is None else rows), True
        row = self.decoder.row(body)
        return [self.read_one(body) if row is None else row], False

    def read_one(self, body: bytes) -> Row:
        """The row of an object in JSON, by the schema itself.

        Raises:
            Invalid: naming the field.
        """
        try:
            return self._values(self._read_one(body))
        except ValidationError as error:
            raise Invalid(self._errors(error, ("body",))) from None

    def read_many(self, body: bytes) -> list[Row]:
        """The rows of an array of objects in JSON, by the schema itself.

        Raises:
            Invalid: naming row and field.
        """
        try:
            return list(map(self._values, self._read_many(body)))
        except ValidationError as error:
            raise Invalid(self._errors(error, ("body",))) from None

    def from_query(self, query: bytes) -> Row:
        """The row of a query string.

        Raises:
            Invalid: naming the field; a field that is given twice too.
        """
        try:
            text = query.decode("latin-1")
            if "%" in text or "+" in text:
                pairs = parse_qsl(text, keep_blank_values=True)
            else:  # nothing is quoted: five times as fast
                parts = [part.partition("=") for part in text.split("&") if part]
                pairs = [(name, value) for name, _, value in parts]
        except ValueError as error:
            raise invalid(("query",), f"the query string cannot be read: {error}", "query_invalid") from None
        values = dict(pairs)
        if len(values) < len(pairs):
            message = "is given more than once: send it once"
            names = repeated(name for name, _ in pairs)
            raise Invalid([field_error(("query", name), message, "duplicate") for name in names])
        try:
            return self._values(self._read_text(self._without_empty(values)))
        except ValidationError as error:
            raise Invalid(self._errors(error, ("query",))) from None

    def from_python(self, rows: list[Any], location: Location = ("body",)) -> list[Row]:
        """Rows that were read from JSON already.

        Raises:
            Invalid: naming row and field below `location`.
        """
        try:
            return list(map(self._values, self._rows.validator.validate_python(rows)))
        except ValidationError as error:
            raise Invalid(self._errors(error, location)) from None

    def from_object(self, row: Any, location: Location) -> Row:
        """One row that was read from JSON already.

        Raises:
            Invalid: naming the field below `location`.
        """
        try:
            return self._values(self._row.validator.validate_python(row))
        except ValidationError as error:
            raise Invalid(self._errors(error, location)) from None

    def from_text(self, rows: Iterable[dict[str, str]], location: Location = ("body",)) -> list[Row]:
        """Rows of text, such as a CSV's.

        Raises:
            Invalid: naming row and field below `location`.
        """
        read: list[Row] = []
        for number, row in enumerate(rows):
            try:
                read.append(self._values(self._read_text(self._without_empty(row))))
            except ValidationError as error:
                raise Invalid(self._errors(error, (*location, number))) from None
        return read

    def _values(self, row: dict[str, Any]) -> Row:
        return tuple(map(row.get, self.features)) if self._nullable else tuple(row.values())

    def _without_empty(self, row: dict[str, str]) -> dict[str, str]:
        """A row of text without the empty values of features that may be missing."""
        if not self._nullable:
            return row
        return {name: value for name, value in row.items() if value != "" or name not in self._nullable}

    def _errors(self, error: ValidationError, location: Location) -> list[FieldError]:
        """Pydantic's errors in words that say what to send."""
        return [
            field_error((*location, *item["loc"]), self._message(item), item["type"])
            for item in error.errors(include_url=False, include_input=False)
        ]

    def _message(self, error: Any) -> str:
        kind, name = error["type"], error["loc"][-1] if error["loc"] else ""
        feature = self.features.get(name) if isinstance(name, str) else None
        wanted = _expected(feature) if feature else ""
        if kind == "missing":
            return f"{name} is missing: send {wanted}"
        if kind == "extra_forbidden":
            return f"{name} is not a feature of {self.model}; its features are: {', '.join(self.features)}"
        if kind == "json_invalid":
            return json_message(error["ctx"]["error"])
        if kind in ("less_than_equal", "greater_than_equal") and wanted:
            bound = error["ctx"]["le" if kind == "less_than_equal" else "ge"]
            return f"{name} is out of range: send {wanted} {'up to' if bound > 0 else 'from'} {bound}"
        if kind == "finite_number":
            return f"{name} should be {wanted}, and finite"
        if kind == "string_too_long":
            return f"{name} should be text of at most {MAX_TEXT} characters"
        if kind.endswith(("_type", "_parsing", "literal_error")) and wanted:
            return f"{name} should be {wanted}"
        if kind in ("dict_type", "mapping_type"):
            return f"send an object with the features: {', '.join(self.features)}"
        return str(error["msg"])


def repeated(names: Iterable[str]) -> list[str]:
    """The names that are there more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def read_json(body: bytes) -> Any:
    """The value of a JSON body of any form.

    Raises:
        Invalid: it is no JSON.
    """
    try:
        return _ANY.validate_json(body)
    except ValidationError as error:
        message = json_message(error.errors(include_url=False)[0]["ctx"]["error"])
        raise invalid(("body",), message, "json_invalid") from None


def json_message(error: str) -> str:
    """What to tell the sender of a body that is no JSON, from pydantic's own message."""
    if error.startswith("EOF while parsing a value at line 1 column 0"):
        return "the body is empty: send JSON"
    return f"the body is not valid JSON: {error}"
