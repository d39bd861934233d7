"""Reads an estimator.skops, after its types, sizes and structure have been checked; `trusted_types` lists the types.

skops itself runs no pickle, but it imports and calls what the file names, of what the caller trusts. Its own defaults
and its loaders for older files are wider than what is needed here, so the whole file is checked before skops sees it,
and the numbers that scikit-learn's compiled code takes for array positions before anything is predicted.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from app.clients.errors import ServiceError
from app.registry.estimator_checks import check_estimator
from app.registry.trusted_types import BY_NODE, FUNCTIONS

PROTOCOL = 2  # of the pinned skops, a test compares
MAX_SCHEMA = 256 * 2**20  # bytes of schema.json
MAX_DEPTH = 150  # of nested objects in schema.json; a stack of pipelines has 40
MAX_SPARSE = 2**30  # bytes of a sparse matrix, unpacked
SPARSE_PARTS = {f"{name}.npy" for name in ("data", "indices", "indptr", "shape", "format", "_is_array")}
NODES_OF_CODE = {"FunctionNode", "MethodNode", "OperatorFuncNode", "TypeNode"}


class SkopsFileError(ServiceError):
    """The file is not what training writes. The message does not name the file."""


def read_estimator(path: Path) -> Any:
    """The fitted estimator in the file.

    Raises:
        SkopsFileError: it holds something that is not loaded, or is damaged.
    """
    from skops import io as skops  # imported here: with scikit-learn 70 MB of memory, which models in ONNX do not need

    names = check_file(path)
    try:
        estimator = skops.load(path, trusted=sorted(names))
    except Exception as error:  # skops raises what the types in the file raise
        raise SkopsFileError(f"skops cannot read it: {type(error).__name__}: {error}") from error
    problem = check_estimator(estimator)
    if problem:
        raise SkopsFileError(problem)
    return estimator


def check_file(path: Path) -> set[str]:
    """Check a file without importing or making anything that it names.

    Returns:
        the types and functions in it, all of which are on the list.

    Raises:
        SkopsFileError: it holds something that is not loaded.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path.stat().st_size)
            names: set[str] = set()
            for node in _nodes(_schema(archive)):
                names.add(_name(node))
                if "file" in node:
                    _check_member(archive, members, node)
            return names
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, KeyError, TypeError, ValueError) as error:
        raise SkopsFileError(f"it is no file of skops: {type(error).__name__}: {error}") from error
    except RecursionError as error:
        raise SkopsFileError(f"it is nested deeper than {MAX_DEPTH} levels") from error


def _members(archive: zipfile.ZipFile, size: int) -> set[str]:
    """The names of its files, which are stored as they are: nothing can be larger than the archive."""
    infos = archive.infolist()
    names = {info.filename for info in infos}
    if len(names) != len(infos):
        raise SkopsFileError("it has two files of one name")
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise SkopsFileError(f"{info.filename!r} in it is compressed or encrypted, which training never writes")
    if sum(info.file_size for info in infos) > size:
        raise SkopsFileError("its files overlap: together they are larger than the archive")
    return names


def _schema(archive: zipfile.ZipFile) -> dict[str, Any]:
    if archive.getinfo("schema.json").file_size > MAX_SCHEMA:
        raise SkopsFileError(f"its schema.json is larger than {MAX_SCHEMA // 2**20} MB")
    schema = json.loads(archive.read("schema.json"))
    if not isinstance(schema, dict) or type(schema.get("protocol")) is not int or schema["protocol"] != PROTOCOL:
        raise SkopsFileError(f"it was not written by the protocol {PROTOCOL} of skops, the one that is read")
    return schema


def _nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node in schema.json: every object in it that names a loader."""
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise SkopsFileError(f"it is nested deeper than {MAX_DEPTH} levels")
        if isinstance(item, dict):
            if isinstance(item.get("__loader__"), str):
                yield item
            waiting.extend((value, depth + 1) for value in item.values() if isinstance(value, dict | list))
        else:
            waiting.extend((value, depth + 1) for value in item if isinstance(value, dict | list))


def _name(node: dict[str, Any]) -> str:
    """The name of the node's type, where such a node may hold it."""
    kind, module, name = node["__loader__"], node["__module__"], node["__class__"]
    full = f"{module}.{name}"
    if kind not in BY_NODE:
        raise SkopsFileError(f"it holds a {kind} ({full}), which serving does not load{_instead(kind)}")
    if full not in BY_NODE[kind] or not isinstance(module, str) or not isinstance(name, str):
        what = "function" if kind == "FunctionNode" else "type"
        raise SkopsFileError(f"it holds the {what} {full}, which serving does not load{_instead(kind)}")
    if kind == "JsonNode" and not isinstance(node["content"], str):
        raise SkopsFileError("it holds a JsonNode without text")
    return full


