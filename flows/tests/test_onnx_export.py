"""Estimators that ONNX serves only by the exporter's own converters, by doubles, or by options of skl2onnx.

Rows that were not compared by the export itself are compared here, to the last label.
"""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import (
    cross_decomposition,
    discriminant_analysis,
    dummy,
    ensemble,
    isotonic,
    kernel_ridge,
    linear_model,
    model_selection,
    multiclass,
    multioutput,
    neighbors,
    semi_supervised,
    svm,
    tree,
)
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from app.registry.predictor import OnnxPredictor, estimator_predictions, plain_rows
from app.vocabulary import Feature, Task
from flows.bundle_writer import served_estimator
from flows.onnx_export import export

COLUMNS = ["a", "b", "c"]


def numbers(rows: int, seed: int) -> pd.DataFrame:
    """Numbers of one decimal, so that many are just where two others have their middle."""
    return pd.DataFrame(np.random.default_rng(seed).uniform(0, 5, (rows, 3)).round(1), columns=COLUMNS)


def value(rows: pd.DataFrame) -> pd.Series:
    return rows["a"] + rows["b"] * rows["c"] / 5 + 1


def label(rows: pd.DataFrame, classes: int = 3) -> pd.Series:
    limits = [3.5, 5.5] if classes == 3 else [4.5]
    return pd.Series(np.array(["low", "medium", "high"])[np.searchsorted(limits, value(rows))])


def served(estimator: Any, rows: pd.DataFrame, task: Task) -> OnnxPredictor:
    """The exported estimator."""
    features = [Feature(name, "string" if name == "text" else "double") for name in map(str, rows)]
    model, reason = export(estimator, features, rows, task)
    assert model is not None, reason
    return OnnxPredictor(model.SerializeToString(), features)


def assert_same(estimator: Any, predictor: OnnxPredictor, rows: pd.DataFrame, task: Task) -> None:
    """Equal labels; probabilities within 1e-5, values within a hundred thousandth."""
    expected, answered = estimator_predictions(estimator, rows), predictor.predict(plain_rows(rows))
    if task == "regression":
        np.testing.assert_allclose(answered.labels, expected.labels, rtol=1e-5)
        return
    assert answered.labels == expected.labels
    assert (answered.probabilities is None) == (expected.probabilities is None)
    if expected.probabilities is not None:
        shares, others = (np.asarray(side.probabilities, float) for side in (answered, expected))
        np.testing.assert_allclose(shares, others, rtol=0, atol=1e-5)


LOGISTIC = linear_model.LogisticRegression()
CLASSIFIERS: dict[str, tuple[int, Any]] = {
    "scaled forest": (3, make_pipeline(StandardScaler(), ensemble.RandomForestClassifier(20, random_state=0))),
    "forest of two classes": (2, ensemble.ExtraTreesClassifier(20, max_depth=4, random_state=0)),
    "scaled boosting": (
        2,
        make_pipeline(StandardScaler(), ensemble.GradientBoostingClassifier(n_estimators=10, random_state=0)),
    ),
    "histograms": (3, ensemble.HistGradientBoostingClassifier(max_iter=10)),
    "bagging": (3, make_pipeline(StandardScaler(), ensemble.BaggingClassifier(random_state=0))),
    "svc": (3, svm.SVC()),
    "svc of two classes": (2, svm.NuSVC(kernel="poly")),
    "dummy": (3, dummy.DummyClassifier()),
    "dummy of the commonest": (3, dummy.DummyClassifier(strategy="most_frequent")),
    "threshold": (
        2,
        model_selection.FixedThresholdClassifier(
            LOGISTIC, threshold=0.2, response_method="predict_proba", pos_label="low"
        ),
    ),
    "first class by threshold": (
        2,
        model_selection.FixedThresholdClassifier(
            LOGISTIC, threshold=0.3, response_method="predict_proba", pos_label="medium"
        ),
    ),
    "tuned threshold": (2, model_selection.TunedThresholdClassifierCV(LOGISTIC, cv=3)),
    "self training": (3, semi_supervised.SelfTrainingClassifier(LOGISTIC)),
    "label spreading": (3, semi_supervised.LabelSpreading(gamma=1)),
    "nearest centroid": (3, neighbors.NearestCentroid()),
    "nearest centroid by priors": (3, neighbors.NearestCentroid(priors="empirical")),
    "codes": (3, multiclass.OutputCodeClassifier(LOGISTIC, code_size=3, random_state=0)),
    "one vs one": (3, multiclass.OneVsOneClassifier(svm.LinearSVC())),
    "one vs one of two": (2, multiclass.OneVsOneClassifier(LOGISTIC)),
    "linear discriminant": (2, discriminant_analysis.LinearDiscriminantAnalysis()),
    "quadratic discriminant": (3, discriminant_analysis.QuadraticDiscriminantAnalysis()),
    "voting": (3, ensemble.VotingClassifier([("l", LOGISTIC), ("t", tree.DecisionTreeClassifier())], voting="soft")),
    "without probabilities": (3, linear_model.RidgeClassifier()),
}
REGRESSORS: dict[str, Any] = {
    "scaled forest": make_pipeline(StandardScaler(), ensemble.RandomForestRegressor(10, random_state=0)),
    "scaled tree": make_pipeline(MinMaxScaler(), tree.DecisionTreeRegressor(random_state=0)),
    "histograms": ensemble.HistGradientBoostingRegressor(max_iter=10, loss="poisson"),
    "boosting": make_pipeline(StandardScaler(), ensemble.GradientBoostingRegressor(n_estimators=10, random_state=0)),
    "svr": make_pipeline(StandardScaler(), svm.SVR(C=1000)),
    "dummy": dummy.DummyRegressor(strategy="median"),
    "kernel ridge": kernel_ridge.KernelRidge(kernel="rbf"),
    "linear kernel": kernel_ridge.KernelRidge(),
    "isotonic": make_pipeline(
        make_column_transformer(("passthrough", ["a"])), isotonic.IsotonicRegression(out_of_bounds="clip")
    ),
    "cca": cross_decomposition.CCA(1),
    "logarithm": TransformedTargetRegressor(linear_model.Ridge(), func=np.log1p, inverse_func=np.expm1),
    "scaled target": TransformedTargetRegressor(linear_model.Ridge(), transformer=StandardScaler()),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name: str) -> None:
    classes, estimator = CLASSIFIERS[name]
    rows = numbers(200, 0)
    estimator.fit(rows, label(rows, classes))
    assert_same(estimator, served(estimator, rows, "classification"), numbers(1000, 1), "classification")


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors(name: str) -> None:
    rows = numbers(200, 0)
    estimator = REGRESSORS[name].fit(rows, value(rows))
    assert_same(estimator, served(estimator, rows, "regression"), numbers(1000, 1), "regression")


