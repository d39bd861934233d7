"""Bundles that an attacker would write: each a good bundle of Iris with one thing changed, and its sums made anew.

Those that carry code try to write a canary file, by which a test sees whether it ran.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import yaml
from numpy.lib import format as npy
from onnx import TensorProto, helper, numpy_helper
from scipy import sparse  # type: ignore[import-untyped]
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from skops import io as skops

from app.registry.bundle import write_sums

Change = Callable[[Path, Path], None]  # the bundle's folder and the canary


@dataclass(frozen=True)
class Malice:
    """One kind of attack. says: a regular expression for the reason, which names the file."""

    says: str
    change: Change


CASES: dict[str, Malice] = {}


def plant(name: str, folder: Path, canary: Path) -> None:
    """Make the good bundle in the folder the bad one of this name of CASES."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile, about what is wrong with it
        CASES[name].change(folder, canary)
    write_sums(folder)


def _case(name: str, says: str) -> Callable[[Change], Change]:
    def add(change: Change) -> Change:
        CASES[name] = Malice(says, change)
        return change

    return add


# -- estimator.skops -------------------------------------------------------------------------------------------------


def serve_by_skops(folder: Path) -> Path:
    """Let the bundle be served by its estimator.skops; returns that file."""
    path = folder / "MLmodel"
    content = yaml.safe_load(path.read_text())
    content["metadata"]["serving"] = "skops"
    path.write_text(yaml.safe_dump(content))
    return folder / "estimator.skops"


def _rows(folder: Path) -> tuple[pd.DataFrame, list[Any]]:
    golden = json.loads((folder / "golden.json").read_text())
    names = [
        item["name"] for item in json.loads(yaml.safe_load((folder / "MLmodel").read_text())["signature"]["inputs"])
    ]
    return pd.DataFrame(golden["rows"], columns=names), golden["outputs"]


def _fitted(folder: Path, estimator: Any) -> Any:
    return estimator.fit(*_rows(folder))


