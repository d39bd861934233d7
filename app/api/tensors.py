"""From the tensors of the Open Inference Protocol to rows."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Annotated, Any

import msgspec
import numpy as np

from app.api.binary_tensors import as_array, rows_of_columns
from app.api.errors import MORE, Invalid, Location, field_error, invalid
from app.api.row_decoder import NOT_TAKEN, Row, Rows
from app.api.served_model import ServedModel
from app.contract import MAX_ID
from app.contract.open_inference import InferRequest, InputTensor
from app.vocabulary import NUMERIC

DATATYPES = {
    "double": "FP64",
    "float": "FP32",
    "long": "INT64",
    "integer": "INT32",
    "boolean": "BOOL",
    "string": "BYTES",
    "datetime": "BYTES",
}
NUMBER_DATATYPES = frozenset(
    {"FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
)
NUMBERS = NUMERIC - {"boolean", "datetime"}
MATRIX = "features"  # what metadata calls the one tensor that holds all features; requests may call it anything


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):  # of what is unknown msgspec would not check the UTF-8
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw
    parameters: dict[str, Any] = {}


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_Tensor]
    id: Annotated[str, msgspec.Meta(max_length=MAX_ID)] | None = None
    parameters: dict[str, Any] = {}
    outputs: list[Any] = []


_decode = msgspec.json.Decoder(_Request).decode


def decode_request(served: ServedModel, body: bytes) -> tuple[list[Row], str | None, dict[str, Any]] | None:
    """The rows, the id and the parameters of a request in its usual form.

    None for any other, which `rows_of_tensors` reads.
    """
    try:
        request = _decode(body)
    except NOT_TAKEN:
        return None
    features, decoder, inputs = served.schema.features, served.schema.decoder, request.inputs
    if request.outputs or not inputs or len(inputs) > len(features):
        return None
    first = inputs[0]
    if len(inputs) == 1 and (len(features) > 1 or first.name not in features):
        if first.datatype not in NUMBER_DATATYPES or len(first.shape) != 2 or first.shape[1] != len(features):
            return None
        if not {feature.dtype for feature in features.values()} <= NUMBERS:
            return None
        rows = decoder.matrix(first.data, first.shape[0])
    else:
        by_name = {tensor.name: tensor for tensor in inputs}
        if by_name.keys() != features.keys() or len(by_name) < len(inputs):
            return None
        tensors = [by_name[name] for name in features]
        n = first.shape[0] if first.shape else 0
        for tensor, feature in zip(tensors, features.values(), strict=True):
            if tensor.shape not in ([n], [n, 1]) or tensor.datatype not in _datatypes(feature.dtype):
                return None
        rows = decoder.columns([tensor.data for tensor in tensors], n)
    return None if rows is None else (rows, request.id, request.parameters)


def _datatypes(dtype: str) -> Collection[str]:
    """The protocol's types that a feature's values may come in."""
    return NUMBER_DATATYPES if dtype in NUMBERS else ("BOOL",) if dtype == "boolean" else ("BYTES",)


def _flat(data: list[Any], location: Location) -> list[Any]:
    """The values of a flat list, or of one nested once."""
    if data and isinstance(data[0], list):
        if not all(isinstance(part, list) for part in data):
            raise invalid(location, "data should be either flat or nested, not both", "data_shape")
        data = [value for part in data for value in part]
    if any(isinstance(value, list | dict) for value in data):
        raise invalid(location, "data should be a flat list, or a list of rows", "data_shape")
    return data


def _check_datatype(tensor: InputTensor, dtypes: set[str], location: Location) -> None:
    fits = all(tensor.datatype in _datatypes(dtype) for dtype in dtypes)
    if not fits:
        expected = " or ".join(sorted({DATATYPES[dtype] for dtype in dtypes}))
        message = f"{tensor.name} has the datatype {tensor.datatype}: send {expected}"
        raise invalid((*location, "datatype"), message, "datatype")


def rows_of_tensors(served: ServedModel, request: InferRequest, arrays: dict[int, np.ndarray] | None = None) -> Rows:
    """The rows of a request's tensors.

    Args:
        arrays: the values of tensors that came in binary, by their place among the inputs.

    Returns:
        tuples; or, only where there are such tensors, what `rows_of_columns` makes of them.

    Raises:
        Invalid: naming the tensor.
    """
    arrays = arrays or {}
    features = served.schema.features
    by_name = {tensor.name: (i, tensor) for i, tensor in enumerate(request.inputs)}
    if len(by_name) < len(request.inputs):
        raise invalid(("body", "inputs"), "two inputs have the same name", "duplicate")
    if len(by_name) == 1 and _has_all_features(request.inputs[0], features):
        return _rows_of_matrix(served, request.inputs[0], arrays.get(0))
    extra = [name for name in by_name if name not in features]
    if extra:
        expected = f"either one input of all features, or one for each of: {', '.join(features)}"
        raise invalid(
            ("body", "inputs", by_name[extra[0]][0]), f"{extra[0]} is no input; send {expected}", "input_name"
        )
    missing = [name for name, feature in features.items() if name not in by_name and not feature.nullable]
    if missing:
        raise Invalid([field_error(("body", "inputs"), f"the input {name} is missing", "missing") for name in missing])
    columns: dict[str, list[Any] | np.ndarray] = {}
    given = {name: feature for name, feature in features.items() if name in by_name}
    for name, feature in given.items():
        i, tensor = by_name[name]
        location: Location = ("body", "inputs", i)
        _check_datatype(tensor, {feature.dtype}, location)
        columns[name] = arrays[i] if i in arrays else _flat(tensor.data, (*location, "data"))
        n = tensor.shape[0]
        if tensor.shape not in ([n], [n, 1]) or n != len(columns[name]):
            message = f"{name} has the shape {tensor.shape} and {len(columns[name])} values: send [n] and n values"
            raise invalid((*location, "shape"), message, "shape")
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise invalid(("body", "inputs"), f"inputs have different lengths: {sorted(lengths)}", "shape")
    if arrays:
        nothing = np.full(lengths.pop(), np.nan)
        places: list[Location] = [("body", "inputs", by_name.get(name, (0,))[0], "data") for name in features]
        return rows_of_columns(served, [as_array(columns.get(name, nothing)) for name in features], places)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    try:
        return served.schema.from_python(rows, ())
    except Invalid as invalid_rows:
        for error in invalid_rows.errors:
            if error.type != MORE:
                error.loc = _location_in_tensors(error.loc, {name: i for name, (i, _) in by_name.items()})
        raise


def _location_in_tensors(loc: list[str | int], positions: dict[str, int]) -> list[str | int]:
    """[row, feature] as the place of the value in the request; all else is wrong with the inputs as a whole."""
    if len(loc) > 1 and loc[1] in positions:
        return ["body", "inputs", positions[str(loc[1])], "data", loc[0]]
    return ["body", "inputs", *loc]


def _has_all_features(only: InputTensor, features: Collection[str]) -> bool:
    """Whether a request's only input has all features, whatever it is called; else it is the feature of its name."""
    is_matrix = len(features) > 1 and len(only.shape) == 2 and only.shape[1] == len(features)
    return is_matrix or only.name not in features