def test_a_plain_forest_stays_in_float32_which_is_faster() -> None:
    rows = numbers(200, 0)
    forest = ensemble.RandomForestClassifier(5, random_state=0).fit(rows, label(rows))
    model, _ = export(forest, [Feature(name, "double") for name in COLUMNS], rows, "classification")
    assert model is not None
    assert next(node.op_type for node in model.graph.node) == "TreeEnsembleClassifier"


@pytest.mark.parametrize(
    ("estimator", "names"),
    [
        (multioutput.RegressorChain(linear_model.Ridge()), "Ridge"),
        (make_pipeline(StandardScaler(), multioutput.MultiOutputRegressor(linear_model.Lasso())), "Lasso"),
        (
            make_pipeline(StandardScaler(), model_selection.GridSearchCV(linear_model.Ridge(), {"alpha": [1, 2]})),
            "Ridge",
        ),
    ],
)
def test_of_one_target_its_own_estimator_is_kept(estimator: Any, names: str) -> None:
    rows = numbers(60, 0)
    estimator.fit(rows, value(rows).to_numpy()[:, None])
    kept = served_estimator(estimator)
    assert type(kept[-1] if hasattr(kept, "steps") else kept).__name__ == names
    np.testing.assert_allclose(kept.predict(rows), estimator.predict(rows).ravel())


def test_estimators_for_two_targets_are_kept_whole() -> None:
    rows = numbers(60, 0)
    chain = multioutput.RegressorChain(linear_model.Ridge()).fit(rows, np.column_stack([value(rows), rows["a"]]))
    assert served_estimator(chain) is chain


TEXTS = ["Café on the hill", "x café I 2nd", "Hill, the_hill!", "the", "", "e", "ÄRGER im Café", "no no hill x"]


@pytest.mark.parametrize("words", [{}, {"stop_words": "english"}, {"lowercase": False}, {"ngram_range": (1, 2)}])
def test_text_is_split_as_scikit_learn_does_it(words: dict[str, Any]) -> None:
    rows = pd.DataFrame({"text": TEXTS * 4})
    likes = pd.Series(np.where(rows["text"].str.lower().str.contains("café"), "yes", "no"))
    vectorizer = TfidfVectorizer(**words)
    estimator = make_pipeline(make_column_transformer((vectorizer, "text")), linear_model.LogisticRegression(C=100))
    estimator.fit(rows, likes)
    predictor = served(estimator, rows, "classification")
    assert_same(estimator, predictor, rows, "classification")
    for text in TEXTS:  # one by one, as an answer must not depend on the other rows of its batch
        assert_same(estimator, predictor, pd.DataFrame({"text": [text]}), "classification")
