"""From a bundle to predictions: the loader that the API serves with, and that the promotion gate tries first."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import onnxruntime

from app.registry.bundle import Bundle, BundleError
from app.registry.onnx_file import MAX_FILE, OnnxFileError, check_onnx
from app.registry.skops_file import SkopsFileError, read_estimator
from app.runtime.memory import give_back
from app.vocabulary import INTEGER, NUMERIC, Feature, Label, Task

if TYPE_CHECKING:
    import pandas as pd

# Served values may differ from the estimator's by float32 rounding, and by no more.
RTOL, ATOL = 1e-4, 1e-5
ONNX_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": bool,
}
Rows = Sequence[Sequence[Any]] | np.ndarray
ROWS_AT_ONCE = 256  # so that the memory that a model needs does not depend on how much it is asked
TRIAL_SECONDS = 60.0  # for the golden rows

# All models of a process share this memory: one that asks for more fails, where it would end the process.
MODEL_MEMORY = 2**29  # bytes
onnxruntime.create_and_register_allocator(
    onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    ),
    onnxruntime.OrtArenaCfg({"max_mem": MODEL_MEMORY, "arena_extend_strategy": 1}),  # 1: no more than is asked for
)


class Predictions(NamedTuple):
    """labels: one label or value per row; probabilities: rows x classes, or None."""

    labels: list[Any]
    probabilities: list[list[float]] | None


class Predictor(Protocol):
    """Predicts rows. Thread-safe.

    takes_matrix: whether it makes one array of numbers of them.
    """

    takes_matrix: bool

    def predict(self, rows: Rows) -> Predictions:
        """The predictions for rows of shape (n_rows, n_features), values in the order of the bundle's features."""
        ...


class OnnxPredictor:
    """An ONNX model in onnxruntime, one thread: some 10 microseconds for one row of a forest.

    A model with one input takes all features as one float tensor (rows x features); otherwise each feature is an input
    of its own name (rows x 1). Outputs are the labels or values, then one column of probabilities per class. What it
    computes in float32 is rounded to the seven digits that this holds: 0.99, not 0.9900000095367432.

    Args:
        on_trial: nothing is calculated before the first rows, where a limit of time can be given.
    """

    def __init__(self, model: bytes, features: Sequence[Feature], on_trial: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised, and need not be on the console, too
        options.add_session_config_entry("session.use_env_allocators", "1")
        self._session = onnxruntime.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["ConstantFolding"] if on_trial else None,  # which no limit of memory holds for
        )
        self._outputs = [output.name for output in self._session.get_outputs()]
        inputs = self._session.get_inputs()
        names = [feature.name for feature in features]
        self._single = inputs[0].name if len(inputs) == 1 and inputs[0].name not in names else None
        self.takes_matrix = self._single is not None
        if self._single:
            self._dtype = ONNX_DTYPES[inputs[0].type]
        else:
            self._columns = [(i.name, names.index(i.name), ONNX_DTYPES.get(i.type, object)) for i in inputs]

    def predict(self, rows: Rows, options: onnxruntime.RunOptions | None = None) -> Predictions:
        """The predictions for rows of shape (n_rows, n_features), values in the order of the bundle's features.

        Args:
            options: of onnxruntime for this run.
        """
        if len(rows) <= ROWS_AT_ONCE:
            return self._predict(rows, options)
        parts = [self._predict(rows[i : i + ROWS_AT_ONCE], options) for i in range(0, len(rows), ROWS_AT_ONCE)]
        labels = [label for part in parts for label in part.labels]
        if parts[0].probabilities is None:
            return Predictions(labels, None)
        return Predictions(labels, [row for part in parts for row in part.probabilities or []])

    def _predict(self, rows: Rows, options: onnxruntime.RunOptions | None) -> Predictions:
        if self._single:
            feed = {self._single: np.asarray(rows, dtype=self._dtype)}
        else:
            feed = {
                name: np.array([row[position] for row in rows], dtype=dtype).reshape(-1, 1)
                for name, position, dtype in self._columns
            }
        labels, *columns = self._session.run(self._outputs, feed, options)
        if not columns:
            return Predictions([value for (value,) in _rounded([labels.ravel()])], None)
        return Predictions(labels.tolist(), _rounded(columns))


FEW = 30  # values; rounding so many one by one is as fast as by numpy
# By the size of a value, what to multiply it by for seven significant digits before the point: 1 for 0, and 0 for sizes
# below 1e-6 and from 1e7 on, where that is not exact.
_SIZES = np.array([np.nextafter(0, 1), *(float(f"1e{i}") for i in range(-6, 8))])
_SCALES = np.array([1, 0, *(float(f"1e{6 - i}") for i in range(-6, 7)), 0])


