"""The bundle: the files of a model version, with checksums, as training writes and serving reads them.

MLmodel, model.onnx     the ONNX model as an MLflow model (flavor onnx), signature and metadata in MLmodel
estimator.skops         the fitted scikit-learn estimator
reference.json          statistics of the training data: the form's defaults, the drift's reference
golden.json             rows and what the estimator itself answered for them
input_example.json      one row, as a client sends it
held_out.parquet        the rows that the gate measures the version on
feedback.parquet        rows of feedback that it was not trained on, for telling whether a retraining gained something
SHA256SUMS              of every file above; its own sum is the version's tag `bundle_sha256`

Dates are days since 1970-01-01 UTC in all of them but input_example.json, which has them as text.
Whoever serves the version does not download the Parquet files.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from app.clients.errors import ServiceError
from app.clients.mlflow import MlflowClient, ModelVersion, NotFound, TooLarge
from app.registry.bundle_checks import first_problem
from app.runtime.paths import UnsafePath, inside, is_sha256, is_version
from app.vocabulary import Feature, Gate, GoldenRows, Label, Reference, Serving, Task

SUMS = "SHA256SUMS"
HELD_OUT = "held_out.parquet"
FEEDBACK = "feedback.parquet"
GATE_ONLY = frozenset({HELD_OUT, FEEDBACK})
BUNDLE_TAG = "bundle_sha256"
FILES = {
    *("MLmodel", "model.onnx", "conda.yaml", "python_env.yaml", "requirements.txt"),
    *("estimator.skops", "reference.json", "golden.json", "input_example.json", *GATE_ONLY),
}
MAX_BUNDLE = 4 * 2**30  # bytes of all files
MAX_TEXT = 64 * 2**20  # bytes of a file that is read as JSON or YAML
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.]+)\n")
_GATE, _REFERENCE, _GOLDEN = TypeAdapter(Gate), TypeAdapter(Reference), TypeAdapter(GoldenRows)
_FEATURES, _TASK, _SERVING = TypeAdapter(tuple[Feature, ...]), TypeAdapter(Task), TypeAdapter(Serving)
_CLASSES = TypeAdapter(tuple[Label, ...])
_ONLY, _DATES = TypeAdapter(dict[str, tuple[str, ...]]), TypeAdapter(frozenset[str])


class BundleError(ServiceError):
    """A bundle is incomplete, altered, or was not made by the platform."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    sha256: str
    features: tuple[Feature, ...]
    task: Task
    target: str
    classes: tuple[Label, ...]  # in the order of the probabilities; empty for regression
    serving: Serving
    serving_reason: str  # why not onnx
    gate: Gate
    reference: Reference
    golden: GoldenRows
    example: dict[str, Any]  # one row by feature name, as a client sends it
    gate_files: dict[str, str]  # the Parquet files that it was registered with, and their sums in hex


