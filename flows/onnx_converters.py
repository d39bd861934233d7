"""ONNX for estimators that skl2onnx does not know, or converts to something that answers differently.

Each converter writes the formula of scikit-learn's own `predict`; `flows.onnx_export` compares the answers. What a
converter cannot express it refuses with NotImplementedError, and the estimator is served by scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from skl2onnx import update_registered_converter
from skl2onnx.algebra.onnx_operator import OnnxSubEstimator
from skl2onnx.algebra.onnx_ops import (
    OnnxAbs,
    OnnxAdd,
    OnnxArgMax,
    OnnxArrayFeatureExtractor,
    OnnxCast,
    OnnxClip,
    OnnxConcat,
    OnnxConstantOfShape,
    OnnxDiv,
    OnnxExp,
    OnnxGreater,
    OnnxGreaterOrEqual,
    OnnxIdentity,
    OnnxIsNaN,
    OnnxLog,
    OnnxMatMul,
    OnnxMul,
    OnnxPow,
    OnnxReduceSum,
    OnnxReduceSumSquare,
    OnnxRelu,
    OnnxReshape,
    OnnxShape,
    OnnxSigmoid,
    OnnxSlice,
    OnnxSoftmax,
    OnnxSqrt,
    OnnxSub,
    OnnxTanh,
    OnnxWhere,
)
from skl2onnx.common._registration import get_converter, register_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, guess_numpy_type, guess_proto_type
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from skl2onnx.common.utils_classifier import _finalize_converter_classes
from skl2onnx.proto import onnx_proto
from sklearn.compose import TransformedTargetRegressor
from sklearn.cross_decomposition import CCA, PLSCanonical
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier, OutputCodeClassifier, _ConstantPredictor
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.semi_supervised import LabelPropagation, LabelSpreading, SelfTrainingClassifier

COLUMN = np.array([-1, 1])


class _Graph:
    """The part of an ONNX graph that one estimator becomes: its input, and the operators of this version."""

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self.scope, self.operator, self.container = scope, operator, container
        self.estimator = operator.raw_operator
        self.version = container.target_opset
        self.input = operator.inputs[0]
        self.dtype = np.float64 if guess_numpy_type(self.input.type) == np.float64 else np.float32
        self.element = onnx_proto.TensorProto.DOUBLE if self.dtype == np.float64 else onnx_proto.TensorProto.FLOAT

    def __call__(self, operator: Any, *inputs: Any, **attributes: Any) -> Any:
        """A node of this operator; arrays of numbers become constants of the input's type, whole ones stay as they are.

        A node's inputs are other nodes, arrays or numbers.
        """
        return operator(*map(self._constant, inputs), op_version=self.version, **attributes)

    def _constant(self, value: Any) -> Any:
        if isinstance(value, float):
            return np.array([value], dtype=self.dtype)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            return value.astype(self.dtype)
        return value

    def numbers(self) -> Any:
        """The input as numbers of the type that is calculated in."""
        return self(OnnxCast, self.input, to=self.element)

    def squared_distances(self, points: np.ndarray) -> Any:
        """Of each row from each point, shape (rows, points). points: shape (points, features)."""
        numbers = self.numbers()
        own = self(OnnxReduceSumSquare, numbers, np.array([1]), keepdims=1)
        products = self(OnnxMatMul, numbers, -2.0 * points.T)
        return self(OnnxRelu, self(OnnxAdd, self(OnnxAdd, products, own), (points**2).sum(axis=1)[None]))

    def constant_rows(self, row: np.ndarray) -> Any:
        """The same values for each row of the input, whatever is in that."""
        rows = self(OnnxSlice, self(OnnxShape, self.input), np.array([0]), np.array([1]))
        shape = self(OnnxConcat, rows, np.array([len(row)]), axis=0)
        zero = np.zeros(1, dtype=self.dtype)
        return self(OnnxAdd, self(OnnxConstantOfShape, shape, value=_tensor(zero)), row[None])

    def answer(self, node: Callable[..., Any], *inputs: Any, output: int = 0, **attributes: Any) -> None:
        """Let a node be an output of the estimator."""
        made = self(node, *inputs, output_names=[self.operator.outputs[output]], **attributes)
        made.add_to(self.scope, self.container)

    def label(self, index: Any) -> None:
        """Let the classes at these positions, shape (rows,), be the labels."""
        name = self.scope.get_unique_variable_name("index")
        self(OnnxIdentity, index, output_names=[name]).add_to(self.scope, self.container)
        classes = np.asarray(self.estimator.classes_)
        output = self.operator.outputs[0].full_name
        _finalize_converter_classes(self.scope, name, output, self.container, classes, self.element)

    def scores(self, scores: Any, probabilities: Any = None) -> None:
        """Let the class of the highest score be the label; without probabilities the scores are given in their place.

        Both have the shape (rows, classes).
        """
        self.label(self(OnnxArgMax, scores, axis=1, keepdims=0))
        declared = guess_proto_type(self.operator.outputs[1].type)  # of forests float32, whatever goes in
        self.answer(OnnxCast, scores if probabilities is None else probabilities, output=1, to=declared)

    def other(self, estimator: Any) -> Any:
        """The outputs of another estimator for the same input."""
        classifies = hasattr(estimator, "classes_")
        options = {"zipmap": False} if classifies else None
        return OnnxSubEstimator(estimator, self.input, op_version=self.version, options=options)


def _tensor(values: np.ndarray) -> Any:
    return onnx.numpy_helper.from_array(values)


def _dense(values: Any) -> np.ndarray:
    return values.toarray() if hasattr(values, "toarray") else np.asarray(values)


# -- classifiers -----------------------------------------------------------------------------------------------------


def _dummy_classifier(graph: _Graph) -> None:
    estimator = graph.estimator
    if estimator.strategy not in ("prior", "most_frequent", "constant"):
        raise NotImplementedError(f"strategy={estimator.strategy!r} answers by chance")
    probabilities = estimator.predict_proba(np.zeros((1, 1)))[0]
    label = np.flatnonzero(estimator.classes_ == estimator.predict(np.zeros((1, 1)))[0])[0]
    chosen = np.zeros(len(probabilities))
    chosen[label] = 1.0
    graph.scores(graph.constant_rows(chosen), graph.constant_rows(probabilities))


def _self_training(graph: _Graph) -> None:
    inner = graph.other(graph.estimator.estimator_)
    graph.answer(OnnxIdentity, inner[0])
    graph.answer(OnnxIdentity, inner[1], output=1)


def _threshold(graph: _Graph) -> None:
    estimator = graph.estimator
    tuned = isinstance(estimator, TunedThresholdClassifierCV)
    inner = estimator.estimator_
    method = estimator.response_method
    if method == "decision_function" or not hasattr(inner, "predict_proba"):
        raise NotImplementedError("a threshold of a decision function")
    threshold = estimator.best_threshold_ if tuned else estimator.threshold
    positive = estimator._curve_scorer._get_pos_label() if tuned else estimator.pos_label
    position = 1 if positive is None else int(np.flatnonzero(estimator.classes_ == positive)[0])
    probabilities = graph.other(inner)[1]
    score = graph(OnnxArrayFeatureExtractor, probabilities, np.array([position]))
    reached = graph(OnnxGreaterOrEqual, score, 0.5 if threshold == "auto" else float(threshold))
    index = graph(OnnxReshape, graph(OnnxCast, reached, to=onnx_proto.TensorProto.INT64), np.array([-1]))
    graph.label(index if position == 1 else graph(OnnxSub, np.array([1]), index))
    graph.answer(OnnxIdentity, probabilities, output=1)


def _nearest_centroid(graph: _Graph) -> None:
    estimator = graph.estimator
    if estimator.metric != "euclidean":
        raise NotImplementedError(f"metric={estimator.metric!r}")
    priors = estimator.class_prior_
    spread = np.where(estimator.within_class_std_dev_ != 0, estimator.within_class_std_dev_, 1.0)
    # The square of the row itself is the same for all classes, so it is left out.
    scaled = estimator.centroids_ / spread
    offset = 2 * np.log(priors) - (scaled**2).sum(axis=1)
    discriminant = graph(OnnxAdd, graph(OnnxMatMul, graph.numbers(), (2 * scaled / spread).T), offset[None])
    scores = discriminant
    if np.isclose(priors, 1 / len(priors)).all():  # then scikit-learn compares the distances as they are
        centroids = estimator.centroids_
        products = graph(OnnxMatMul, graph.numbers(), 2 * centroids.T)
        scores = graph(OnnxSub, products, (centroids**2).sum(axis=1)[None])
    graph.scores(scores, graph(OnnxSoftmax, discriminant, axis=1))


def _decisions(graph: _Graph, estimators: Sequence[Any]) -> Any:
    """The decisions of linear classifiers of two classes, shape (rows, estimators)."""
    weights: list[np.ndarray | None] = []
    offsets: list[float] = []
    for estimator in estimators:
        if isinstance(estimator, LinearClassifierMixin):
            weights.append(np.ravel(estimator.coef_))
            offsets.append(float(np.ravel(estimator.intercept_)[0]))
        elif isinstance(estimator, _ConstantPredictor):
            weights.append(None)
            offsets.append(float(np.ravel(estimator.y_)[0]))
        else:
            raise NotImplementedError("decisions of estimators that are not linear")
    features = next(len(row) for row in weights if row is not None)
    rows = np.vstack([np.zeros(features) if row is None else row for row in weights])
    return graph(OnnxAdd, graph(OnnxMatMul, graph.numbers(), rows.T), np.array(offsets)[None])


def _one_vs_one(graph: _Graph) -> None:
    """Each pair of classes votes; how sure they were decides between equal votes."""
    estimator = graph.estimator
    classes = len(estimator.classes_)
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    decisions = _decisions(graph, estimator.estimators_)
    first, second = (np.eye(classes)[[pair[side] for pair in pairs]] for side in (0, 1))
    won = graph(OnnxCast, graph(OnnxGreater, decisions, 0.0), to=graph.element)
    votes = graph(OnnxAdd, graph(OnnxMatMul, won, second - first), first.sum(axis=0)[None])
    sure = graph(OnnxMatMul, decisions, second - first)
    third = graph(OnnxMul, graph(OnnxAdd, graph(OnnxAbs, sure), 1.0), 3.0)
    graph.scores(graph(OnnxAdd, votes, graph(OnnxDiv, sure, third)))


def _linear_discriminant(graph: _Graph) -> None:
    estimator = graph.estimator
    weights, offsets = estimator.coef_.T, np.ravel(estimator.intercept_)[None]
    scores = graph(OnnxAdd, graph(OnnxMatMul, graph.numbers(), weights), offsets)
    if len(estimator.classes_) > 2:
        graph.scores(scores, graph(OnnxSoftmax, scores, axis=1))
        return
    one = graph(OnnxSigmoid, scores)
    graph.scores(
        graph(OnnxConcat, graph(OnnxMul, scores, -1.0), scores, axis=1),
        graph(OnnxConcat, graph(OnnxSub, 1.0, one), one, axis=1),
    )


def _quadratic_discriminant(graph: _Graph) -> None:
    """Hastie et al., The Elements of Statistical Learning, equation 4.12."""
    estimator = graph.estimator
    scores = []
    for mean, rotation, scaling, prior in zip(
        estimator.means_, estimator.rotations_, estimator.scalings_, estimator.priors_, strict=True
    ):
        rotated = graph(OnnxMatMul, graph(OnnxSub, graph.numbers(), mean[None]), rotation / np.sqrt(scaling))
        squares = graph(OnnxReduceSumSquare, rotated, np.array([1]), keepdims=1)
        offset = float(np.log(prior) - 0.5 * np.log(scaling).sum())
        scores.append(graph(OnnxAdd, graph(OnnxMul, squares, -0.5), offset))
    together = graph(OnnxConcat, *scores, axis=1)
    graph.scores(together, graph(OnnxSoftmax, together, axis=1))


def _output_code(graph: _Graph) -> None:
    estimator = graph.estimator
    codes = estimator.code_book_
    bits = _decisions(graph, estimator.estimators_)
    products = graph(OnnxMatMul, bits, 2.0 * codes.T)
    graph.scores(graph(OnnxSub, products, (codes**2).sum(axis=1)[None].astype(float)))


def _label_propagation(graph: _Graph) -> None:
    estimator = graph.estimator
    if estimator.kernel != "rbf":
        raise NotImplementedError(f"kernel={estimator.kernel!r}")
    distances = graph.squared_distances(_dense(estimator.X_))
    weights = graph(OnnxExp, graph(OnnxMul, distances, -float(estimator.gamma)))
    sums = graph(OnnxMatMul, weights, estimator.label_distributions_)
    probabilities = graph(OnnxDiv, sums, graph(OnnxReduceSum, sums, np.array([1]), keepdims=1))
    graph.scores(probabilities, probabilities)


# -- regressors ------------------------------------------------------------------------------------------------------


def _dummy_regressor(graph: _Graph) -> None:
    graph.answer(OnnxIdentity, graph.constant_rows(np.ravel(graph.estimator.constant_)[:1].astype(float)))


def _kernel_ridge(graph: _Graph) -> None:
    estimator = graph.estimator
    points = _dense(estimator.X_fit_)
    weights = np.reshape(estimator.dual_coef_, (len(points), -1))
    gamma = 1.0 / points.shape[1] if estimator.gamma is None else float(estimator.gamma)
    if estimator.kernel == "linear":
        graph.answer(OnnxMatMul, graph.numbers(), points.T @ weights)
    elif estimator.kernel == "rbf":
        kernel = graph(OnnxExp, graph(OnnxMul, graph.squared_distances(points), -gamma))
        graph.answer(OnnxMatMul, kernel, weights)
    else:
        raise NotImplementedError(f"kernel={estimator.kernel!r}")


def _isotonic(graph: _Graph) -> None:
    """A line with bends: the slope changes by so much at each point."""
    estimator = graph.estimator
    if estimator.out_of_bounds != "clip":
        raise NotImplementedError(f"out_of_bounds={estimator.out_of_bounds!r}")
    points, values = (np.asarray(side, float) for side in (estimator.X_thresholds_, estimator.y_thresholds_))
    if len(points) == 1:
        graph.answer(OnnxIdentity, graph.constant_rows(values))
        return
    slopes = np.diff(values) / np.diff(points)
    limits = [np.array(limit, dtype=graph.dtype) for limit in (points[0], points[-1])]
    inside = graph(OnnxClip, graph(OnnxReshape, graph.numbers(), COLUMN), *limits)
    beyond = graph(OnnxRelu, graph(OnnxSub, inside, points[None, :-1]))
    rises = graph(OnnxMatMul, beyond, np.diff(slopes, prepend=0.0)[:, None])
    graph.answer(OnnxAdd, rises, values[:1])


def _two_blocks(graph: _Graph) -> None:
    estimator = graph.estimator
    weights = estimator.coef_.T
    graph.answer(
        OnnxAdd, graph(OnnxMatMul, graph.numbers(), weights), (estimator.intercept_ - estimator._x_mean @ weights)[None]
    )


def _transformed_target(graph: _Graph) -> None:
    transformer = graph.estimator.transformer_
    column = graph(OnnxReshape, graph.other(graph.estimator.regressor_)[0], COLUMN)
    if isinstance(transformer, FunctionTransformer):
        inverse = INVERSES.get(transformer.inverse_func)
        if inverse is None or transformer.inv_kw_args:
            raise NotImplementedError(f"inverse_func={transformer.inverse_func}")
        graph.answer(OnnxIdentity, inverse(graph, column))
    elif isinstance(transformer, StandardScaler):
        scale = np.ones(1) if transformer.scale_ is None else transformer.scale_
        offset = np.zeros(1) if transformer.mean_ is None else transformer.mean_
        graph.answer(OnnxAdd, graph(OnnxMul, column, scale), offset)
    elif isinstance(transformer, MinMaxScaler):
        graph.answer(OnnxDiv, graph(OnnxSub, column, transformer.min_), transformer.scale_)
    else:
        raise NotImplementedError(f"transformer={type(transformer).__name__}")


# What a regression's target may be brought back by.
INVERSES: dict[Any, Callable[[_Graph, Any], Any]] = {
    None: lambda graph, values: values,
    np.exp: lambda graph, values: graph(OnnxExp, values),
    np.expm1: lambda graph, values: graph(OnnxSub, graph(OnnxExp, values), 1.0),
    np.log: lambda graph, values: graph(OnnxLog, values),
    np.log1p: lambda graph, values: graph(OnnxLog, graph(OnnxAdd, values, 1.0)),
    np.sqrt: lambda graph, values: graph(OnnxSqrt, values),
    np.square: lambda graph, values: graph(OnnxMul, values, values),
}


def _imputer(graph: _Graph) -> None:
    """onnxruntime's own operator knows float32 only."""
    estimator = graph.estimator
    values = np.asarray(estimator.statistics_, dtype=object)
    if estimator.add_indicator or any(value is None or value != value for value in values):
        raise NotImplementedError("add_indicator=True, or a column without a value")
    if not (isinstance(estimator.missing_values, float) and np.isnan(estimator.missing_values)):
        raise NotImplementedError(f"missing_values={estimator.missing_values!r}")
    numbers = graph.numbers()
    graph.answer(OnnxWhere, graph(OnnxIsNaN, numbers), values.astype(float)[None], numbers)


