"""Reads rows of JSON fast, by decoders that are made of a model's signature.

What they read is exactly what `RowSchema` would read. Whatever else they are given, valid or not, they leave to it: it
takes more spellings, and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import GenericAlias
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import astuple

from app.contract import MAX_ROWS
from app.vocabulary import INTEGER, Feature

Row = tuple[Any, ...]
Rows = list[Row] | np.ndarray  # the array: numbers of shape (n_rows, n_features), from tensors in binary
MAX_TEXT = 100_000  # characters of a value
# Models compute in float32; a larger number would be infinite for them.
FLOAT32_MAX = 3.4028234663852886e38
RANGES = {"long": (-(2**63), 2**63 - 1), "integer": (-(2**31), 2**31 - 1)}


NOT_TAKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # what decoders raise


def _type_of(feature: Feature) -> Any:
    kind = _type_of_values(feature)
    return kind | None if feature.nullable else kind


def _type_of_values(feature: Feature) -> Any:
    if feature.dtype in INTEGER:
        low, high = RANGES[feature.dtype]
        return Annotated[int, Meta(ge=low, le=high)]
    if feature.dtype == "boolean":
        return bool
    if feature.categories:
        return Literal[feature.categories]
    if feature.dtype == "string":
        return Annotated[str, Meta(max_length=MAX_TEXT)]
    return Annotated[float, Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)]


def _not_taken(_: Any) -> Any:
    """A decoder that leaves all to `RowSchema`: msgspec reads dates in another way than `app.dates`."""
    raise msgspec.ValidationError


def _list_decoder(kind: Any) -> Callable[[bytes | msgspec.Raw], list[Any]]:
    """Reads an array of values of one type."""
    return msgspec.json.Decoder(GenericAlias(list, (kind,))).decode


class RowDecoder:
    """Decoders for the rows of one model; each gives values in the order of the signature, or None for what it does not
    read. A missing value is None, too.

    Args:
        features: the model's signature.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = [feature.name for feature in features]
        types = [_type_of(feature) for feature in features]
        fields = {f"f{i}": name for i, name in enumerate(self.features)}
        defaults: list[tuple[None] | tuple[()]] = [(None,) if feature.nullable else () for feature in features]
        row: Any = msgspec.defstruct(
            "Row",
            [(field, kind, *default) for field, kind, default in zip(fields, types, defaults, strict=True)],
            rename=fields,
            forbid_unknown_fields=True,
            gc=False,
            kw_only=True,  # or those with a default would have to be last
        )
        values: Any = GenericAlias(tuple, tuple(types))
        rows = Annotated[list[row], Meta(min_length=1, max_length=MAX_ROWS)]
        many_values = Annotated[list[values], Meta(min_length=1, max_length=MAX_ROWS)]
        split: Any = msgspec.defstruct(
            "Split", [("columns", list[str]), ("data", many_values)], forbid_unknown_fields=True
        )
        table: Any = msgspec.defstruct(
            "Table",
            [
                ("dataframe_split", split | UnsetType, UNSET),
                ("dataframe_records", rows | UnsetType, UNSET),
                ("instances", many_values | UnsetType, UNSET),
                ("inputs", many_values | UnsetType, UNSET),
                ("params", Any, UNSET),
            ],
            forbid_unknown_fields=True,
        )
        self._row: Callable[[bytes], Any] = msgspec.json.Decoder(row).decode
        self._rows: Callable[[bytes], Any] = msgspec.json.Decoder(rows).decode
        self._table: Callable[[bytes], Any] = msgspec.json.Decoder(table).decode
        self._columns = [_list_decoder(kind) for kind in types]
        self._flat = _list_decoder(types[0]) if len(set(map(repr, types))) == 1 else None
        if any(feature.dtype == "datetime" for feature in features):
            self._row = self._rows = self._table = _not_taken
            self._columns, self._flat = [_not_taken] * len(types), None

    def row(self, body: bytes) -> Row | None:
        """The values of an object."""
        try:
            return astuple(self._row(body))
        except NOT_TAKEN:
            return None

    def rows(self, body: bytes) -> list[Row] | None:
        """The values of an array of objects."""
        try:
            return list(map(astuple, self._rows(body)))
        except NOT_TAKEN:
            return None

    def table(self, body: bytes) -> list[Row] | None:
        """The rows of one of MLflow's JSON formats, with all columns in the signature's order."""
        try:
            table = self._table(body)
        except NOT_TAKEN:
            return None
        formats = (table.dataframe_split, table.dataframe_records, table.instances, table.inputs)
        if sum(value is not UNSET for value in formats) != 1:
            return None
        if table.dataframe_records is not UNSET:
            return list(map(astuple, table.dataframe_records))
        if table.dataframe_split is UNSET:
            return table.inputs if table.instances is UNSET else table.instances
        return table.dataframe_split.data if table.dataframe_split.columns == self.features else None

    def matrix(self, data: msgspec.Raw, rows: int) -> list[Row] | None:
        """The rows of a flat array that has them one after another; where all features have one type."""
        if self._flat is None:
            return None
        try:
            flat = self._flat(data)
        except NOT_TAKEN:
            return None
        width = len(self.features)
        if not 1 <= rows <= MAX_ROWS or len(flat) != rows * width:
            return None
        return list(zip(*[iter(flat)] * width, strict=True))

    def columns(self, data: Sequence[msgspec.Raw], rows: int) -> list[Row] | None:
        """The rows of flat arrays, one for each feature in the signature's order."""
        try:
            columns = [decode(column) for decode, column in zip(self._columns, data, strict=True)]
        except NOT_TAKEN:
            return None
        if not 1 <= rows <= MAX_ROWS or any(len(column) != rows for column in columns):
            return None
        return list(zip(*columns, strict=True))
