"""What becomes of estimators of all kinds: ONNX where it answers as they do, skops otherwise."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from app.registry.bundle import Bundle, read_bundle
from app.registry.predictor import load_predictor, plain_rows
from app.testing.model_api import patients
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
    for number, estimator in enumerate([Ridge(), HistGradientBoostingRegressor()]):
        bundle = _bundle(tmp_path / str(number), estimator, rows, frame["size"] * 3 + 1, "regression")
        assert bundle.serving == "onnx"
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


NUMBERS = ["age", "pressure"]


def _imputed(estimator: Any) -> Any:
    text = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    return make_pipeline(make_column_transformer((numbers, NUMBERS), (text, ["ward"])), estimator)


@pytest.mark.parametrize(
    ("estimator", "columns"),
    [
        (_imputed(LogisticRegression()), [*NUMBERS, "ward"]),
        (make_pipeline(SimpleImputer(), LogisticRegression()), NUMBERS),
        (RandomForestClassifier(10, random_state=0), NUMBERS),
        (HistGradientBoostingClassifier(max_iter=10, random_state=0), NUMBERS),
    ],
    ids=["numbers and text", "imputer", "forest", "hist gradient boosting"],
)
def test_missing_values_are_answered_as_the_estimator_answers_them(
    tmp_path: Path, estimator: Any, columns: list[str]
) -> None:
    rows, sick = patients()
    bundle = _bundle(tmp_path, estimator, rows[columns], sick, "classification")
    assert all(feature.nullable for feature in bundle.features)
    assert any(value is None for row in bundle.golden.rows for value in row)
    _check(bundle, estimator, rows[columns])
    inputs = {item["name"]: item["required"] for item in mlflow.models.Model.load(tmp_path).signature.inputs.to_dict()}
    assert inputs == dict.fromkeys(columns, False)


def test_a_feature_may_be_nullable_though_no_training_row_lacks_it(frame: pd.DataFrame, tmp_path: Path) -> None:
    features, labels = frame[["size"]], frame["new"]
    estimator = make_pipeline(SimpleImputer(), LogisticRegression()).fit(features, labels)
    fitted = FittedModel(estimator, features, labels, "classification", "new", GATE, nullable=("size",))
    build_bundle(tmp_path, fitted)
    bundle = read_bundle(tmp_path)
    assert bundle.features[0].nullable
    assert bundle.reference.features["size"].missing == 0
    nothing = pd.DataFrame({"size": [np.nan]})
    assert load_predictor(bundle).predict([[None]]).labels == estimator.predict(nothing).tolist()


def test_a_nullable_feature_whose_estimator_takes_no_missing_value_is_refused(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    features, labels = frame[["size"]], frame["new"]
    estimator = LogisticRegression().fit(features, labels)
    fitted = FittedModel(estimator, features, labels, "classification", "new", GATE, nullable=("size",))
    with pytest.raises(RegistrationError, match=r"without size \(nullable\), and the estimator does not take it"):
        build_bundle(tmp_path, fitted)