def _dump(folder: Path, estimator: Any) -> None:
    skops.dump(estimator, serve_by_skops(folder))


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def _write(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _edit_schema(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = serve_by_skops(folder)
    members = _members(path)
    schema = json.loads(members["schema.json"])
    schema = edit(schema) or schema
    members["schema.json"] = json.dumps(schema).encode()
    _write(path, members)


def _node(loader: str, name: str, **more: Any) -> dict[str, Any]:
    module, _, attribute = name.rpartition(".")
    return {"__class__": attribute, "__module__": module, "__loader__": loader, "__id__": 1, **more}


def _in_estimator(node: dict[str, Any]) -> Change:
    """Put a node into the attributes of the estimator that is there."""

    def change(folder: Path, _: Path) -> None:
        _edit_schema(folder, lambda schema: schema["content"]["content"].update(extra=node))

    return change


def _node_case(name: str, says: str, node: dict[str, Any]) -> None:
    CASES[name] = Malice(says, _in_estimator(node))


def _code(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()"


@_case("a pipeline that runs Python", r"estimator\.skops .* function numpy\.testing\._private\.utils\.")
def _runstring(folder: Path, canary: Path) -> None:
    from numpy.testing._private.utils import build_err_msg, runstring

    code = FunctionTransformer(build_err_msg, kw_args={"err_msg": "", "header": _code(canary), "verbose": False})
    run = FunctionTransformer(runstring, kw_args={"dict": {}})
    _dump(folder, make_pipeline(code, run, _fitted(folder, LogisticRegression())))


@_case("one function that runs Python", r"estimator\.skops .* function numpy\.testing\._private\.utils\.runstring")
def _one_function(folder: Path, canary: Path) -> None:
    from numpy.testing._private.utils import runstring

    transformer = FunctionTransformer(partial(runstring, _code(canary)), kw_args={})
    _dump(folder, make_pipeline(transformer, _fitted(folder, LogisticRegression())))


@_case("a function of scikit-learn", r"estimator\.skops .* function sklearn\.")
def _sklearn_function(folder: Path, canary: Path) -> None:
    from sklearn.utils._testing import create_memmap_backed_data

    _dump(folder, make_pipeline(FunctionTransformer(create_memmap_backed_data), _fitted(folder, LogisticRegression())))


@_case("a function that saves the rows", r"estimator\.skops .* function numpy\.")
def _numpy_save(folder: Path, canary: Path) -> None:
    _dump(
        folder, make_pipeline(FunctionTransformer(partial(np.save, str(canary))), _fitted(folder, LogisticRegression()))
    )


@_case("a metric in Python", r"estimator\.skops .* function scipy\.")
def _metric(folder: Path, canary: Path) -> None:
    from scipy.spatial.distance import cosine  # type: ignore[import-untyped]

    _dump(folder, _fitted(folder, KNeighborsClassifier(metric=cosine, algorithm="brute")))


@_case("a kernel in Python", r"estimator\.skops .* function sklearn\.")
def _kernel(folder: Path, canary: Path) -> None:
    from sklearn.metrics.pairwise import rbf_kernel

    _dump(folder, _fitted(folder, SVC()).set_params(kernel=rbf_kernel))


@_case("an analyzer in Python", r"estimator\.skops .* (function|type) ")
def _analyzer(folder: Path, canary: Path) -> None:
    _dump(folder, make_pipeline(CountVectorizer(analyzer=json.loads), _fitted(folder, LogisticRegression())))


@_case("a scorer, which calls what it names", r"estimator\.skops .* sklearn\.metrics\._scorer\._Scorer")
def _scorer(folder: Path, canary: Path) -> None:
    from sklearn.metrics import get_scorer

    save = FunctionTransformer(get_scorer("accuracy"), kw_args={"X": str(canary), "y_true": None})
    _dump(folder, make_pipeline(save, _fitted(folder, LogisticRegression())))


_node_case(
    "a method",
    r"estimator\.skops .* MethodNode",
    _node(
        "MethodNode",
        "builtins.dict",
        content={"func": "clear", "obj": _node("DictNode", "builtins.dict", content={}, key_types={})},
    ),
)
_node_case(
    "a call of a method by name",
    r"estimator\.skops .* OperatorFuncNode",
    _node("OperatorFuncNode", "operator.methodcaller", attrs=_node("TupleNode", "builtins.tuple", content=[])),
)
_node_case(
    "an object made by its constructor",
    r"estimator\.skops .* ConstructorFromReduceNode",
    _node("ConstructorFromReduceNode", "numpy.memmap", content=_node("TupleNode", "builtins.tuple", content=[])),
)
_node_case("a type that opens files", r"estimator\.skops .* type numpy\.memmap", _node("TypeNode", "numpy.memmap"))
_node_case("a builtin", r"estimator\.skops .* type builtins\.eval", _node("TypeNode", "builtins.eval"))
_node_case(
    "a list that is something else",
    r"estimator\.skops .* type sklearn\.utils\._mocking\.",
    _node("ListNode", "sklearn.utils._mocking.CheckingClassifier", content=[]),
)
_node_case(
    "an object of the tests of scikit-learn",
    r"estimator\.skops .* type sklearn\.utils\._mocking\.",
    _node("ObjectNode", "sklearn.utils._mocking.CheckingClassifier"),
)
_node_case(
    "a loss that is something else",
    r"estimator\.skops .* type subprocess\.Popen",
    _node("LossNode", "subprocess.Popen", content={}, __reduce__={"args": {}}),
)
_node_case(
    "a file that is not there",
    r"estimator\.skops .* refers to",
    _node("NdArrayNode", "numpy.ndarray", type="numpy", file="../../x"),
)


@_case("a loader of an older skops", r"estimator\.skops .* protocol")
def _protocol(folder: Path, _: Path) -> None:
    _edit_schema(folder, lambda schema: schema.update(protocol=0))


@_case("very deep", r"estimator\.skops .* nested deeper")
def _deep(folder: Path, _: Path) -> None:
    def nested(schema: dict[str, Any]) -> None:
        inner = _node("ListNode", "builtins.list", content=[])
        for _ in range(300):
            inner = _node("ListNode", "builtins.list", content=[inner])
        schema["content"]["content"]["extra"] = inner

    _edit_schema(folder, nested)


@_case("deeper than Python can read", r"estimator\.skops .* nested deeper")
def _deepest(folder: Path, _: Path) -> None:
    path = serve_by_skops(folder)
    _write(path, _members(path) | {"schema.json": b"[" * 200_000 + b"]" * 200_000})


@_case("a zip bomb", r"estimator\.skops .* compressed")
def _bomb(folder: Path, _: Path) -> None:
    path = serve_by_skops(folder)
    _write(path, _members(path) | {"zeros.npy": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)


@_case("two schemas in one file", r"estimator\.skops .* two files of one name")
def _twice(folder: Path, _: Path) -> None:
    path = serve_by_skops(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("schema.json", b"{}")


@_case("a pickle in place of the estimator", r"estimator\.skops .* no file of skops")
def _pickle(folder: Path, canary: Path) -> None:
    serve_by_skops(folder).write_bytes(_pickled(canary))


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def _pickled(canary: Path) -> bytes:
    return pickle.dumps(_Canary(canary))


def _other_array(folder: Path, content: bytes) -> None:
    """Put other bytes in place of every array of a logistic regression."""
    _dump(folder, _fitted(folder, LogisticRegression()))
    path = folder / "estimator.skops"
    _write(path, {name: content if name.endswith(".npy") else old for name, old in _members(path).items()})


@_case("a pickle in place of an array", r"estimator\.skops .* is no array")
def _pickled_array(folder: Path, canary: Path) -> None:
    _other_array(folder, _pickled(canary))


@_case("an array of pickles", r"estimator\.skops .* pickled Python objects")
def _object_array(folder: Path, canary: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Canary(canary)], dtype=object), allow_pickle=True)
    _other_array(folder, buffer.getvalue())


def _npy(shape: tuple[int, ...], data: bytes) -> bytes:
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


@_case("an array that says it is huge", r"estimator\.skops .* does not hold")
def _huge_array(folder: Path, _: Path) -> None:
    _other_array(folder, _npy((10**12,), bytes(8)))


@_case("an array with a huge header", r"estimator\.skops .* is no array")
def _huge_header(folder: Path, _: Path) -> None:
    text = b"[" * 1_000_000
    _other_array(folder, b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text)


def _with_sparse(folder: Path, content: bytes) -> None:
    """A support vector machine that was fitted on a sparse matrix, with another matrix in it."""
    rows, labels = _rows(folder)
    _dump(folder, SVC(kernel="linear").fit(sparse.csr_matrix(rows.to_numpy()), labels))
    path = folder / "estimator.skops"
    _write(path, {name: content if name.endswith(".npz") else old for name, old in _members(path).items()})


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@_case("a zip bomb in a sparse matrix", r"estimator\.skops .* sparse matrix")
def _sparse_bomb(folder: Path, _: Path) -> None:
    _with_sparse(folder, _npz(more=np.zeros(10_000_000)))


@_case("a sparse matrix that points elsewhere", r"estimator\.skops .* outside its shape")
def _sparse_outside(folder: Path, _: Path) -> None:
    matrix = {
        "data": np.ones(1),
        "indices": np.array([10**6], dtype=np.int32),
        "indptr": np.array([0, 1], dtype=np.int32),
    }
    _with_sparse(folder, _npz(format=np.array("csr"), shape=np.array([1, 4]), **matrix))


def _other_nodes(folder: Path, estimator: Any, field: str, value: int) -> None:
    """A fitted model whose tree nodes have another number in one field."""
    _dump(folder, _fitted(folder, estimator))
    path = folder / "estimator.skops"
    members = _members(path)
    for name, content in members.items():
        array: Any = np.load(io.BytesIO(content)) if name.endswith(".npy") else np.empty(0)
        if array.dtype.names and field in array.dtype.names:
            array[field][0] = value
            buffer = io.BytesIO()
            np.save(buffer, array)
            members[name] = buffer.getvalue()
    _write(path, members)


@_case("a tree that points elsewhere", r"estimator\.skops .* positions outside")
def _tree_outside(folder: Path, _: Path) -> None:
    _other_nodes(folder, RandomForestClassifier(2, random_state=0), "left_child", 10**9)


@_case("a tree that goes round in circles", r"estimator\.skops .* positions outside")
def _tree_circle(folder: Path, _: Path) -> None:
    _other_nodes(folder, RandomForestClassifier(2, random_state=0), "right_child", 0)


@_case("a boosted tree that points elsewhere", r"estimator\.skops .* positions outside")
def _boosted_outside(folder: Path, _: Path) -> None:
    _other_nodes(folder, HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=2), "feature_idx", 10**6)


@_case("a model that caches on disk", r"estimator\.skops .* memory of Pipeline")
def _memory(folder: Path, canary: Path) -> None:
    fitted = _fitted(folder, make_pipeline(LogisticRegression()))
    _dump(folder, fitted.set_params(memory=str(canary)))


@_case("a model that opens the files it is asked about", r"estimator\.skops .* input of CountVectorizer")
def _filename(folder: Path, canary: Path) -> None:
    _dump(folder, Pipeline([("v", CountVectorizer(input="filename")), ("m", _fitted(folder, LogisticRegression()))]))


@_case("a stack that calls another method", r"estimator\.skops .* stack_method_ of StackingClassifier")
def _stack(folder: Path, _: Path) -> None:
    fitted = _fitted(folder, StackingClassifier([("l", LogisticRegression()), ("m", LogisticRegression())], cv=2))
    fitted.stack_method_ = ["fit", "fit"]
    _dump(folder, fitted)


@_case("a threshold that calls another method", r"estimator\.skops .* response_method of FixedThresholdClassifier")
def _threshold(folder: Path, _: Path) -> None:
    rows, labels = _rows(folder)
    fitted = FixedThresholdClassifier(LogisticRegression()).fit(rows, [label == labels[0] for label in labels])
    _dump(folder, fitted.set_params(response_method="to_pickle"))


@_case("threads without end", r"estimator\.skops .* n_jobs of RandomForestClassifier")
def _threads(folder: Path, _: Path) -> None:
    _dump(folder, _fitted(folder, RandomForestClassifier(2)).set_params(n_jobs=10**6))


# -- model.onnx ------------------------------------------------------------------------------------------------------


def _onnx_case(name: str, says: str) -> Callable[[Callable[[onnx.ModelProto], None]], None]:
    """A change of an ONNX model that says what the estimator says."""

    def add(change: Callable[[onnx.ModelProto], None]) -> None:
        def write(folder: Path, _: Path) -> None:
            model = onnx.load(folder / "model.onnx")
            change(model)
            (folder / "model.onnx").write_bytes(model.SerializeToString())

        CASES[name] = Malice(says, write)

    return add


def _add(model: onnx.ModelProto, operator_name: str, inputs: list[str], domain: str = "", **attributes: Any) -> None:
    """Add a node, whose result is an output, so that it is calculated."""
    model.graph.node.append(
        helper.make_node(operator_name, inputs, [f"more_{operator_name}"], domain=domain, **attributes)
    )
    model.graph.output.append(helper.make_tensor_value_info(f"more_{operator_name}", TensorProto.FLOAT, None))


def _constant(model: onnx.ModelProto, name: str, value: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _external(model: onnx.ModelProto, location: str) -> None:
    tensor = TensorProto(name="secret", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    model.graph.initializer.append(tensor)
    _add(model, "Identity", ["secret"])


@_onnx_case("a tensor in a file elsewhere", r"model\.onnx .* another file")
def _absolute(model: onnx.ModelProto) -> None:
    _external(model, "/etc/passwd")


@_onnx_case("a tensor in a file above", r"model\.onnx .* another file")
def _above(model: onnx.ModelProto) -> None:
    _external(model, "../../../../etc/passwd")


@_onnx_case("an operator of a foreign domain", r"model\.onnx .* domain 'evil\.example'")
def _domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("evil.example", 1))
    _add(model, "Run", [model.graph.input[0].name], domain="evil.example")


@_onnx_case("an operator that no export has", r"model\.onnx .* operator 'com\.microsoft\.")
def _contrib(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    _add(model, "Inverse", [model.graph.input[0].name], domain="com.microsoft")


@_onnx_case("a version of the operators from the future", r"model\.onnx .* version 99")
def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


@_onnx_case("a function of its own", r"model\.onnx .* functions of its own")
def _function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("mine", "F", ["x"], ["y"], body, [helper.make_opsetid("", 18)]))


@_onnx_case("a loop without end", r"model\.onnx .* operator 'Loop'")
def _loop(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("v", TensorProto.BOOL, [])
    number = helper.make_tensor_value_info("n", TensorProto.INT64, [])
    out = helper.make_tensor_value_info("w", TensorProto.BOOL, [])
    body = helper.make_graph([helper.make_node("Identity", ["v"], ["w"])], "body", [number, value], [out])
    _constant(model, "true", True)
    _add(model, "Loop", ["", "true"], body=body)


@_onnx_case("graphs in graphs", r"model\.onnx .* graphs in graphs")
def _graphs(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, [])
    graph = helper.make_graph([helper.make_node("Identity", ["v"], ["w"])], "g", [value], [value])
    for _ in range(3):
        node = helper.make_node("Scan", ["v"], ["w"], body=graph, num_scan_inputs=1)
        graph = helper.make_graph([node], "g", [value], [value])
    _add(model, "Scan", [model.graph.input[0].name], body=graph, num_scan_inputs=1)


@_onnx_case("a tensor that says it is huge", r"model\.onnx .* another number of elements")
def _huge_tensor(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(
        TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[10**12], raw_data=b"1234")
    )


@_onnx_case("sparse tensors", r"model\.onnx .* sparse tensors")
def _sparse(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    positions = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, positions, [10**12]))


@_onnx_case("a constant of 8 GB", r"model\.onnx does not load: .* memory")
def _huge_constant(model: onnx.ModelProto) -> None:
    _add(model, "ConstantOfShape", [_constant(model, "shape", [2**31])])


@_onnx_case("a product of 8 GB", r"model\.onnx does not load: .* memory")
def _huge_product(model: onnx.ModelProto) -> None:
    column, row = np.ones((2**16, 1), dtype=np.float32), np.ones((1, 2**15), dtype=np.float32)
    _add(model, "MatMul", [_constant(model, "column", column), _constant(model, "row", row)])


@_case("a pickle in place of the ONNX model", r"model\.onnx .* which training never writes")
def _pickled_onnx(folder: Path, canary: Path) -> None:
    (folder / "model.onnx").write_bytes(_pickled(canary))


@_case("half an ONNX model", r"model\.onnx .* no ONNX model")
def _half(folder: Path, _: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-50])


# -- the other files -------------------------------------------------------------------------------------------------


def _json_case(name: str, file: str, says: str, edit: Callable[[Any], Any]) -> None:
    def change(folder: Path, _: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text())
        content = edit(content) or content
        path.write_text(content if isinstance(content, str) else json.dumps(content))

    CASES[name] = Malice(says, change)


def _text_case(name: str, file: str, says: str, text: str) -> None:
    def change(folder: Path, _: Path) -> None:
        (folder / file).write_text(text)

    CASES[name] = Malice(says, change)


def _first_feature(content: Any, **fields: Any) -> None:
    content["features"]["sepal_length"].update(fields)


def _first_row(content: Any, row: list[Any]) -> None:
    content["rows"][0] = row


_json_case(
    "NaN as a reference", "reference.json", r"reference\.json .* NaN", lambda c: _first_feature(c, min=float("nan"))
)
_json_case(
    "a number that no double holds",
    "golden.json",
    r"golden\.json .* 1e999",
    lambda c: re.sub(r"\[\[[0-9.]+", "[[1e999", json.dumps(c)),
)
_json_case("text as a number", "reference.json", r"reference\.json cannot be", lambda c: _first_feature(c, min="4"))
_json_case("a row that is too short", "golden.json", r"golden\.json has a row", lambda c: _first_row(c, [1.0]))
_json_case("lists as values", "golden.json", r"golden\.json has a row", lambda c: _first_row(c, [[1], [2], [3], [4]]))
_json_case(
    "no golden rows",
    "golden.json",
    r"golden\.json has 0 rows",
    lambda c: c.update(rows=[], outputs=[], probabilities=[]),
)
_json_case(
    "very many golden rows",
    "golden.json",
    r"golden\.json has 32000 rows",
    lambda c: c.update(rows=c["rows"] * 1_000),
)
_json_case(
    "edges that do not ascend",
    "reference.json",
    r"reference\.json: 'sepal_length'",
    lambda c: c["features"]["sepal_length"]["edges"].reverse(),
)
_json_case(
    "very many time series",
    "reference.json",
    r"reference\.json: 'sepal_length' has 20001",
    lambda c: _first_feature(c, edges=[1.0] * 20_000, shares=[0.0] * 20_001),
)
_json_case(
    "another example",
    "input_example.json",
    r"input_example\.json has other features",
    lambda c: c.update(columns=["x", *c["columns"][1:]]),
)
_text_case("JSON that is very deep", "golden.json", r"golden\.json cannot be read", "[" * 200_000)
_text_case("YAML that makes objects", "MLmodel", r"MLmodel cannot be read", "!!python/object/apply:os.system ['true']")
_text_case("YAML that is very deep", "MLmodel", r"MLmodel cannot be read", "[" * 5_000)


@_case("a pickle beside the model", r"python_model\.pkl is in SHA256SUMS")
def _beside(folder: Path, canary: Path) -> None:
    (folder / "python_model.pkl").write_bytes(_pickled(canary))


@_case("another way to serve", r"MLmodel cannot be read")
def _serving(folder: Path, _: Path) -> None:
    path = folder / "MLmodel"
    content = yaml.safe_load(path.read_text())
    content["metadata"]["serving"] = "pickle"
    path.write_text(yaml.safe_dump(content))