# -- support vector machines -----------------------------------------------------------------------------------------


def _kernel(graph: _Graph) -> Any:
    """Of each row with each support vector, shape (rows, vectors)."""
    estimator = graph.estimator
    vectors, gamma, offset = _dense(estimator.support_vectors_), float(estimator._gamma), float(estimator.coef0)
    if estimator.kernel == "rbf":
        return graph(OnnxExp, graph(OnnxMul, graph.squared_distances(vectors), -gamma))
    products = graph(OnnxMatMul, graph.numbers(), vectors.T)
    if estimator.kernel == "linear":
        return products
    inner = graph(OnnxAdd, graph(OnnxMul, products, gamma), offset)
    if estimator.kernel == "poly":
        return graph(OnnxPow, inner, float(estimator.degree))
    if estimator.kernel == "sigmoid":
        return graph(OnnxTanh, inner)
    raise NotImplementedError(f"kernel={estimator.kernel!r}")


def _svr(graph: _Graph) -> None:
    weights = _dense(graph.estimator.dual_coef_).T
    graph.answer(OnnxAdd, graph(OnnxMatMul, _kernel(graph), weights), np.asarray(graph.estimator.intercept_))


def _svc(graph: _Graph) -> None:
    """Each pair of classes votes; the probabilities of two classes are a sigmoid of their decision.

    libsvm, svm_predict_values and svm_predict_probability: https://www.csie.ntu.edu.tw/~cjlin/papers/libsvm.pdf
    """
    estimator = graph.estimator
    classes = len(estimator.classes_)
    if estimator.break_ties:
        raise NotImplementedError("break_ties=True")
    if estimator.probability and classes > 2:
        raise NotImplementedError("probabilities of several classes, which are found in steps")
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    coefficients, owners = _dense(estimator._dual_coef_), np.repeat(np.arange(classes), estimator._n_support)
    weights = np.zeros((coefficients.shape[1], len(pairs)))
    for column, (i, j) in enumerate(pairs):
        weights[owners == i, column] = coefficients[j - 1, owners == i]
        weights[owners == j, column] = coefficients[i, owners == j]
    decisions = graph(OnnxAdd, graph(OnnxMatMul, _kernel(graph), weights), np.asarray(estimator._intercept_)[None])
    first, second = (np.eye(classes)[[pair[side] for pair in pairs]] for side in (0, 1))
    won = graph(OnnxCast, graph(OnnxGreater, decisions, 0.0), to=graph.element)
    votes = graph(OnnxAdd, graph(OnnxMatMul, won, first - second), second.sum(axis=0)[None])
    if not estimator.probability:
        graph.scores(votes)
        return
    sigmoid = graph(OnnxAdd, graph(OnnxMul, decisions, -estimator._probA[None]), -estimator._probB[None])
    one = graph(OnnxClip, graph(OnnxSigmoid, sigmoid), *(np.array(x, dtype=graph.dtype) for x in (1e-7, 1 - 1e-7)))
    graph.scores(votes, graph(OnnxConcat, one, graph(OnnxSub, 1.0, one), axis=1))


