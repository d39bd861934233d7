"""What becomes of estimators of all kinds: ONNX where it answers as they do, skops otherwise."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from app.registry.bundle import Bundle, read_bundle
from app.registry.predictor import load_predictor, plain_rows
from app.vocabulary import Gate, Task
from flows.bundle_writer import FittedModel, RegistrationError, build_bundle

GATE = Gate("accuracy", threshold=0.5)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "size": rng.normal(size=200),
            "count": rng.integers(0, 9, 200),
            "colour": rng.choice(["red", "blue", "green"], 200),
            "new": rng.random(200) > 0.5,
        }
    )


def _bundle(folder: Path, estimator: Any, frame: pd.DataFrame, labels: pd.Series, task: Task) -> Bundle:
    build_bundle(folder, FittedModel(estimator.fit(frame, labels), frame, labels, task, "y", GATE))
    return read_bundle(folder)


def _check(bundle: Bundle, estimator: Any, frame: pd.DataFrame) -> None:
    served = load_predictor(bundle).predict(plain_rows(frame))
    expected = estimator.predict(frame)
    if bundle.task == "regression":
        np.testing.assert_allclose(served.labels, expected, rtol=1e-4, atol=1e-4)
    else:
        assert served.labels == expected.tolist()


@pytest.mark.parametrize(
    ("estimator", "serving"),
    [
        (LogisticRegression(), "onnx"),
        (GradientBoostingClassifier(random_state=0), "onnx"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "onnx"),
        (LinearSVC(), "onnx"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_numeric_classifiers(tmp_path: Path, frame: pd.DataFrame, estimator: Any, serving: str) -> None:
    rows = frame[["size", "count"]]
    bundle = _bundle(
        tmp_path / "b", estimator, rows, pd.Series(np.where(frame["size"] > 0, "big", "small")), "classification"
    )
    assert bundle.serving == serving
    _check(bundle, estimator, rows)


def test_text_whole_numbers_and_booleans_by_column(tmp_path: Path, frame: pd.DataFrame) -> None:
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["colour"]), ("passthrough", ["size", "count"])
    )
    estimator = make_pipeline(columns, RandomForestClassifier(n_estimators=10, random_state=0))
    rows = frame[["size", "count", "colour"]]
    bundle = _bundle(tmp_path / "b", estimator, rows, (frame["colour"] == "red") * 1, "classification")
    assert [f.dtype for f in bundle.features] == ["double", "long", "string"]
    assert bundle.serving == "onnx"
    assert bundle.classes == (0, 1)
    _check(bundle, estimator, rows)
    scored = mlflow.pyfunc.load_model(str(tmp_path / "b")).predict(rows.astype({"colour": object}))
    assert scored["label"].tolist() == estimator.predict(rows).tolist()


def test_regressions(tmp_path: Path, frame: pd.DataFrame) -> None:
    rows = frame[["size", "count"]]
    for number, (estimator, serving) in enumerate([(Ridge(), "onnx"), (HistGradientBoostingRegressor(), "skops")]):
        bundle = _bundle(tmp_path / str(number), estimator, rows, frame["size"] * 3 + 1, "regression")
        assert bundle.serving == serving
        _check(bundle, estimator, rows)


class Homemade(ClassifierMixin, BaseEstimator):
    def fit(self, rows: Any, labels: Any) -> "Homemade":
        self.classes_ = np.unique(labels)
        return self

    def predict(self, rows: Any) -> Any:
        return np.repeat(self.classes_[0], len(rows))


def test_an_estimator_that_cannot_be_served_is_not_registered(tmp_path: Path, frame: pd.DataFrame) -> None:
    with pytest.raises(RegistrationError, match=r"holds the type .*Homemade, which serving does not load"):
        _bundle(tmp_path / "b", Homemade(), frame[["size"]], frame["colour"], "classification")
