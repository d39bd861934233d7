"""From the tensors of the Open Inference Protocol to rows."""

from __future__ import annotations

import math
from typing import Any

from app.api.errors import MORE, Invalid, Location, field_error, invalid
from app.api.served_model import ServedModel
from app.contract import InferRequest, InputTensor
from app.vocabulary import NUMERIC

DATATYPES = {
    "double": "FP64",
    "float": "FP32",
    "long": "INT64",
    "integer": "INT32",
    "boolean": "BOOL",
    "string": "BYTES",
}
FLOATS = frozenset({"FP16", "FP32", "FP64"})
INTS = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
MATRIX = ("features", "predict")  # names of the one tensor that holds all features


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
    if tensor.datatype in FLOATS | INTS:
        fits = dtypes <= NUMERIC - {"boolean"}
    else:
        fits = dtypes == {{"BOOL": "boolean", "BYTES": "string"}.get(tensor.datatype, "")}
    if not fits:
        expected = " or ".join(sorted({DATATYPES[dtype] for dtype in dtypes}))
        message = f"{tensor.name} has the datatype {tensor.datatype}: send {expected}"
        raise invalid((*location, "datatype"), message, "datatype")


def rows_of_tensors(served: ServedModel, request: InferRequest) -> list[dict[str, Any]]:
    """The rows of a request's tensors.

    Raises:
        Invalid: naming the tensor.
    """
    features = served.schema.features
    by_name = {tensor.name: (i, tensor) for i, tensor in enumerate(request.inputs)}
    if len(by_name) < len(request.inputs):
        raise invalid(("body", "inputs"), "two inputs have the same name", "duplicate")
    if len(by_name) == 1 and next(iter(by_name)) in MATRIX and next(iter(by_name)) not in features:
        return _rows_of_matrix(served, request.inputs[0])
    extra = [name for name in by_name if name not in features]
    if extra:
        expected = f"either one input {MATRIX[0]!r}, or one for each of: {', '.join(features)}"
        raise invalid(
            ("body", "inputs", by_name[extra[0]][0]), f"{extra[0]} is no input; send {expected}", "input_name"
        )
    missing = [name for name in features if name not in by_name]
    if missing:
        raise Invalid([field_error(("body", "inputs"), f"the input {name} is missing", "missing") for name in missing])
    columns: dict[str, list[Any]] = {}
    for name, feature in features.items():
        i, tensor = by_name[name]
        location: Location = ("body", "inputs", i)
        _check_datatype(tensor, {feature.dtype}, location)
        columns[name] = _flat(tensor.data, (*location, "data"))
        n = tensor.shape[0]
        if tensor.shape not in ([n], [n, 1]) or n != len(columns[name]):
            message = f"{name} has the shape {tensor.shape} and {len(columns[name])} values: send [n] and n values"
            raise invalid((*location, "shape"), message, "shape")
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise invalid(("body", "inputs"), f"inputs have different lengths: {sorted(lengths)}", "shape")
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


def _rows_of_matrix(served: ServedModel, tensor: InputTensor) -> list[dict[str, Any]]:
    features = served.schema.features
    location: Location = ("body", "inputs", 0)
    _check_datatype(tensor, {feature.dtype for feature in features.values()}, location)
    data, width = _flat(tensor.data, (*location, "data")), len(features)
    n = tensor.shape[0]
    if tensor.shape != [n, width] or math.prod(tensor.shape) != len(data):
        message = (
            f"{tensor.name} has the shape {tensor.shape} and {len(data)} values: send [n, {width}] and n * {width} "
            f"values, row by row in the order {', '.join(features)}"
        )
        raise invalid((*location, "shape"), message, "shape")
    rows = [dict(zip(features, data[i : i + width], strict=True)) for i in range(0, len(data), width)]
    return served.schema.from_python(rows, (*location, "data"))