# -- trees -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tree:
    """The nodes of a tree: arrays of the shape (nodes,); leaves have the child -1.

    values: what a leaf adds to each output, shape (nodes, outputs); missing_left: whether a missing value goes left.
    """

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, tree: Any, values: np.ndarray) -> _Tree:
        """One of scikit-learn's trees, which compare float32."""
        missing = tree.missing_go_to_left.astype(bool)
        return cls(tree.children_left, tree.children_right, tree.feature, tree.threshold, missing, values)

    @classmethod
    def of_histograms(cls, predictor: Any, output: int, outputs: int) -> _Tree:
        """One of a histogram gradient boosting, which compare double; it adds to one output."""
        nodes = predictor.nodes
        if nodes["is_categorical"].any():
            raise NotImplementedError("a tree that splits by category")
        leaf = nodes["is_leaf"].astype(bool)
        left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
        values = np.zeros((len(nodes), outputs))
        values[:, output] = nodes["value"]
        missing = nodes["missing_go_to_left"].astype(bool)
        return cls(left, right, nodes["feature_idx"].astype(np.int64), nodes["num_threshold"], missing, values)


def _sums(graph: _Graph, trees: Sequence[_Tree], base: np.ndarray, rounds: bool = True) -> Any:
    """What all trees add up to, and the base, shape (rows, outputs).

    Args:
        base: shape (outputs,).
        rounds: whether the trees compare float32.
    """
    sizes = [len(tree.left) for tree in trees]
    tree_of_node = np.repeat(np.arange(len(trees)), sizes)
    node = np.concatenate([np.arange(size) for size in sizes])
    left, right, feature, threshold, missing = (
        np.concatenate([getattr(tree, name) for tree in trees])
        for name in ("left", "right", "feature", "threshold", "missing_left")
    )
    leaf = left == -1
    values = np.vstack([tree.values for tree in trees])
    outputs = values.shape[1]
    targets = np.tile(np.arange(outputs), leaf.sum())
    made = graph.scope.get_unique_variable_name("sums")
    numbers = graph.numbers()
    if rounds:
        single = graph(OnnxCast, numbers, to=onnx_proto.TensorProto.FLOAT)
        numbers = graph(OnnxCast, single, to=onnx_proto.TensorProto.DOUBLE)
    given = graph.scope.get_unique_variable_name("compared")
    graph(OnnxIdentity, numbers, output_names=[given]).add_to(graph.scope, graph.container)
    graph.container.add_node(
        "TreeEnsembleRegressor",
        [given],
        [made],
        op_domain="ai.onnx.ml",
        op_version=3,
        name=graph.scope.get_unique_operator_name("TreeEnsembleRegressor"),
        nodes_treeids=tree_of_node.tolist(),
        nodes_nodeids=node.tolist(),
        nodes_featureids=np.where(leaf, 0, feature).tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values_as_tensor=_tensor(np.where(leaf, 0.0, threshold)),
        nodes_truenodeids=np.where(leaf, 0, left).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, right).tolist(),
        nodes_missing_value_tracks_true=(missing & ~leaf).astype(int).tolist(),
        target_treeids=np.repeat(tree_of_node[leaf], outputs).tolist(),
        target_nodeids=np.repeat(node[leaf], outputs).tolist(),
        target_ids=targets.tolist(),
        target_weights_as_tensor=_tensor(values[leaf].ravel().astype(float)),
        base_values_as_tensor=_tensor(np.asarray(base, float)),
        n_targets=outputs,
        post_transform="NONE",
    )
    return graph(OnnxCast, made, to=graph.element)


