"""Writes the bundle of a fitted estimator and registers it as a model version."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pandas as pd
from mlflow.models import infer_signature
from skl2onnx import to_onnx
from skl2onnx.common.data_types import BooleanTensorType, FloatTensorType, Int64TensorType, StringTensorType
from skops import io as skops

from app.clients.mlflow import MlflowClient, ModelVersion
from app.registry.bundle import BUNDLE_TAG, read_bundle, write_sums
from app.registry.ledger import ensure_model
from app.registry.predictor import OnnxPredictor, Predictions, first_difference, load_predictor
from app.registry.reference import categorical_reference, numeric_reference
from app.vocabulary import NUMERIC, ColumnReference, Dtype, Feature, Gate, GoldenRows, Reference, Task

GOLDEN_ROWS = 32
REQUIREMENTS = [f"{name}=={version(name)}" for name in ("onnx", "onnxruntime", "numpy", "pandas")]
PARITY_ROWS = 10_000
OPSET = {"": 18, "ai.onnx.ml": 3}  # 18: Split into a number of outputs
_SHAPES = (([-1, 1], "__column_shape"), ([-1], "__flat_shape"))
TENSORS = {
    "double": FloatTensorType,
    "float": FloatTensorType,
    "long": Int64TensorType,
    "integer": Int64TensorType,
    "boolean": BooleanTensorType,
    "string": StringTensorType,
}


class RegistrationError(Exception):
    """The estimator cannot be served, so it is not registered."""


def plain(frame: pd.DataFrame) -> list[list[Any]]:
    """The rows as Python values, as a request holds them."""
    return frame.astype(object).to_numpy().tolist()


def answers(estimator: Any, frame: pd.DataFrame) -> Predictions:
    """What the estimator itself says, in the form in which it is served."""
    labels = np.asarray(estimator.predict(frame)).ravel().tolist()
    has_probabilities = hasattr(estimator, "predict_proba")
    return Predictions(labels, estimator.predict_proba(frame).tolist() if has_probabilities else None)


def convert(
    estimator: Any, features: list[Feature], frame: pd.DataFrame, task: str
) -> tuple[onnx.ModelProto | None, str]:
    """The estimator as ONNX, if it answers `frame` as the estimator does; otherwise None and the reason."""
    with_probabilities = task == "classification" and hasattr(estimator, "predict_proba")
    options = {id(estimator): {"zipmap": False}} if with_probabilities else None
    expected = answers(estimator, frame)
    layouts = [[(f.name, TENSORS[f.dtype]([None, 1])) for f in features]]
    if all(f.dtype in NUMERIC for f in features):
        # one tensor is twice as fast to feed; not every ColumnTransformer can be expressed over it
        layouts.insert(0, [("__features__", FloatTensorType([None, len(features)]))])
    reason = ""
    for layout in layouts:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = to_onnx(estimator, initial_types=layout, options=options, target_opset=OPSET)
            classes = np.asarray(estimator.classes_).tolist() if with_probabilities else []
            model = as_columns(model, classes)
            served = OnnxPredictor(model.SerializeToString(), features).predict(plain(frame))
        except Exception as error:  # skl2onnx and onnxruntime raise what they like
            text = str(error).strip().splitlines()
            reason = reason or f"{type(error).__name__}: {text[0][:300] if text else ''}"
            continue
        difference = first_difference(expected, served, task)
        if not difference:
            return model, ""
        reason = f"the ONNX model differs from the estimator: {difference}"
    return None, reason


def as_columns(model: onnx.ModelProto, classes: list[Any]) -> onnx.ModelProto:
    """The model with one-dimensional columns at its edges, which is all that MLflow's own scoring can feed and read.

    Inputs of the shape (rows, 1) take (rows,) too; the probabilities become one output per class,
    `probability_<class>`, of the shape (rows,).
    """
    graph = model.graph
    column, flat = (onnx.numpy_helper.from_array(np.array(shape), name) for shape, name in _SHAPES)
    graph.initializer.extend([column, flat])
    before = []
    for tensor in graph.input if len(graph.input) > 1 else []:
        inner = f"{tensor.name}__column"
        for node in graph.node:
            node.input[:] = [inner if name == tensor.name else name for name in node.input]
        before.append(onnx.helper.make_node("Reshape", [tensor.name, column.name], [inner]))
        tensor.type.tensor_type.ClearField("shape")
    if classes:
        kind = graph.output[1].type.tensor_type.elem_type
        parts = [f"probability__{i}" for i in range(len(classes))]
        names = [f"probability_{label}" for label in classes]
        split = onnx.helper.make_node("Split", [graph.output[1].name], parts, axis=1, num_outputs=len(parts))
        flattened = [
            onnx.helper.make_node("Reshape", [part, flat.name], [name]) for part, name in zip(parts, names, strict=True)
        ]
        graph.node.extend([split, *flattened])
        del graph.output[1]
        graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, [None]) for name in names)
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def build_bundle(
    folder: Path,
    *,
    estimator: Any,
    frame: pd.DataFrame,
    labels: pd.Series,
    task: Task,
    target: str,
    gate: Gate,
    example: pd.DataFrame | None = None,
) -> str:
    """Write the bundle of a fitted estimator into an empty or missing folder.

    Args:
        frame: the features it was fitted on, shape (n_rows, n_features): the source of the reference statistics.
        labels: the target of these rows.
        example: one row of features, shape (1, n_features), shown to users; by default the first of `frame`.

    Returns:
        the sum of SHA256SUMS, hex.

    Raises:
        RegistrationError: the estimator can be served neither through ONNX nor through skops.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whole numbers cannot hold NaN: it is refused anyway
        signature = infer_signature(frame, np.asarray(estimator.predict(frame.head(5))))
    features = [Feature(item["name"], item["type"]) for item in signature.inputs.to_dict()]
    sample = frame.sample(min(PARITY_ROWS, len(frame)), random_state=0)
    model, reason = convert(estimator, features, sample, task)
    metadata = {
        "task": task,
        "target": target,
        "classes": np.asarray(estimator.classes_).tolist() if task == "classification" else [],
        "serving": "onnx" if model else "skops",
        "serving_reason": reason,
        "gate": asdict(gate),
    }
    if model:
        mlflow.onnx.save_model(
            model,
            folder,
            signature=signature,
            metadata=metadata,
            onnx_execution_providers=["CPUExecutionProvider"],
            pip_requirements=REQUIREMENTS,  # given, or MLflow starts a Python process to find them out
        )
    else:
        mlflow.models.Model(signature=signature, metadata=metadata).save(_made(folder) / "MLmodel")
    skops.dump(estimator, folder / "estimator.skops")

    reference = Reference(
        features={f.name: _reference(frame[f.name], f.dtype) for f in features},
        prediction=_reference(labels, "string" if task == "classification" else "double"),
    )
    shown = frame.head(1) if example is None else example
    golden = pd.concat([shown, sample.head(GOLDEN_ROWS - 1)], ignore_index=True)
    answered = answers(estimator, golden)
    _write(folder / "reference.json", asdict(reference))
    _write(
        folder / "golden.json",
        asdict(GoldenRows(plain(golden), answered.labels, answered.probabilities)),
    )
    _write(folder / "input_example.json", {"columns": list(frame.columns), "data": plain(shown)})
    digest = write_sums(folder)
    try:
        load_predictor(read_bundle(folder, digest))
    except Exception as error:
        raise RegistrationError(f"the version would not be served: {error}") from error
    return digest


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _reference(column: pd.Series, dtype: Dtype) -> ColumnReference:
    if dtype in ("string", "boolean"):
        return categorical_reference(column.to_numpy(), dtype)
    return numeric_reference(column.to_numpy(), dtype)


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, allow_nan=False))


