"""Fitted scikit-learn estimators as ONNX models, where these answer as the estimator does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import pandas as pd
from skl2onnx import to_onnx
from skl2onnx.common.data_types import (
    BooleanTensorType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import KBinsDiscretizer

from app.registry.onnx_file import check_onnx
from app.registry.predictor import OnnxPredictor, estimator_predictions, first_difference, plain_rows
from app.vocabulary import NUMERIC, Feature, Label, Task
from flows.onnx_converters import register

register()

OPSET = {"": 18, "ai.onnx.ml": 3}  # 18: Split into a number of outputs
TENSORS = {
    "double": FloatTensorType,
    "float": FloatTensorType,
    "long": Int64TensorType,
    "integer": Int64TensorType,
    "boolean": BooleanTensorType,
    "string": StringTensorType,
    "datetime": FloatTensorType,
}
ALL_FEATURES = "__features__"  # the input that takes all of them as one tensor
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
    rounds = False  # a model in float32 answers these rows, and may decide others by its rounding
    for inputs in _possible_inputs(features):
        in_double = any(isinstance(kind, DoubleTensorType) for _, kind in inputs)
        if rounds and not in_double:
            continue
        try:
            model = _convert(estimator, inputs, task)
            jumps = not in_double and _decides_by_rounding(model.graph, estimator)
            model = as_columns(model, classes)
            content = model.SerializeToString()
            check_onnx(content)
            served = OnnxPredictor(content, features).predict(plain_rows(frame))
        except Exception as error:  # skl2onnx and onnxruntime raise what they like
            lines = str(error).strip().splitlines()
            reason = reason or f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
            continue
        difference = first_difference(expected, served, task)
        if not difference and not jumps:
            return model, ""
        if not difference:
            rounds = True
            continue
        reason = f"the ONNX model differs from the estimator: {difference}"
    if rounds:
        reason = f"float32 would decide some rows otherwise, and there is no model in double; {reason}".rstrip("; ")
    return None, reason


def _possible_inputs(features: Sequence[Feature]) -> list[Inputs]:
    """The inputs that the model may have, best first: in float32, which is fastest, then in double."""
    by_column = [(feature.name, TENSORS[feature.dtype]([None, 1])) for feature in features]
    possible = [by_column, _in_double(by_column)]
    if all(feature.dtype in NUMERIC for feature in features):
        # one tensor is twice as fast to feed; not every ColumnTransformer can be expressed over it
        together = [(ALL_FEATURES, FloatTensorType([None, len(features)]))]
        possible = [together, by_column, _in_double(together), _in_double(by_column)]
    # skl2onnx does not put whole numbers and others into one tensor everywhere
    numbers = [
        (feature.name, DoubleTensorType([None, 1]) if feature.dtype in NUMERIC else kind)
        for feature, (_, kind) in zip(features, by_column, strict=True)
    ]
    return [*possible, numbers]


def _in_double(inputs: Inputs) -> Inputs:
    return [
        (name, DoubleTensorType(kind.shape) if isinstance(kind, FloatTensorType) else kind) for name, kind in inputs
    ]


# -- conversion ------------------------------------------------------------------------------------------------------

# scikit-learn's default pattern of words, in the words of the expressions that onnxruntime has (RE2).
WORD_OF_PYTHON, WORD_OF_RE2 = r"(?u)\b\w\w+\b", r"[\p{L}\p{N}_][\p{L}\p{N}_]+"
LOCALE = "C.UTF-8"  # of lower case; the default, en_US.UTF-8, is not there in slim images


def _convert(estimator: Any, inputs: Inputs, task: Task) -> onnx.ModelProto:
    """The estimator as skl2onnx converts it: labels and numbers per class, or values.

    Raises:
        Exception: skl2onnx cannot convert it.
    """
    options: dict[Any, dict[str, Any]] = {id(estimator): {"zipmap": False}} if task == "classification" else {}
    for part in _parts(estimator):
        if isinstance(part, CountVectorizer):
            options[id(part)] = {"locale": LOCALE}
            if part.token_pattern == WORD_OF_PYTHON and part.analyzer == "word":
                options[id(part)]["tokenexp"] = WORD_OF_RE2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = to_onnx(estimator, initial_types=inputs, options=options or None, target_opset=OPSET)
    _keep_texts(model.graph)
    return model


def _parts(estimator: Any) -> Iterator[Any]:
    """The estimator and the fitted steps that it is made of."""
    yield estimator
    inner: list[Any] = []
    if isinstance(estimator, Pipeline):
        inner = [step for _, step in estimator.steps]
    elif isinstance(estimator, ColumnTransformer):
        inner = [step for _, step, _ in estimator.transformers_]
    elif isinstance(estimator, FeatureUnion):
        inner = [step for _, step in estimator.transformer_list]
    for part in inner:
        yield from _parts(part)


def _keep_texts(graph: onnx.GraphProto) -> None:
    """Drop no row of text that is a stop word as a whole: stop words are not in the vocabulary anyway."""
    for node in graph.node:
        if node.op_type == "StringNormalizer":
            kept = [attribute for attribute in node.attribute if attribute.name != "stopwords"]
            del node.attribute[:]
            node.attribute.extend(kept)


TREES = {"TreeEnsembleClassifier", "TreeEnsembleRegressor"}


# Operators that only move values.
MOVES = {"Identity", "Reshape", "Concat", "ArrayFeatureExtractor", "Cast", "Flatten", "Gather", "Slice", "Split"}


def _decides_by_rounding(graph: onnx.GraphProto, estimator: Any) -> bool:
    """Whether rounding to float32 can move a row over the threshold of a tree, or over the half of two classes.

    It cannot move it where scikit-learn itself rounds what a tree gets, and that is not computed before.
    """
    in_double = (HistGradientBoostingClassifier, HistGradientBoostingRegressor, KBinsDiscretizer)
    nested = estimator.get_params().values()
    if any(isinstance(part, in_double) for part in [*_parts(estimator), *nested]):
        return True
    exact = {tensor.name for tensor in [*graph.input, *graph.initializer]}
    for node in graph.node:
        if node.op_type in TREES and (node.input[0] not in exact or _may_tie(node)):
            return True
        if node.op_type in MOVES and exact.issuperset(node.input):
            exact.update(node.output)
    return False


def _may_tie(node: onnx.NodeProto) -> bool:
    """Whether a forest for two classes decides: onnxruntime adds up shares of float32 to a half, or just above it."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    labels = [attributes[name] for name in ("classlabels_strings", "classlabels_int64s") if name in attributes]
    two = any(len(label.strings) + len(label.ints) == 2 for label in labels)
    return two and attributes["post_transform"].s == b"NONE" and len(set(attributes["nodes_treeids"].ints)) > 1


# -- the edges -------------------------------------------------------------------------------------------------------


def as_columns(model: onnx.ModelProto, classes: Sequence[Label]) -> onnx.ModelProto:
    """Give the model one-dimensional columns at its edges, which is all that MLflow's own scoring can feed and read.

    Inputs of the shape (rows, 1) take (rows,) too; the probabilities become one output per class,
    `probability_<class>`, of the shape (rows,).

    Args:
        model: is changed.
        classes: in the order of the probabilities; empty where the estimator gives none.

    Returns:
        the model.
    """
    graph = model.graph
    reshapes = _flat_inputs(graph) if graph.input[0].name != ALL_FEATURES else []
    if classes:
        _probability_columns(graph, classes)
    else:
        del graph.output[1:]  # scores of classes, which are no probabilities
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