def _own_trees(estimator: Any) -> list[Any]:
    return [part.tree_ for part in getattr(estimator, "estimators_", [estimator])]


def _forest(graph: _Graph) -> Any:
    """The mean of what the trees of a forest say; a tree alone is a forest of one."""
    trees = _own_trees(graph.estimator)
    if graph.estimator.n_outputs_ != 1:
        raise NotImplementedError("a forest for several targets")
    means = [_Tree.of(tree, tree.value[:, 0, :] / len(trees)) for tree in trees]
    return _sums(graph, means, np.zeros(means[0].values.shape[1]))


def _forest_classifier(graph: _Graph) -> None:
    probabilities = _forest(graph)
    graph.scores(probabilities, probabilities)


def _forest_regressor(graph: _Graph) -> None:
    graph.answer(OnnxIdentity, _forest(graph))


def _boosted(graph: _Graph) -> Any:
    """The raw scores of a gradient boosting, shape (rows, classes); for two classes and regressions (rows, 1)."""
    estimator = graph.estimator
    if hasattr(estimator, "_predictors"):
        outputs = estimator.n_trees_per_iteration_
        if estimator._preprocessor is not None:
            raise NotImplementedError("categories of a histogram gradient boosting")
        trees = [
            _Tree.of_histograms(predictor, output, outputs)
            for stage in estimator._predictors
            for output, predictor in enumerate(stage)
        ]
        return _sums(graph, trees, np.ravel(estimator._baseline_prediction), rounds=False)
    stages = estimator.estimators_
    if estimator.init_ != "zero" and not isinstance(estimator.init_, DummyClassifier | DummyRegressor):
        raise NotImplementedError(f"init={type(estimator.init_).__name__}")
    base = np.ravel(estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_))))
    trees = []
    for stage in stages:
        for output, part in enumerate(stage):
            values = np.zeros((part.tree_.node_count, len(base)))
            values[:, output] = part.tree_.value[:, 0, 0] * estimator.learning_rate
            trees.append(_Tree.of(part.tree_, values))
    return _sums(graph, trees, base)


