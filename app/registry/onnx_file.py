"""Checks a model.onnx before onnxruntime sees it: which operators it has, and that its tensors are in it.

The file is a protobuf message (https://onnx.ai/onnx/repo-docs/IR.html, onnx/onnx.proto). The API has no package onnx,
so this reads the wire format itself, and more strictly than protobuf does: a field that is not known here, of another
type, or there twice where it may be there once, is refused rather than left out or merged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.clients.errors import ServiceError

MAX_FILE = 2**29  # bytes
MAX_NODES = 100_000
MAX_DEPTH = 2  # the graph, and the body of a Scan in it


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What skl2onnx writes for scikit-learn's estimators, and the exporter adds (Reshape, Split); a test compares. No If and
# no Loop, which may never end; Scan, which KNN and Gaussian processes need, ends with its input.
OPERATORS = {
    "": _words(
        """Abs Add ArgMax ArgMin Cast Clip Concat ConstantOfShape CumSum Div Equal Exp Flatten Gather GatherElements
        Gemm Greater GreaterOrEqual Identity IsNaN Less LessOrEqual Log LpNormalization MatMul Max Mul Neg Not Or Pow
        Reciprocal ReduceLogSumExp ReduceMax ReduceMean ReduceProd ReduceSum ReduceSumSquare Relu Reshape Scan Shape
        Sigmoid Sign Slice Softmax Split Sqrt StringNormalizer Sub Sum Tanh TfIdfVectorizer TopK Transpose Where"""
    ),
    "ai.onnx.ml": _words(
        """ArrayFeatureExtractor Binarizer Imputer LabelEncoder LinearClassifier LinearRegressor Normalizer
        OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsembleClassifier TreeEnsembleRegressor"""
    ),
    "com.microsoft": _words("Tokenizer"),
}
NEWEST = {"": 18, "ai.onnx.ml": 3, "com.microsoft": 1}  # versions of the operators; `flows.onnx_export` asks for these

Fields = dict[str, list[Any]]  # the values of each field of a message
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class OnnxFileError(ServiceError):
    """The file is not what the exporter writes. The message does not name the file."""


@dataclass(frozen=True)
class _Field:
    """A field of a message. many: it may be there more than once. message: what its bytes are, "" for plain ones."""

    name: str
    wire: int
    many: bool = False
    message: str = ""


def _text(name: str, many: bool = False) -> _Field:
    return _Field(name, BYTES, many)


def _number(name: str) -> _Field:
    return _Field(name, VARINT)


def _inner(name: str, message: str, many: bool = False) -> _Field:
    return _Field(name, BYTES, many, message)


# Fields by number. What is not here is refused: functions, external data, sparse tensors, training, quantization.
MESSAGES: Mapping[str, Mapping[int, _Field]] = {
    "Model": {
        1: _number("ir_version"),
        2: _text("producer_name"),
        3: _text("producer_version"),
        4: _text("domain"),
        5: _number("model_version"),
        6: _text("doc_string"),
        7: _inner("graph", "Graph"),
        8: _inner("opset_import", "Opset", many=True),
        14: _text("metadata_props", many=True),
    },
    "Opset": {1: _text("domain"), 2: _number("version")},
    "Graph": {
        1: _inner("node", "Node", many=True),
        2: _text("name"),
        5: _inner("initializer", "Tensor", many=True),
        10: _text("doc_string"),
        11: _text("input", many=True),
        12: _text("output", many=True),
        13: _text("value_info", many=True),
    },
    "Node": {
        1: _text("input", many=True),
        2: _text("output", many=True),
        3: _text("name"),
        4: _text("op_type"),
        5: _inner("attribute", "Attribute", many=True),
        6: _text("doc_string"),
        7: _text("domain"),
    },
    "Attribute": {
        1: _text("name"),
        2: _Field("f", FIXED32),
        3: _number("i"),
        4: _text("s"),
        5: _inner("t", "Tensor"),
        6: _inner("g", "Graph"),
        7: _Field("floats", FIXED32, many=True),
        8: _Field("ints", VARINT, many=True),
        9: _text("strings", many=True),
        13: _text("doc_string"),
        20: _number("type"),
    },
    "Tensor": {
        1: _Field("dims", VARINT, many=True),
        2: _number("data_type"),
        4: _Field("float_data", FIXED32, many=True),
        5: _Field("int32_data", VARINT, many=True),
        6: _text("string_data", many=True),
        7: _Field("int64_data", VARINT, many=True),
        8: _text("name"),
        9: _text("raw_data"),
        10: _Field("double_data", FIXED64, many=True),
        12: _text("doc_string"),
    },
}
REFUSED = {
    ("Model", 20): "steps of a training",
    ("Model", 25): "functions of its own",
    ("Graph", 14): "quantized tensors",
    ("Graph", 15): "sparse tensors",
    ("Attribute", 11): "graphs as a list",
    ("Attribute", 22): "sparse tensors",
    ("Attribute", 23): "sparse tensors",
    ("Tensor", 13): "a tensor that is in another file",
    ("Tensor", 14): "a tensor that is in another file",
}
# Bytes of one element by data_type: float, uint8, int8, int32, int64, bool, double; text has no fixed size.
SIZES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 11: 8}
STRING = 8


@dataclass
class _Count:
    """What has been seen of one file."""

    nodes: int = 0


def check_onnx(content: bytes) -> None:
    """Check an ONNX model.

    Raises:
        OnnxFileError: it is none, or has something in it that the exporter does not write.
    """
    if len(content) > MAX_FILE:
        raise OnnxFileError(f"it has {len(content)} bytes, {MAX_FILE} are the most")
    try:
        model = _read("Model", memoryview(content))
        for opset in model.get("opset_import", []):
            _check_opset(_read("Opset", opset))
        graphs = model.get("graph", [])
        if len(graphs) != 1:
            raise OnnxFileError("it has no graph")
        _check_graph(graphs[0], _Count(), 1)
    except (IndexError, UnicodeDecodeError) as error:
        raise OnnxFileError(f"it is no ONNX model: {type(error).__name__}: {error}") from error


def _check_opset(opset: Fields) -> None:
    domain, version = _string(opset, "domain"), _single(opset, "version", 0)
    if domain == "ai.onnx":
        domain = ""
    if domain not in NEWEST:
        raise OnnxFileError(f"it needs operators of the domain {domain!r}, which serving does not know")
    if not 1 <= version <= NEWEST[domain]:
        raise OnnxFileError(f"it needs version {version} of the domain {domain!r}, {NEWEST[domain]} is the newest here")


def _check_graph(raw: memoryview, count: _Count, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise OnnxFileError(f"it has graphs in graphs, {depth} deep; {MAX_DEPTH} are the most")
    graph = _read("Graph", raw)
    for tensor in graph.get("initializer", []):
        _check_tensor(_read("Tensor", tensor))
    for item in graph.get("node", []):
        count.nodes += 1
        if count.nodes > MAX_NODES:
            raise OnnxFileError(f"it has more than {MAX_NODES} nodes")
        node = _read("Node", item)
        domain, name = _string(node, "domain"), _string(node, "op_type")
        if name not in OPERATORS.get("" if domain == "ai.onnx" else domain, ()):
            what = f"{domain}.{name}" if domain else name
            raise OnnxFileError(f"it has the operator {what!r}, which is not among those that training writes")
        for attribute in (_read("Attribute", part) for part in node.get("attribute", [])):
            for tensor in attribute.get("t", []):
                _check_tensor(_read("Tensor", tensor))
            for inner in attribute.get("g", []):
                _check_graph(inner, count, depth + 1)


def _check_tensor(tensor: Fields) -> None:
    """Check that a tensor holds as many elements as its shape says."""
    name, kind = _string(tensor, "name"), _single(tensor, "data_type", 0)
    dims = [length for value in tensor.get("dims", []) for length in _numbers(value)]
    elements = math.prod(dims)
    if any(length >= 2**63 for length in dims) or (kind not in SIZES and kind != STRING):
        raise OnnxFileError(f"the tensor {name!r} in it has the shape {dims} and the type {kind}")
    typed = [key for key in ("float_data", "int32_data", "int64_data", "double_data", "string_data") if key in tensor]
    if "raw_data" in tensor:
        held = len(_single(tensor, "raw_data", b"")) / SIZES[kind] if kind in SIZES and not typed else -1
    elif "string_data" in tensor:
        held = len(tensor["string_data"])
    else:
        held = sum(_length(key, value) for key in typed for value in tensor[key])
    if held != elements or len(typed) > 1:
        raise OnnxFileError(f"the tensor {name!r} in it has the shape {dims}, and holds another number of elements")


# -- the wire format: https://protobuf.dev/programming-guides/encoding/ ---------------------------------------------


def _read(message: str, raw: memoryview) -> Fields:
    """The fields of a message, each a list of its values: numbers, or bytes as memoryviews."""
    fields: Fields = {}
    known = MESSAGES[message]
    for number, wire, value in _wire(raw):
        field = known.get(number)
        if field is None:
            what = REFUSED.get((message, number), f"the field {number} in {message}")
            raise OnnxFileError(f"it has {what}, which training never writes")
        packed = field.many and field.wire != BYTES and wire == BYTES
        if wire != field.wire and not packed:
            raise OnnxFileError(f"it is no ONNX model: {message}.{field.name} is of another type")
        values = fields.setdefault(field.name, [])
        if values and not field.many:
            raise OnnxFileError(f"it has {message}.{field.name} twice")
        values.append(value)
    return fields


def _wire(raw: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """The fields of a message: number, wire type, value. A number of fixed size is given as its bytes."""
    position = 0
    while position < len(raw):
        key, position = _varint(raw, position)
        wire = key & 7
        if wire == VARINT:
            value, position = _varint(raw, position)
            yield key >> 3, wire, value
            continue
        if wire not in (FIXED64, BYTES, FIXED32):
            raise OnnxFileError("it is no ONNX model: it is damaged, or another kind of file")
        size = {FIXED64: 8, FIXED32: 4}.get(wire)
        if size is None:
            size, position = _varint(raw, position)
        if size > len(raw) - position:
            raise OnnxFileError("it is no ONNX model: it is damaged, or another kind of file")
        yield key >> 3, wire, raw[position : position + size]
        position += size


def _varint(raw: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        byte = raw[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result & (2**64 - 1), position
    raise OnnxFileError("it is no ONNX model: it is damaged, or another kind of file")


def _numbers(value: int | memoryview) -> Iterator[int]:
    """One number, or those that are packed into bytes."""
    if isinstance(value, int):
        yield value
        return
    position = 0
    while position < len(value):
        number, position = _varint(value, position)
        yield number


def _length(key: str, value: int | memoryview) -> float:
    """How many numbers one value of a repeated field is."""
    if isinstance(value, int):
        return 1
    if key in ("float_data", "double_data"):
        return len(value) / (4 if key == "float_data" else 8)
    return sum(byte < 128 for byte in value)  # each number ends with such a byte


def _single(fields: Fields, name: str, default: Any) -> Any:
    return fields[name][0] if name in fields else default


def _string(fields: Fields, name: str) -> str:
    return bytes(_single(fields, name, b"")).decode()
