"""A few pipelines of the zoo, and that the report says what became of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.utils import all_estimators

from app.registry.predictor import Predictions
from bench import zoo

ALL = {(pipeline.name, pipeline.behind): pipeline for pipeline in zoo.pipelines()}


def test_every_estimator_is_in_it_in_each_place() -> None:
    names = {name for kind in ("classifier", "regressor") for name, _ in all_estimators(type_filter=kind)}
    for behind in ("alone", "scaler", "categories and missing values"):
        assert names <= {name for name, place in ALL if place == behind}
    assert len(ALL) == len(zoo.pipelines()) >= 200


@pytest.mark.parametrize(
    ("name", "behind"),
    [
        ("LogisticRegression", "alone"),
        ("RandomForestClassifier", "scaler"),
        ("RandomForestRegressor", "categories and missing values"),
        ("LogisticRegression", "categories and missing values"),
        ("LogisticRegression", "TF-IDF"),
        ("HistGradientBoostingClassifier, missing values", "alone"),
        ("SVC", "scaler"),
        ("RidgeClassifier", "alone"),
        ("MultiTaskLasso", "scaler"),
        ("ClassifierChain", "alone"),
    ],
)
def test_it_is_served_by_onnx_and_answers_the_same(name: str, behind: str) -> None:
    result = zoo.try_pipeline(ALL[name, behind])
    assert (result.outcome, result.detail, result.labels) == ("ONNX", "", 0)


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_missing_values_are_in_the_features_alone(classes: int) -> None:
    frame = zoo.table(500, 0, missing=True)
    missing = frame.isna().mean()
    assert all(0.05 < missing[name] < 0.15 for name in zoo.NUMBERS)
    assert not missing[[*zoo.WORDS, "text"]].any()
    labels = zoo.target(frame, classes)
    assert labels.notna().all()
    assert labels.nunique() == classes or not classes


class _Shifted:
    """A predictor that is off: every value by `by`, and some labels."""

    takes_matrix = False

    def __init__(self, estimator: Any, by: float) -> None:
        self.estimator, self.by = estimator, by

    def predict(self, rows: Any) -> Predictions:
        values = self.estimator.predict(np.asarray(rows)) * (1 + self.by)
        return Predictions(values.tolist(), None)


@pytest.mark.parametrize(("by", "wrong"), [(0.0, False), (1e-6, False), (1e-2, True)])
def test_other_values_are_counted(by: float, wrong: bool) -> None:
    rows = zoo.table(50, 0)[["length", "width"]]
    estimator = Ridge().fit(rows.to_numpy(), rows["length"] * 100 + 1000)
    differ, largest = zoo.compare(estimator, _Shifted(estimator, by), rows, "regression")
    assert (differ == len(rows)) == wrong
    assert largest == pytest.approx(by, abs=1e-9)


PLAIN = zoo.Result("Ridge", "linear_model", "alone", "ONNX")
RESULTS = [
    PLAIN,
    replace(PLAIN, behind="scaler"),
    replace(PLAIN, name="GP|R", family="gaussian_process", outcome="slower", reason="skl2onnx does not know it"),
    replace(PLAIN, name="Birch", family="cluster", outcome="refused", reason="not trusted"),
    replace(PLAIN, name="KNN", family="neighbors", outcome="differs", reason="3 of 1000 rows"),
]


def test_the_shares_are_of_what_is_served() -> None:
    counts = zoo.summary(RESULTS)
    assert counts.counts == Counter({"ONNX": 2, "slower": 1, "refused": 1, "differs": 1})
    assert counts.sentence() == (
        "3 of 5 pipelines are served (60.0%), 2 of them by ONNX (66.7%); 1 answer differently, 1 are refused."
    )


def test_the_report_has_every_result_and_reason() -> None:
    text = zoo.as_markdown(RESULTS, {"processor": "Abacus"})
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert [cell.strip() for cell in lines["Ridge"].split("|")[2:-1]] == ["ONNX", "ONNX", "", ""]
    assert "slower: skl2onnx does not know it" in lines["GP\\"]
    assert [cell.strip() for cell in lines["neighbors"].split("|")[2:-1]] == ["0", "0", "1", "0"]
    assert "- Birch (alone): refused, not trusted" in text
    assert zoo.as_json(RESULTS, {})["outcomes"] == {"ONNX": 2, "slower": 1, "refused": 1, "differs": 1}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            "RuntimeError: Unable to find a shape calculator for type '<class 'sklearn.x._y.Some'>'.\nIt",
            "skl2onnx does not know Some",
        ),
        ("the ONNX model differs from the estimator: row 3 gives 1, the", "its ONNX model differs: row 3 gives 1, the"),
        ("estimator.skops is refused: it holds the type a.b.C, which serving does not load: x", "a.b.C is not trusted"),
        ("x" * 200, "x" * 89 + "…"),
    ],
)
def test_reasons_are_short(told: str, said: str) -> None:
    assert zoo.in_a_few_words(told) == said