def _boosted_classifier(graph: _Graph) -> None:
    raw = _boosted(graph)
    loss = type(graph.estimator._loss).__name__
    if loss == "HalfMultinomialLoss":
        graph.scores(raw, graph(OnnxSoftmax, raw, axis=1))
        return
    if loss not in ("HalfBinomialLoss", "ExponentialLoss"):
        raise NotImplementedError(f"loss={loss}")
    one = graph(OnnxSigmoid, raw if loss == "HalfBinomialLoss" else graph(OnnxMul, raw, 2.0))
    both = graph(OnnxConcat, graph(OnnxSub, 1.0, one), one, axis=1)
    graph.scores(both, both)


def _boosted_regressor(graph: _Graph) -> None:
    estimator, raw = graph.estimator, _boosted(graph)
    link = type(estimator._loss.link).__name__ if hasattr(estimator, "_predictors") else "IdentityLink"
    if link not in ("IdentityLink", "LogLink"):
        raise NotImplementedError(f"link={link}")
    graph.answer(OnnxExp if link == "LogLink" else OnnxIdentity, raw)


# -- registration ----------------------------------------------------------------------------------------------------


def _regressor_shape(operator: Any) -> None:
    double = isinstance(operator.inputs[0].type, DoubleTensorType)
    kind = DoubleTensorType if double else FloatTensorType
    operator.outputs[0].set_type(kind([operator.inputs[0].get_first_dimension(), 1]))


