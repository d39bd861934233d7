"""ONNX for estimators that skl2onnx does not know, or converts to something that answers differently.

Each converter writes the formula of scikit-learn's own `predict`; `flows.onnx_export` compares the answers. What a
converter cannot express it refuses with NotImplementedError, and the estimator is served by scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from skl2onnx import update_registered_converter
from skl2onnx.algebra.onnx_operator import OnnxSubEstimator
from skl2onnx.algebra.onnx_ops import (
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
)
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, guess_numpy_type
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from skl2onnx.common.utils_classifier import _finalize_converter_classes
from skl2onnx.operator_converters.support_vector_machines import (
    convert_sklearn_svm_classifier,
    convert_sklearn_svm_regressor,
)
from skl2onnx.proto import onnx_proto
from skl2onnx.shape_calculators.support_vector_machines import calculate_sklearn_svm_output_shapes
from sklearn.compose import TransformedTargetRegressor
from sklearn.cross_decomposition import CCA, PLSCanonical
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.multiclass import OutputCodeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.semi_supervised import LabelPropagation, LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC, SVR, NuSVC, NuSVR

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
        self.answer(OnnxIdentity, scores if probabilities is None else probabilities, output=1)

    def other(self, estimator: Any) -> Any:
        """The outputs of another estimator for the same input."""
        classifies = hasattr(estimator, "classes_")
        options = {"zipmap": False} if classifies else None
        return OnnxSubEstimator(estimator, self.input, op_version=self.version, options=options)


def _tensor(values: np.ndarray) -> Any:
    from onnx.numpy_helper import from_array

    return from_array(values)


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


def _output_code(graph: _Graph) -> None:
    estimator = graph.estimator
    if not all(isinstance(part, LinearClassifierMixin) for part in estimator.estimators_):
        raise NotImplementedError("codes of estimators that are not linear")
    weights = np.vstack([part.coef_ for part in estimator.estimators_])
    offsets = np.hstack([np.ravel(part.intercept_) * np.ones(1) for part in estimator.estimators_])
    codes = estimator.code_book_
    bits = graph(OnnxAdd, graph(OnnxMatMul, graph.numbers(), weights.T), offsets[None])
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


def _svc_in_double(scope: Any, operator: Any, container: Any) -> None:
    """In double where the input is, as onnxruntime's own operator calculates in float32; else that operator."""
    graph = _Graph(scope, operator, container)
    raw = container.get_options(graph.estimator, {"raw_scores": False})["raw_scores"]
    of_many = graph.estimator.probability and len(graph.estimator.classes_) > 2  # found by steps until they are small
    if graph.dtype == np.float64 and not raw and not of_many and not graph.estimator.break_ties:
        _svc(graph)
    else:
        convert_sklearn_svm_classifier(scope, operator, container)


def _svr_in_double(scope: Any, operator: Any, container: Any) -> None:
    graph = _Graph(scope, operator, container)
    if graph.dtype == np.float64:
        _svr(graph)
    else:
        convert_sklearn_svm_regressor(scope, operator, container)


# -- registration ----------------------------------------------------------------------------------------------------


def _regressor_shape(operator: Any) -> None:
    double = isinstance(operator.inputs[0].type, DoubleTensorType)
    kind = DoubleTensorType if double else FloatTensorType
    operator.outputs[0].set_type(kind([operator.inputs[0].get_first_dimension(), 1]))


CLASSIFIERS: dict[type, Callable[[_Graph], None]] = {
    DummyClassifier: _dummy_classifier,
    FixedThresholdClassifier: _threshold,
    LabelPropagation: _label_propagation,
    LabelSpreading: _label_propagation,
    NearestCentroid: _nearest_centroid,
    OutputCodeClassifier: _output_code,
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
    for kind in (SVC, NuSVC):
        update_registered_converter(
            kind,
            "SklearnSVC",
            calculate_sklearn_svm_output_shapes,
            _svc_in_double,
            options=OPTIONS | {"raw_scores": [True, False]},
        )
    for kind in (SVR, NuSVR):
        update_registered_converter(kind, "SklearnSVR", calculate_sklearn_svm_output_shapes, _svr_in_double)


def _converter(write: Callable[[_Graph], None]) -> Callable[[Any, Any, Any], None]:
    return lambda scope, operator, container: write(_Graph(scope, operator, container))