def _instead(kind: str) -> str:
    if kind not in NODES_OF_CODE:
        return ": serving loads scikit-learn's own estimators and plain data"
    known = ", ".join(sorted(name.removeprefix("numpy.") for name in FUNCTIONS if name.startswith("numpy.")))
    return (
        ": a version carries no code of its own. Use a transformer of scikit-learn by its name, "
        f"FunctionTransformer with one of NumPy's functions ({known}), or compute the column in load()"
    )


# -- the arrays ------------------------------------------------------------------------------------------------------


def _check_member(archive: zipfile.ZipFile, members: set[str], node: dict[str, Any]) -> None:
    """Check the file that a node reads."""
    name, kind = node["file"], node["__loader__"]
    if not isinstance(name, str) or name not in members or name == "schema.json":
        raise SkopsFileError(f"it refers to {name!r}, which is not in it")
    size = archive.getinfo(name).file_size
    if kind == "NdArrayNode":
        with archive.open(name) as stream:
            _check_array(stream, name, size)
    elif kind == "SparseMatrixNode":
        _check_sparse(archive.read(name), name)


def _check_array(stream: IO[bytes], name: str, size: int) -> None:
    """Check that an .npy file holds as many numbers as its header says, and no Python objects."""
    try:
        version = npy.read_magic(stream)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read_header(stream)
    except (ValueError, KeyError, SyntaxError, TypeError) as error:
        raise SkopsFileError(f"{name} in it is no array: {type(error).__name__}: {error}") from error
    if dtype.hasobject:
        raise SkopsFileError(f"{name} in it holds pickled Python objects")
    if any(length < 0 for length in shape):
        raise SkopsFileError(f"{name} in it has the shape {shape}")
    count = math.prod(shape)
    if count * dtype.itemsize != size - stream.tell() or (count and not dtype.itemsize):
        raise SkopsFileError(f"{name} in it says that its shape is {shape} of {dtype}, which it does not hold")


def _check_sparse(content: bytes, name: str) -> None:
    """Check the arrays of an .npz file, which is packed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        foreign = {info.filename for info in infos} - SPARSE_PARTS
        if foreign or len({info.filename for info in infos}) != len(infos):
            raise SkopsFileError(f"{name} in it is no sparse matrix: it holds {sorted(foreign)}")
        if sum(info.file_size for info in infos) > MAX_SPARSE:
            raise SkopsFileError(f"{name} in it is larger than {MAX_SPARSE // 2**20} MB once it is unpacked")
        for info in infos:
            with archive.open(info) as stream:
                _check_array(stream, f"{name}/{info.filename}", info.file_size)
        _check_sparse_shape(archive, name)


def _check_sparse_shape(archive: zipfile.ZipFile, name: str) -> None:
    """Check that the positions of a compressed sparse matrix are within its shape: compiled code trusts them."""
    arrays = {info.filename: np.load(io.BytesIO(archive.read(info)), allow_pickle=False) for info in archive.infolist()}
    form, shape = arrays["format.npy"].item(), arrays["shape.npy"].tolist()
    form = form.decode("ascii") if isinstance(form, bytes) else form
    if form not in ("csr", "csc"):
        raise SkopsFileError(f"{name} in it is a sparse matrix of the format {form!r}; csr and csc are loaded")
    rows, columns = shape if form == "csr" else shape[::-1]
    indices, ends, data = arrays["indices.npy"], arrays["indptr.npy"], arrays["data.npy"]
    sound = (
        all(array.ndim == 1 for array in (indices, ends, data))
        and indices.dtype.kind == ends.dtype.kind == "i"
        and data.dtype.kind in "fiub"
        and len(ends) == rows + 1
        and ends[0] == 0
        and ends[-1] <= min(len(indices), len(data))
        and bool(np.all(np.diff(ends) >= 0))
        and bool(np.all((indices >= 0) & (indices < columns)))
    )
    if not sound:
        raise SkopsFileError(f"{name} in it is a sparse matrix whose positions are outside its shape")