CLASSIFIERS: dict[type, Callable[[_Graph], None]] = {
    DummyClassifier: _dummy_classifier,
    FixedThresholdClassifier: _threshold,
    LabelPropagation: _label_propagation,
    LinearDiscriminantAnalysis: _linear_discriminant,
    LabelSpreading: _label_propagation,
    NearestCentroid: _nearest_centroid,
    OutputCodeClassifier: _output_code,
    QuadraticDiscriminantAnalysis: _quadratic_discriminant,
    SelfTrainingClassifier: _self_training,
    TunedThresholdClassifierCV: _threshold,
}
REGRESSORS: dict[type, Callable[[_Graph], None]] = {
    CCA: _two_blocks,
    DummyRegressor: _dummy_regressor,
    IsotonicRegression: _isotonic,
    KernelRidge: _kernel_ridge,
    PLSCanonical: _two_blocks,
    TransformedTargetRegressor: _transformed_target,
}

# By skl2onnx's name of the converter.
IN_DOUBLE: dict[str, Callable[[_Graph], None]] = {
    **dict.fromkeys(
        (
            "SklearnDecisionTreeClassifier",
            "SklearnExtraTreeClassifier",
            "SklearnRandomForestClassifier",
            "SklearnExtraTreesClassifier",
        ),
        _forest_classifier,
    ),
    **dict.fromkeys(
        (
            "SklearnDecisionTreeRegressor",
            "SklearnExtraTreeRegressor",
            "SklearnRandomForestRegressor",
            "SklearnExtraTreesRegressor",
        ),
        _forest_regressor,
    ),
    **dict.fromkeys(
        ("SklearnGradientBoostingClassifier", "SklearnHistGradientBoostingClassifier"), _boosted_classifier
    ),
    **dict.fromkeys(("SklearnGradientBoostingRegressor", "SklearnHistGradientBoostingRegressor"), _boosted_regressor),
    "SklearnSimpleImputer": _imputer,
    "SklearnSVC": _svc,
    "SklearnSVR": _svr,
}
OPTIONS = {"zipmap": [True, False, "columns"], "output_class_labels": [False, True], "nocl": [True, False]}


