"""The bundle: the files of a model version, with checksums, as training writes and serving reads them.

MLmodel, model.onnx     the ONNX model as an MLflow model (flavor onnx), signature and metadata in MLmodel
estimator.skops         the fitted scikit-learn estimator
reference.json          statistics of the training data: the form's defaults, the drift's reference
golden.json             rows and what the estimator itself answered for them
input_example.json      one row
held_out.parquet        the rows that the gate measures the version on; whoever serves it does not download them
SHA256SUMS              of every file above; its own sum is the version's tag `bundle_sha256`
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from app.clients.errors import ServiceError
from app.clients.mlflow import MlflowClient, ModelVersion, NotFound
from app.vocabulary import NUMERIC, Feature, Gate, GoldenRows, Label, Reference, Serving, Task

SUMS = "SHA256SUMS"
HELD_OUT = "held_out.parquet"
BUNDLE_TAG = "bundle_sha256"
_GATE, _REFERENCE, _GOLDEN = TypeAdapter(Gate), TypeAdapter(Reference), TypeAdapter(GoldenRows)


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
    example: dict[str, Any]  # one row by feature name
    held_out_sha256: str  # "" where it was registered without its held-out rows


def file_sha256(path: Path) -> str:
    """The sum of a file's content, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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


def _listed(raw: bytes) -> dict[str, str]:
    """The sum of each file that SHA256SUMS names."""
    lines = [line.partition("  ") for line in raw.decode().splitlines()]
    return {name: digest for digest, _, name in lines}


def verify_sums(folder: Path, expected: str | None = None) -> str:
    """Check every file against SHA256SUMS, and SHA256SUMS against `expected` (hex) where it is given.

    The held-out rows need not be there.

    Returns:
        the sum of SHA256SUMS, hex.

    Raises:
        BundleError: a file is missing, altered, or not listed.
    """
    try:
        raw = (folder / SUMS).read_bytes()
        listed = _listed(raw)
    except FileNotFoundError:
        raise BundleError(f"{SUMS} is missing: this is not a bundle that `mlops train` registered") from None
    except ValueError:
        raise BundleError(f"{SUMS} is damaged") from None
    digest = hashlib.sha256(raw).hexdigest()
    if expected and digest != expected:
        raise BundleError(f"{SUMS} has the sum {digest[:12]}…, the version says {expected[:12]}…")
    if _sums_text(listed).encode() != raw:
        raise BundleError(f"{SUMS} is damaged")
    files = _files(folder)
    for name in sorted((listed.keys() ^ files.keys()) - ({HELD_OUT} - files.keys())):
        raise BundleError(f"{name} is {'missing' if name in listed else f'not listed in {SUMS}'}")
    for name, path in files.items():
        if file_sha256(path) != listed[name]:
            raise BundleError(f"{name} was altered: its sum is not the one in {SUMS}")
    return digest


def read_bundle(folder: Path, expected: str | None = None) -> Bundle:
    """Verify the folder's checksums and read everything but the model itself.

    Raises:
        BundleError: the checksums do not fit, or something a bundle needs is not there.
    """
    digest = verify_sums(folder, expected)
    try:
        mlmodel = yaml.safe_load((folder / "MLmodel").read_text())
        inputs = json.loads(mlmodel["signature"]["inputs"])
        metadata = mlmodel["metadata"]
        features = tuple(Feature(item["name"], item["type"]) for item in inputs)
        example = json.loads((folder / "input_example.json").read_text())
        bundle = Bundle(
            path=folder,
            sha256=digest,
            features=features,
            task=metadata["task"],
            target=metadata["target"],
            classes=tuple(metadata["classes"]),
            serving=metadata["serving"],
            serving_reason=metadata["serving_reason"],
            gate=_GATE.validate_python(metadata["gate"]),
            reference=_REFERENCE.validate_json((folder / "reference.json").read_bytes()),
            golden=_GOLDEN.validate_json((folder / "golden.json").read_bytes()),
            example=dict(zip(example["columns"], example["data"][0], strict=True)),
            held_out_sha256=_listed((folder / SUMS).read_bytes()).get(HELD_OUT, ""),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, yaml.YAMLError) as error:
        raise BundleError(f"the bundle cannot be read: {type(error).__name__}: {error}") from error
    unknown = [feature for feature in features if feature.dtype not in NUMERIC | {"string"}]
    if unknown:
        raise BundleError(f"feature {unknown[0].name!r} has the type {unknown[0].dtype!r}, which cannot be served")
    return bundle


def fetch_bundle(registry: MlflowClient, version: ModelVersion, cache: Path) -> Bundle:
    """The version's bundle without its held-out rows, from the cache folder or downloaded into it, or not there at all.

    Raises:
        BundleError: what MLflow holds does not fit its checksums.
        MlflowError: MLflow does not answer, or has no such files.
    """
    expected = version.tags.get(BUNDLE_TAG)
    if not expected:
        raise BundleError(
            f"version {version.version} of {version.name} has no tag {BUNDLE_TAG}: `mlops train` did not register it"
        )
    target = cache / version.name / f"{version.version}-{expected[:16]}"
    if target.is_dir():
        try:
            return read_bundle(target, expected)
        except BundleError:
            shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        try:
            registry.download(registry.bundle_path(version), folder, without=HELD_OUT)
        except NotFound as error:
            raise BundleError(f"the files of version {version.version} are missing: {error}") from error
        read_bundle(folder, expected)
        try:
            os.replace(folder, target)
        except OSError:  # another process was first
            if not target.is_dir():
                raise
    return read_bundle(target, expected)


def read_held_out(registry: MlflowClient, version: ModelVersion, bundle: Bundle) -> bytes:
    """The held-out rows of a version whose bundle was verified: a Parquet file of features and target.

    Raises:
        BundleError: there are none, or others than were registered.
        MlflowError: MLflow does not answer.
    """
    which = f"the held-out rows of version {version.version}"
    if not bundle.held_out_sha256:
        raise BundleError(
            f"{which} are not in its bundle, as it was registered before they had to be: "
            f"run `mlops train {version.name}`"
        )
    try:
        content = registry.read_artifact(f"{registry.bundle_path(version)}/{HELD_OUT}")
    except NotFound as error:
        raise BundleError(f"{which} are missing: {error}") from error
    if hashlib.sha256(content).hexdigest() != bundle.held_out_sha256:
        raise BundleError(f"{which} were altered: their sum is not the one in {SUMS}")
    return content
