"""Fitted scikit-learn estimators as ONNX models, where these answer as the estimator does."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pandas as pd
from skl2onnx import to_onnx
from skl2onnx.common.data_types import BooleanTensorType, FloatTensorType, Int64TensorType, StringTensorType

from app.registry.onnx_file import check_onnx
from app.registry.predictor import OnnxPredictor, estimator_predictions, first_difference, plain_rows
from app.vocabulary import NUMERIC, Feature, Label, Task

OPSET = {"": 18, "ai.onnx.ml": 3}  # 18: Split into a number of outputs
TENSORS = {
    "double": FloatTensorType,
    "float": FloatTensorType,
    "long": Int64TensorType,
    "integer": Int64TensorType,
    "boolean": BooleanTensorType,
    "string": StringTensorType,
}
Inputs = list[tuple[str, Any]]  # name and tensor type of each input


def export(
    estimator: Any, features: Sequence[Feature], frame: pd.DataFrame, task: Task
) -> tuple[onnx.ModelProto | None, str]:
    """The estimator as ONNX, if that answers `frame` as the estimator does.

    Args:
        frame: rows of features to compare the answers on, shape (n_rows, n_features).

    Returns:
        the model and "", or None and the reason.
    """
    has_probabilities = task == "classification" and hasattr(estimator, "predict_proba")
    classes = np.asarray(estimator.classes_).tolist() if has_probabilities else []
    expected = estimator_predictions(estimator, frame)
    reason = ""
    for inputs in _possible_inputs(features):
        try:
            model = as_columns(_convert(estimator, inputs, has_probabilities), classes)
            content = model.SerializeToString()
            check_onnx(content)
            served = OnnxPredictor(content, features).predict(plain_rows(frame))
        except Exception as error:  # skl2onnx and onnxruntime raise what they like
            lines = str(error).strip().splitlines()
            reason = reason or f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
            continue
        difference = first_difference(expected, served, task)
        if not difference:
            return model, ""
        reason = f"the ONNX model differs from the estimator: {difference}"
    return None, reason


def _possible_inputs(features: Sequence[Feature]) -> list[Inputs]:
    """The inputs that the model may have, best first."""
    by_column = [(feature.name, TENSORS[feature.dtype]([None, 1])) for feature in features]
    if not all(feature.dtype in NUMERIC for feature in features):
        return [by_column]
    # one tensor is twice as fast to feed; not every ColumnTransformer can be expressed over it
    return [[("__features__", FloatTensorType([None, len(features)]))], by_column]


def _convert(estimator: Any, inputs: Inputs, has_probabilities: bool) -> onnx.ModelProto:
    options = {id(estimator): {"zipmap": False}} if has_probabilities else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return to_onnx(estimator, initial_types=inputs, options=options, target_opset=OPSET)


def as_columns(model: onnx.ModelProto, classes: Sequence[Label]) -> onnx.ModelProto:
    """Give the model one-dimensional columns at its edges, which is all that MLflow's own scoring can feed and read.

    Inputs of the shape (rows, 1) take (rows,) too; the probabilities become one output per class,
    `probability_<class>`, of the shape (rows,).

    Args:
        model: is changed.
        classes: in the order of the probabilities; empty where the model gives none.

    Returns:
        the model.
    """
    graph = model.graph
    reshapes = _flat_inputs(graph) if len(graph.input) > 1 else []
    if classes:
        _probability_columns(graph, classes)
    nodes = [*reshapes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _constant(graph: onnx.GraphProto, name: str, shape: list[int]) -> str:
    """Add a shape for Reshape to the graph; returns its name."""
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), name))
    return name


def _flat_inputs(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Let every input take any shape; returns the nodes that make columns of them, to be put first."""
    column = _constant(graph, "__column_shape", [-1, 1])
    reshapes = []
    for tensor in graph.input:
        inner = f"{tensor.name}__column"
        for node in graph.node:
            node.input[:] = [inner if name == tensor.name else name for name in node.input]
        reshapes.append(onnx.helper.make_node("Reshape", [tensor.name, column], [inner]))
        tensor.type.tensor_type.ClearField("shape")
    return reshapes


def _probability_columns(graph: onnx.GraphProto, classes: Sequence[Label]) -> None:
    """Split the second output, the probabilities, into one output per class."""
    flat = _constant(graph, "__flat_shape", [-1])
    probabilities = graph.output[1]
    element = probabilities.type.tensor_type.elem_type
    parts = [f"probability__{i}" for i in range(len(classes))]
    names = [f"probability_{label}" for label in classes]
    split = onnx.helper.make_node("Split", [probabilities.name], parts, axis=1, num_outputs=len(parts))
    columns = [onnx.helper.make_node("Reshape", [part, flat], [name]) for part, name in zip(parts, names, strict=True)]
    graph.node.extend([split, *columns])
    del graph.output[1]
    graph.output.extend(onnx.helper.make_tensor_value_info(name, element, [None]) for name in names)