def file_sha256(path: Path) -> str:
    """The sum of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SUMS
    }


def _sums_text(sums: dict[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def write_sums(folder: Path) -> str:
    """Write SHA256SUMS over all files of the folder; returns the sum of that file, hex."""
    text = _sums_text({name: file_sha256(path) for name, path in _files(folder).items()})
    (folder / SUMS).write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def verify_sums(folder: Path, expected: str | None = None) -> str:
    """Check every file against SHA256SUMS, and SHA256SUMS against `expected` (hex) where it is given.

    What is for the gate only need not be there.

    Returns:
        the sum of SHA256SUMS, hex.

    Raises:
        BundleError: a file is missing, altered, or not listed.
    """
    try:
        raw = (folder / SUMS).read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{SUMS} is missing: this is not a bundle that `mlops train` registered") from None
    digest = hashlib.sha256(raw).hexdigest()
    listed, files = _listed(raw, digest, expected), _files(folder)
    _compare_names(listed, set(files))
    for name, path in files.items():
        _compare_sum(name, file_sha256(path), listed)
    return digest


def _listed(raw: bytes, digest: str, expected: str | None) -> dict[str, str]:
    """The files that SHA256SUMS names, and their sums."""
    if expected and digest != expected:
        raise BundleError(f"{SUMS} has the sum {digest[:12]}…, the version says {expected[:12]}…")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    listed = {name: digest for digest, name in _LINE.findall(text)}
    if not listed or _sums_text(listed) != text:
        raise BundleError(f"{SUMS} is damaged")
    for name in sorted(listed.keys() - FILES):
        raise BundleError(f"{name} is in {SUMS}, and is no file of a bundle")
    return listed


def _compare_names(listed: dict[str, str], names: set[str]) -> None:
    for name in sorted((listed.keys() ^ names) - (GATE_ONLY - names)):
        raise BundleError(f"{name} is {'missing' if name in listed else f'not listed in {SUMS}'}")


def _compare_sum(name: str, digest: str, listed: dict[str, str]) -> None:
    if digest != listed[name]:
        raise BundleError(f"{name} was altered: its sum is not the one in {SUMS}")


def read_bundle(folder: Path, expected: str | None = None) -> Bundle:
    """Verify the folder's checksums and read everything but the model itself.

    Raises:
        BundleError: the checksums do not fit, or something a bundle needs is not there.
    """
    return _read_verified(folder, verify_sums(folder, expected))


def _read_verified(folder: Path, digest: str) -> Bundle:
    """Read everything but the model itself. What is in the files is what training wrote, or anybody who could."""
    name = ""
    try:
        listed = _listed((folder / SUMS).read_bytes(), digest, None)
        mlmodel = yaml.safe_load(_text(folder, name := "MLmodel"))
        inputs = json.loads(mlmodel["signature"]["inputs"])
        metadata = mlmodel["metadata"]
        only = _ONLY.validate_python(metadata.get("categories", {}))  # versions before 0.2.0 have none
        features = _FEATURES.validate_python(
            tuple(
                Feature(item["name"], item["type"], item.get("required") is False, only.get(item["name"], ()))
                for item in _with_dates(inputs, _DATES.validate_python(metadata.get("dates", [])))
            )
        )
        bundle = Bundle(
            path=folder,
            sha256=digest,
            features=features,
            task=_TASK.validate_python(metadata["task"]),
            target=str(metadata["target"]),
            classes=_CLASSES.validate_python(tuple(metadata["classes"])),
            serving=_SERVING.validate_python(metadata["serving"]),
            serving_reason=str(metadata["serving_reason"]),
            gate=_GATE.validate_python(metadata["gate"]),
            reference=_REFERENCE.validate_json(_finite_json(folder, name := "reference.json"), strict=True),
            golden=_GOLDEN.validate_json(_finite_json(folder, name := "golden.json"), strict=True),
            example=_example(json.loads(_finite_json(folder, name := "input_example.json"))),
            gate_files={name: digest for name, digest in listed.items() if name in GATE_ONLY},
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError, yaml.YAMLError) as error:
        raise BundleError(f"{name} cannot be read: {type(error).__name__}: {error}") from error
    problem = first_problem(bundle)
    if problem:
        raise BundleError(problem)
    return bundle


def _with_dates(inputs: list[dict[str, Any]], dates: frozenset[str]) -> list[dict[str, Any]]:
    """The columns of the signature, in which dates are of the type "datetime": for MLflow's tools they are doubles."""
    doubles = {item["name"] for item in inputs if item["type"] == "double"}
    if others := dates - doubles:
        raise ValueError(f"the date {min(others)!r} is no double of the signature")
    return [{**item, "type": "datetime"} if item["name"] in dates else item for item in inputs]


def _text(folder: Path, name: str) -> str:
    path = folder / name
    if path.stat().st_size > MAX_TEXT:
        raise ValueError(f"it has {path.stat().st_size} bytes, {MAX_TEXT} are the most")
    return path.read_text()


def _finite_json(folder: Path, name: str) -> str:
    """The text of a JSON file, without NaN and numbers that no double can hold: nothing can be compared with them."""
    text = _text(folder, name)
    json.loads(text, parse_constant=_finite, parse_float=_finite)
    return text


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _example(raw: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(raw["columns"], raw["data"][0], strict=True))