def register(
    registry: MlflowClient,
    *,
    name: str,
    run_id: str,
    estimator: Any,
    frame: pd.DataFrame,
    labels: pd.Series,
    held_out: pd.DataFrame,
    example: pd.DataFrame | None = None,
    task: Task,
    target: str,
    gate: Gate,
    tags: dict[str, str],
) -> ModelVersion:
    """Upload bundle and held-out rows to the MLflow run, then register the version.

    The version is created last: it never exists without its files, and once it is returned it is in MLflow's database.
    """
    run = registry.run(run_id)
    root = registry.artifact_path(run.artifact_uri)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        digest = build_bundle(
            folder,
            estimator=estimator,
            frame=frame,
            labels=labels,
            example=example,
            task=task,
            target=target,
            gate=gate,
        )
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            registry.write_artifact(f"{root}/model/{path.relative_to(folder).as_posix()}", path.read_bytes())
        bundle = read_bundle(folder, digest)
    rows = io.BytesIO()
    held_out.to_parquet(rows, index=False)
    registry.write_artifact(f"{root}/evaluation/held_out.parquet", rows.getvalue())
    ensure_model(registry, name)
    return registry.create_version(
        name,
        run_id,
        f"{run.artifact_uri}/model",
        {**tags, BUNDLE_TAG: digest, "serving": bundle.serving, "serving_reason": bundle.serving_reason},
    )
