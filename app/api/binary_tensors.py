"""The binary tensor extension of the Open Inference Protocol: a JSON header, then the values of tensors as they are.

The request's header Inference-Header-Content-Length has the length of the JSON; the tensors whose parameters have a
binary_data_size follow it in their order, little endian, row by row, text with its length in 4 bytes before it. An
answer in binary has the same form. https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic_core import to_json

from app.api.asgi import LENGTH_HEADER
from app.api.errors import Location, Refusal, invalid
from app.api.row_decoder import FLOAT32_MAX, MAX_TEXT, RANGES, Rows
from app.api.served_model import ServedModel
from app.contract.open_inference import InferRequest, InputTensor
from app.dates import days_of, is_date
from app.registry.reference import is_missing
from app.vocabulary import INTEGER, Feature

MAX_BINARY_ROWS = 100_000  # of one request
DTYPES = {
    "BOOL": "?", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1", "UINT16": "<u2",
    "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip


def split_body(body: bytes, length: bytes) -> tuple[bytes, bytes]:
    """The JSON of a request and what follows it.

    Args:
        length: the header's value.

    Raises:
        Refusal: 400 it is no length within the body.
    """
    if not length.isdigit() or int(length) > len(body):
        shown = length.decode("latin-1")[:30]
        raise Refusal(400, f"{LENGTH_HEADER} is {shown!r}, the body has {len(body)} bytes: send the length of its JSON")
    return body[: int(length)], body[int(length) :]


def without_data(content: Any) -> Any:
    """The JSON of a request, in which every tensor has data: an empty list where its values follow the JSON."""
    inputs = content.get("inputs") if isinstance(content, dict) else None
    for tensor in inputs if isinstance(inputs, list) else []:
        parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
        if isinstance(parameters, dict) and "binary_data_size" in parameters:
            tensor.setdefault("data", [])
    return content


def read_tensors(request: InferRequest, content: bytes) -> dict[int, np.ndarray]:
    """The values that follow the JSON: arrays of shape (n_values,) by the place of their tensor among the inputs.

    Raises:
        Invalid: naming the tensor.
    """
    arrays = {}
    begin = 0
    for i, tensor in enumerate(request.inputs):
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            continue
        location: Location = ("body", "inputs", i, "parameters", "binary_data_size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(content) - begin:
            left = len(content) - begin
            raise invalid(location, f"{tensor.name} has {size!r} bytes of binary data, but {left} are left", "binary")
        part = content[begin : begin + size]
        begin += size
        if tensor.data:
            raise invalid((*location[:3], "data"), f"{tensor.name} has data and binary data: send one", "binary")
        arrays[i] = tensor_values(tensor, part, location)
    if begin < len(content):
        raise invalid(("body",), f"{len(content) - begin} bytes of binary data belong to no input", "binary")
    return arrays


def tensor_values(tensor: InputTensor, part: bytes, location: Location) -> np.ndarray:
    """The values of one tensor, as they are sent in binary: an array of shape (n_values,).

    Args:
        location: ("body", "inputs", i) and where in it the bytes, or their number, are.

    Raises:
        Invalid: they are none of its datatype.
    """
    return _texts(part, location) if tensor.datatype == "BYTES" else _numbers(tensor, part, location)


def check_is_known(tensor: InputTensor, location: Location) -> None:
    """Raises Invalid where there is no such datatype. location: as in `tensor_values`."""
    if tensor.datatype != "BYTES" and tensor.datatype not in DTYPES:
        message = f"{tensor.name} has the datatype {tensor.datatype}: send {', '.join(DTYPES)} or BYTES"
        raise invalid((*location[:3], "datatype"), message, "datatype")


def _numbers(tensor: InputTensor, part: bytes, location: Location) -> np.ndarray:
    check_is_known(tensor, location)
    dtype = np.dtype(DTYPES[tensor.datatype])
    if len(part) % dtype.itemsize:
        message = f"{len(part)} bytes are no whole number of {tensor.datatype}, which has {dtype.itemsize}"
        raise invalid(location, message, "binary")
    return np.frombuffer(part, dtype)


def _texts(part: bytes, location: Location) -> np.ndarray:
    texts, begin = [], 0
    while begin < len(part):
        if begin + 4 > len(part):
            raise invalid(location, "the length before a text is cut", "binary")
        (length,) = struct.unpack_from("<I", part, begin)
        begin += 4
        if begin + length > len(part):
            raise invalid(location, f"a text of {length} bytes is cut", "binary")
        texts.append(part[begin : begin + length])
        begin += length
    return as_texts(texts, location)


def as_texts(values: Iterable[bytes], location: Location) -> np.ndarray:
    """Texts that are sent as UTF-8, as an array of objects of shape (n_values,).

    Raises:
        Invalid: one is not UTF-8.
    """
    texts: list[str] = []
    try:
        texts.extend(value.decode() for value in values)
    except UnicodeDecodeError as error:
        raise invalid(location, f"text {len(texts)} is not UTF-8: {error}", "binary") from None
    return np.array(texts, dtype=object)


def as_array(values: list[Any] | np.ndarray) -> np.ndarray:
    """Values of JSON as an array; of objects where they are not all numbers, or all true and false.

    null among numbers is NaN.
    """
    if isinstance(values, np.ndarray):
        return values
    kinds = {type(value) for value in values}
    if kinds == {bool} or kinds <= {int, float}:
        with contextlib.suppress(OverflowError):
            return np.array(values)
    if kinds <= {float, type(None)}:
        return np.array(values, dtype=np.float64)
    return np.array(values, dtype=object)


def rows_of_columns(served: ServedModel, columns: list[np.ndarray], places: list[Location]) -> Rows:
    """Rows of columns of values, one for each feature in the signature's order.

    Args:
        columns: arrays of shape (n_rows,).
        places: where each column is in the request.

    Returns:
        an array of float64 where all features are such numbers, shape (n_rows, n_features); otherwise tuples.

    Raises:
        Invalid: naming the first value that the feature cannot have.
    """
    n = len(columns[0])
    if not 1 <= n <= MAX_BINARY_ROWS:
        raise invalid(("body", "inputs"), f"send 1 to {MAX_BINARY_ROWS} rows, not {n}", "length")
    features = served.bundle.features
    only_floats = all(feature.dtype in ("double", "float") for feature in features)
    if only_floats and all(column.dtype.kind in "iuf" for column in columns):
        stacked = np.column_stack(columns).astype(np.float64, copy=False)
        if (np.abs(stacked) <= FLOAT32_MAX).all():  # as nearly always: one look at all is cheaper than one at each
            return stacked
    for feature, column, place in zip(features, columns, places, strict=True):
        wrong = np.flatnonzero(~_fits(feature, column))
        if len(wrong):
            row = int(wrong[0])
            value = column[row]
            example = {**served.bundle.example, feature.name: value.item() if isinstance(value, np.generic) else value}
            served.schema.from_object(example, (*place, row))
            raise invalid((*place, row), f"{feature.name} cannot be {value!r}", "value")
    if only_floats:
        return np.column_stack(columns).astype(np.float64, copy=False)
    lists = [_values(feature, column) for feature, column in zip(features, columns, strict=True)]
    return list(zip(*lists, strict=True))


def _fits(feature: Feature, column: np.ndarray) -> np.ndarray:
    """Which values the feature may have, shape (n_rows,)."""
    if feature.dtype == "datetime":
        return np.array([is_date(value) or (feature.nullable and _is_no_date(value)) for value in column], dtype=bool)
    if feature.nullable:
        return _missing(column) | _fits(replace(feature, nullable=False), column)
    kind = column.dtype.kind
    if feature.categories:
        known = frozenset(feature.categories)
        return np.array([value in known for value in column], dtype=bool)
    if feature.dtype == "string":
        return np.array([isinstance(value, str) and len(value) <= MAX_TEXT for value in column])
    if feature.dtype == "boolean" or kind not in "iuf":
        return np.full(len(column), feature.dtype == "boolean" and kind == "b")
    if feature.dtype in INTEGER:
        low, high = RANGES[feature.dtype]
        whole = np.ones(len(column), dtype=bool) if kind in "iu" else np.floor(column) == column
        return whole & (column >= low) & (column <= high if high < 2**62 or kind == "i" else column < 2.0**63)
    return np.abs(column.astype(np.float64)) <= FLOAT32_MAX  # NaN is not


def _missing(column: np.ndarray) -> np.ndarray:
    """Which values are NaN or None, shape (n_rows,)."""
    if column.dtype.kind == "f":
        return np.isnan(column)
    if column.dtype.kind != "O":
        return np.zeros(len(column), dtype=bool)
    return np.array([is_missing(value) for value in column], dtype=bool)


def _is_no_date(value: Any) -> bool:
    """Whether it says that there is no date: in binary, where there is no null, empty text does."""
    return is_missing(value) or value == ""


def _values(feature: Feature, column: np.ndarray) -> list[Any]:
    """The values as rows have them; all fit the feature."""
    if feature.dtype == "datetime":
        return [None if _is_no_date(value) else days_of(value) for value in column]
    if feature.nullable:
        values = column.astype(object)
        values[_missing(column)] = None
        return values.tolist()
    if feature.dtype in INTEGER and column.dtype.kind == "f":
        return [int(value) for value in column.tolist()]
    return column.tolist()


def encode_values(datatype: str, data: list[Any]) -> bytes:
    """The values of one output in binary."""
    if datatype == "BYTES":
        texts = [str(value).encode() for value in data]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.asarray(data, dtype=DTYPES[datatype]).tobytes()


def encode_answer(answer: dict[str, Any], binary: set[str]) -> tuple[bytes, dict[str, str]]:
    """An answer whose outputs of these names are in binary: the body, and the headers that say so."""
    parts = []
    for output in answer["outputs"]:
        if output["name"] not in binary:
            continue
        data, datatype = output.pop("data"), output["datatype"]
        parts.append(encode_values(datatype, data))
        output["parameters"] = {"binary_data_size": len(parts[-1])}
    header = to_json(answer)
    headers = {LENGTH_HEADER: str(len(header)), "Content-Type": "application/octet-stream"}
    return b"".join([header, *parts]), headers