def register() -> None:
    """Let skl2onnx know these converters."""
    for kind, write in CLASSIFIERS.items():
        update_registered_converter(
            kind,
            f"Platform{kind.__name__}",
            calculate_linear_classifier_output_shapes,
            _converter(write),
            options=OPTIONS,
        )
    for kind, write in REGRESSORS.items():
        update_registered_converter(kind, f"Platform{kind.__name__}", _regressor_shape, _converter(write))
    _register_one_vs_one()
    for alias, write in IN_DOUBLE.items():
        _register_in_double(alias, write)
    for alias, changed in CHANGED.items():
        _register_changed(alias, changed)
    linear = get_converter("SklearnLinearSVC")  # the only classifier without this option
    register_converter("SklearnLinearSVC", linear._fct, overwrite=True, options={**linear._options, **OPTIONS})


def _register_one_vs_one() -> None:
    """skl2onnx's converter is for labels that are numbers, and for any estimators."""
    usual = get_converter("SklearnOneVsOneClassifier")

    def convert(scope: Any, operator: Any, container: Any) -> None:
        if all(isinstance(part, LinearClassifierMixin) for part in operator.raw_operator.estimators_):
            _one_vs_one(_Graph(scope, operator, container))
        else:
            usual(scope, operator, container)

    shape = calculate_linear_classifier_output_shapes
    update_registered_converter(OneVsOneClassifier, "SklearnOneVsOneClassifier", shape, convert, options=OPTIONS)