def _rows_of_matrix(served: ServedModel, tensor: InputTensor, array: np.ndarray | None) -> Rows:
    features = served.schema.features
    location: Location = ("body", "inputs", 0)
    dtypes: set[str] = {feature.dtype for feature in features.values()}
    if not set.intersection(*(set(_datatypes(dtype)) for dtype in dtypes)):
        message = f"{tensor.name} cannot have all features, as their types differ: send one input for each of"
        raise invalid(location, f"{message}: {', '.join(features)}", "input_name")
    _check_datatype(tensor, dtypes, location)
    width = len(features)
    data = _flat(tensor.data, (*location, "data")) if array is None else array
    n = tensor.shape[0]
    is_column = width == 1 and tensor.shape == [n]
    if not (is_column or tensor.shape == [n, width]) or math.prod(tensor.shape) != len(data):
        message = (
            f"{tensor.name} has the shape {tensor.shape} and {len(data)} values: send [n, {width}] and n * {width} "
            f"values, row by row in the order {', '.join(features)}; or one input of shape [n] for each of these"
        )
        raise invalid((*location, "shape"), message, "shape")
    if array is not None:
        return rows_of_columns(served, list(array.reshape(n, width).T), [(*location, "data")] * width)
    rows = [dict(zip(features, data[i : i + width], strict=True)) for i in range(0, len(data), width)]
    return served.schema.from_python(rows, (*location, "data"))