def _rounded(columns: Sequence[np.ndarray]) -> list[list[Any]]:
    """The rows of columns, as Python's own values: numbers of float32 with seven significant digits, all else as it is.

    Args:
        columns: arrays of shape (n_rows,).
    """
    if columns[0].dtype != np.float32:
        return [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    if len(columns) * len(columns[0]) <= FEW:
        few = [[float(f"{value:.7g}") for value in column.tolist()] for column in columns]
        return [list(row) for row in zip(*few, strict=True)]
    exact = np.array(columns, dtype=np.float64).T
    scale = _SCALES[_SIZES.searchsorted(np.abs(exact), side="right")]
    if scale.all():
        # a power of ten up to 1e22 is exact, and so are product and quotient: this is what decimal rounding gives
        return (np.rint(exact * scale) / scale).tolist()
    unusual = scale == 0
    scale[unusual] = 1
    rounded = np.rint(exact * scale) / scale
    rounded[unusual] = [float(f"{value:.7g}") for value in exact[unusual].tolist()]
    return rounded.tolist()


class SkopsPredictor:
    """A scikit-learn estimator read by skops, which runs no code of the file. Slower: for what ONNX cannot express."""

    takes_matrix = False

    def __init__(self, path: Path, features: Sequence[Feature]) -> None:
        import pandas as pd  # it and scikit-learn take memory that an API needs only for such a model

        self._estimator = read_estimator(path)
        self._pd = pd
        self._names = [feature.name for feature in features]
        self._nullable = any(feature.nullable for feature in features)
        self._dtypes = {
            f.name: "int64" if f.dtype in INTEGER else "bool" if f.dtype == "boolean" else "float64"
            for f in features
            if f.dtype in NUMERIC
        }

    def predict(self, rows: Rows) -> Predictions:
        """The predictions for rows of shape (n_rows, n_features), values in the order of the bundle's features."""
        values = np.asarray(rows, dtype=object)
        if self._nullable:
            values = np.where(self._pd.isna(values), np.nan, values)  # scikit-learn's imputers know no None
        frame = self._pd.DataFrame(values, columns=self._names).astype(self._dtypes)
        return estimator_predictions(self._estimator, frame)


def estimator_predictions(estimator: Any, frame: pd.DataFrame) -> Predictions:
    """What a fitted scikit-learn estimator itself predicts, in the form in which it is served.

    Args:
        frame: the features, shape (n_rows, n_features).
    """
    labels = np.asarray(estimator.predict(frame)).ravel().tolist()
    has_probabilities = hasattr(estimator, "predict_proba")
    return Predictions(labels, estimator.predict_proba(frame).tolist() if has_probabilities else None)


def plain_rows(frame: pd.DataFrame) -> list[list[Any]]:
    """The rows of a frame as Python values, as a request holds them; None for missing ones."""
    values = frame.astype(object).to_numpy(copy=True)
    values[frame.isna().to_numpy()] = None
    return values.tolist()


class GoldenMismatch(BundleError):
    """The model loads, but does not answer the golden rows as the estimator did."""


def load_predictor(bundle: Bundle) -> Predictor:
    """The predictor of a verified bundle, tried on its golden rows.

    Nothing of the model's file is imported, made or run before all of it is found to be what training writes.

    Raises:
        BundleError: the model does not load, or (GoldenMismatch) answers the golden rows differently.
    """
    name = "model.onnx" if bundle.serving == "onnx" else "estimator.skops"
    try:
        if bundle.serving == "onnx":
            return _load_onnx(bundle)
        predictor = SkopsPredictor(bundle.path / name, bundle.features)
        _check_golden_rows(bundle, predictor.predict(bundle.golden.rows))
        return predictor
    except BundleError:
        raise
    except (OnnxFileError, SkopsFileError) as error:
        raise BundleError(f"{name} is refused: {error.what}") from error
    except Exception as error:  # whatever the runtime raises on a file it cannot use
        raise BundleError(f"{name} does not load: {type(error).__name__}: {error}") from error
    finally:
        give_back()  # what reading, checking and trying it took


def _load_onnx(bundle: Bundle) -> OnnxPredictor:
    path = bundle.path / "model.onnx"
    if path.stat().st_size > MAX_FILE:
        raise OnnxFileError(f"it has {path.stat().st_size} bytes, {MAX_FILE} are the most")
    model = path.read_bytes()
    check_onnx(model)
    trial = OnnxPredictor(model, bundle.features, on_trial=True)
    with _deadline(TRIAL_SECONDS) as options:
        predictions = trial.predict(bundle.golden.rows, options)
    _check_golden_rows(bundle, predictions)
    del trial  # before the other: not twice the memory at a time
    return OnnxPredictor(model, bundle.features)


@contextmanager
def _deadline(seconds: float) -> Iterator[onnxruntime.RunOptions]:
    """Options of a run that ends with an exception after so many seconds."""
    options = onnxruntime.RunOptions()
    timer = threading.Timer(seconds, lambda: setattr(options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()


def _check_golden_rows(bundle: Bundle, predictions: Predictions) -> None:
    expected = Predictions(bundle.golden.outputs, bundle.golden.probabilities)
    difference = first_difference(expected, predictions, bundle.task)
    if difference:
        raise GoldenMismatch(f"the golden rows are answered differently: {difference}")


def example_difference(bundle: Bundle, prediction: Label) -> str:
    """How a prediction for the bundle's example, its first golden row, differs from the estimator's; or ""."""
    expected = Predictions(bundle.golden.outputs[:1], None)
    return first_difference(expected, Predictions([prediction], None), bundle.task)


def first_difference(expected: Predictions, served: Predictions, task: Task) -> str:
    """The first difference between the estimator's predictions and the served ones, beyond float32 rounding; or ""."""
    if len(expected.labels) != len(served.labels):
        return f"{len(expected.labels)} rows were asked, {len(served.labels)} answered"
    if task == "classification":
        for i, (label, served_label) in enumerate(zip(expected.labels, served.labels, strict=True)):
            if label != served_label:
                return f"row {i} is {served_label!r}, the estimator says {label!r}"
        if expected.probabilities is None or served.probabilities is None:
            return ""
        return _first_other_value(np.asarray(expected.probabilities, float), np.asarray(served.probabilities, float))
    return _first_other_value(*(np.asarray(side.labels, float).reshape(-1, 1) for side in (expected, served)))


def _first_other_value(expected: np.ndarray, served: np.ndarray) -> str:
    if expected.shape != served.shape:
        return f"values have the shape {served.shape}, the estimator's {expected.shape}"
    wrong = ~np.isclose(served, expected, rtol=RTOL, atol=ATOL)
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        return f"row {i} gives {served[i, j]:.6g}, the estimator {expected[i, j]:.6g}"
    return ""