def fetch_bundle(registry: MlflowClient, version: ModelVersion, cache: Path) -> Bundle:
    """The version's bundle from the cache folder or downloaded into it, without what is for the gate only.

    Raises:
        BundleError: what MLflow holds does not fit its checksums, or is not what a bundle is.
        MlflowError: MLflow does not answer, or has no such files.
    """
    target, expected = _place(version, cache)
    if target.is_dir():
        try:
            bundle = read_bundle(target, expected)
            os.utime(target)  # `app.registry.cache` keeps what was used last
            return bundle
        except BundleError:
            shutil.rmtree(target, ignore_errors=True)
        except OSError as error:
            raise BundleError(f"{target} cannot be read: {error}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        try:
            _download(registry, registry.bundle_path(version), folder, expected)
        except NotFound as error:
            raise BundleError(f"the files of version {version.version} are missing: {error}") from error
        except TooLarge as error:
            raise BundleError(str(error)) from error
        bundle = _read_verified(folder, expected)
        try:
            os.replace(folder, target)
        except OSError:  # another process was first
            if not target.is_dir():
                raise
            return read_bundle(target, expected)
    return replace(bundle, path=target)


def _place(version: ModelVersion, cache: Path) -> tuple[Path, str]:
    """Where the version's bundle belongs in the cache, and its sum; both are of what the registry says."""
    expected = version.tags.get(BUNDLE_TAG)
    if not expected:
        raise BundleError(
            f"version {version.version} of {version.name} has no tag {BUNDLE_TAG}: `mlops train` did not register it"
        )
    if not is_sha256(expected):
        raise BundleError(
            f"the tag {BUNDLE_TAG} of version {version.version} of {version.name} is {expected[:80]!r}, "
            "a SHA-256 sum is needed: 64 digits of lower-case hex. `mlops train` registers a new version"
        )
    if not is_version(version.version):
        raise BundleError(f"the version {version.version[:80]!r} of {version.name} is not a number")
    try:
        return inside(cache, version.name, f"{version.version}-{expected[:16]}"), expected
    except UnsafePath as error:
        raise BundleError(f"the model {version.name!r} cannot be kept in the cache: {error}") from error


def _download(registry: MlflowClient, source: str, folder: Path, expected: str) -> None:
    """Download a bundle: SHA256SUMS, whose sum is known, then what it lists. Sums are made of what arrives.

    Args:
        source: its path below MLflow's artifact proxy.

    Raises:
        BundleError: the files are not those that SHA256SUMS lists.
        TooLarge: a file has more bytes than MLflow says that it has.
    """
    digest = registry.download(f"{source}/{SUMS}", folder / SUMS, MAX_TEXT)
    listed = _listed((folder / SUMS).read_bytes(), digest, expected)
    sizes = registry.artifact_sizes(source)
    _compare_names(listed, sizes.keys() - {SUMS})
    if sum(sizes.values()) > MAX_BUNDLE:
        raise BundleError(f"the bundle has {sum(sizes.values())} bytes, {MAX_BUNDLE} are the most")
    for name in sorted(listed.keys() - GATE_ONLY):
        _compare_sum(name, registry.download(f"{source}/{name}", folder / name, sizes[name]), listed)


def read_gate_file(registry: MlflowClient, version: ModelVersion, bundle: Bundle, name: str) -> bytes:
    """A Parquet file of features and target, HELD_OUT or FEEDBACK, of a version whose bundle was verified.

    Raises:
        BundleError: there is none, or another than was registered.
        MlflowError: MLflow does not answer.
    """
    which = f"{name} of version {version.version}"
    if name not in bundle.gate_files:
        raise BundleError(
            f"{which} is not in its bundle, as it was registered before it had to be: run `mlops train {version.name}`"
        )
    try:
        content = registry.read_artifact(f"{registry.bundle_path(version)}/{name}", MAX_BUNDLE)
    except NotFound as error:
        raise BundleError(f"{which} is missing: {error}") from error
    if hashlib.sha256(content).hexdigest() != bundle.gate_files[name]:
        raise BundleError(f"{which} was altered: its sum is not the one in {SUMS}")
    return content
