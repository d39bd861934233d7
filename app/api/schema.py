"""Request schemas out of a model's own features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any
from urllib.parse import parse_qsl

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from app.api.errors import FieldError, Invalid, Location, field_error
from app.vocabulary import INTEGER, Feature

MAX_ROWS = 10_000
MAX_TEXT = 100_000
# Models compute in float32; a larger number would be infinite for them.
FLOAT32_MAX = 3.4028234663852886e38
RANGES = {"long": (-(2**63), 2**63 - 1), "integer": (-(2**31), 2**31 - 1)}
KINDS = {
    "double": "a number",
    "float": "a number",
    "long": "a whole number",
    "integer": "a whole number",
    "boolean": "true or false",
    "string": "text",
}


def _whole(value: Any) -> Any:
    """5.0 is a whole number in JSON, and what pandas writes for one."""
    return int(value) if type(value) is float and value.is_integer() else value


def _type_of(feature: Feature, strict: bool) -> Any:
    about = f"{KINDS[feature.dtype]} ({feature.dtype})"
    if feature.dtype in INTEGER:
        low, high = RANGES[feature.dtype]
        number = Field(strict=strict, ge=low, le=high, description=about)
        return Annotated[int, number, BeforeValidator(_whole)]
    if feature.dtype == "boolean":
        return Annotated[bool, Field(strict=strict, description=about)]
    if feature.dtype == "string":
        return Annotated[str, Field(strict=strict, max_length=MAX_TEXT, description=about)]
    bounds = Field(strict=strict, ge=-FLOAT32_MAX, le=FLOAT32_MAX, allow_inf_nan=False, description=about)
    return Annotated[float, bounds]


def _row_type(model: str, features: Sequence[Feature], strict: bool) -> Any:
    make: Any = TypedDict  # with names that are known at run time only, which type checkers do not follow
    return with_config(ConfigDict(extra="forbid"))(
        make(f"{model} row", {f.name: _type_of(f, strict) for f in features})
    )


class RowSchema:
    """Reads rows of one model's features; each row comes out as a dict in the order of the signature.

    JSON is read strictly: text is no number, and neither is true. Query strings and CSV are text, so they are parsed.
    """

    def __init__(self, model: str, features: Sequence[Feature]) -> None:
        self.model = model
        self.features = {feature.name: feature for feature in features}
        strict, lax = _row_type(model, features, True), _row_type(model, features, False)
        many: Any = Annotated[list[strict], Field(min_length=1, max_length=MAX_ROWS)]  # type: ignore[valid-type]
        self._row: TypeAdapter[dict[str, Any]] = TypeAdapter(strict)
        self._rows: TypeAdapter[list[dict[str, Any]]] = TypeAdapter(many)
        self._text_row: TypeAdapter[dict[str, Any]] = TypeAdapter(lax)
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

    def from_json(self, body: bytes) -> tuple[list[dict[str, Any]], bool]:
        """The rows of a body, and whether it was an array.

        Raises:
            Invalid: naming the field.
        """
        many = body.lstrip()[:1] == b"["
        try:
            return (self._read_many(body), True) if many else ([self._read_one(body)], False)
        except ValidationError as error:
            raise Invalid(self.problems(error, ("body",))) from None

    def from_query(self, query: bytes) -> dict[str, Any]:
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
            raise Invalid(
                [field_error(("query",), f"the query string cannot be read: {error}", "query_invalid")]
            ) from None
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            twice = sorted({name for name in names if names.count(name) > 1}) if len(names) < 1000 else names[:1]
            raise Invalid(
                [field_error(("query", name), "is given more than once: send it once", "duplicate") for name in twice]
            )
        try:
            return self._read_text(values)
        except ValidationError as error:
            raise Invalid(self.problems(error, ("query",))) from None

    def from_python(self, rows: list[Any], where: Location = ("body",)) -> list[dict[str, Any]]:
        """Rows that were read from JSON already.

        Raises:
            Invalid: naming row and field below `where`.
        """
        try:
            return self._rows.validator.validate_python(rows)
        except ValidationError as error:
            raise Invalid(self.problems(error, where)) from None

    def from_text(self, rows: Iterable[dict[str, str]], where: Location = ("body",)) -> list[dict[str, Any]]:
        """Rows of text, such as a CSV's.

        Raises:
            Invalid: naming row and field below `where`.
        """
        read: list[dict[str, Any]] = []
        for number, row in enumerate(rows):
            try:
                read.append(self._read_text(row))
            except ValidationError as error:
                raise Invalid(self.problems(error, (*where, number))) from None
        return read

    def problems(self, error: ValidationError, where: Location) -> list[FieldError]:
        """Pydantic's errors in words that say what to send."""
        return [
            field_error((*where, *item["loc"]), self._message(item, where), item["type"])
            for item in error.errors(include_url=False, include_input=False)
        ]

    def _message(self, item: Any, where: Location) -> str:
        kind, name = item["type"], item["loc"][-1] if item["loc"] else ""
        feature = self.features.get(name) if isinstance(name, str) else None
        wanted = f"{KINDS[feature.dtype]} ({feature.dtype})" if feature else ""
        if kind == "missing":
            return f"{name} is missing: send {wanted}"
        if kind == "extra_forbidden":
            return f"{name} is not a feature of {self.model}; its features are: {', '.join(self.features)}"
        if kind == "json_invalid":
            return json_message(item["ctx"]["error"])
        if kind in ("less_than_equal", "greater_than_equal") and wanted:
            bound = item["ctx"]["le" if kind == "less_than_equal" else "ge"]
            return f"{name} is out of range: send {wanted} {'up to' if bound > 0 else 'from'} {bound}"
        if kind == "finite_number":
            return f"{name} should be {wanted}, and finite"
        if kind.endswith(("_type", "_parsing")) and wanted:
            return f"{name} should be {wanted}"
        if kind in ("dict_type", "mapping_type"):
            return f"send an object with the features: {', '.join(self.features)}"
        return str(item["msg"])


def json_message(error: str) -> str:
    """What to say of a body that is no JSON."""
    if error.startswith("EOF while parsing a value at line 1 column 0"):
        return "the body is empty: send JSON"
    return f"the body is not valid JSON: {error}"