def _register_in_double(alias: str, write: Callable[[_Graph], None]) -> None:
    """Let the converter be ours where the input is in double, as onnxruntime's own operators are in float32."""
    usual = get_converter(alias)

    def convert(scope: Any, operator: Any, container: Any) -> None:
        graph = _Graph(scope, operator, container)
        options = container.get_options(graph.estimator, fail=False) or {}
        if graph.dtype == np.float64 and not options.get("raw_scores"):
            write(graph)
        else:
            usual(scope, operator, container)

    register_converter(alias, convert, overwrite=True, options=usual._options)


def _register_changed(alias: str, changed: Callable[[Any], Any]) -> None:
    """Let skl2onnx's converter get a changed copy of the estimator, which predicts the same."""
    usual = get_converter(alias)

    def convert(scope: Any, operator: Any, container: Any) -> None:
        operator.raw_operator = changed(copy(operator.raw_operator))
        usual._fct(scope, operator, container)

    register_converter(alias, convert, overwrite=True, options=usual._options)


def _with_dense_rows(estimator: Any) -> Any:
    estimator._fit_X = _dense(estimator._fit_X)
    return estimator


def _without_flat_transform(estimator: Any) -> Any:
    estimator.flatten_transform = False  # of `transform`, which nobody calls
    return estimator


CHANGED: dict[str, Callable[[Any], Any]] = {
    "SklearnKNeighborsClassifier": _with_dense_rows,
    "SklearnKNeighborsRegressor": _with_dense_rows,
    "SklearnVotingClassifier": _without_flat_transform,
}


def _converter(write: Callable[[_Graph], None]) -> Callable[[Any, Any, Any], None]:
    return lambda scope, operator, container: write(_Graph(scope, operator, container))
