"""Every classifier and regressor of scikit-learn as people use it: what serves it, and whether it answers the same.

Each is fitted alone, behind a scaler, behind imputation and one-hot encoding, and, where that makes sense, behind
TF-IDF; then its bundle is built and loaded as the API does it, and other rows are predicted by both.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn import calibration, datasets, ensemble, linear_model, multiclass, naive_bayes, neighbors, svm, tree
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.utils import all_estimators

from app.registry.bundle import read_bundle
from app.registry.predictor import (
    Predictions,
    Predictor,
    estimator_predictions,
    first_difference,
    load_predictor,
    plain_rows,
)
from app.vocabulary import Gate, Task
from bench.machine import as_text
from bench.report import markdown
from flows.bundle_writer import FittedModel, build_bundle, served_estimator

TRAINING_ROWS, OTHER_ROWS = 300, 1000
ALONE = 16  # rows that are also asked for one by one
PROBABILITIES = 1e-5  # how far a probability may be off
Behind = Literal["alone", "scaler", "categories and missing values", "TF-IDF"]
BEHIND: tuple[Behind, ...] = ("alone", "scaler", "categories and missing values", "TF-IDF")
Outcome = Literal["ONNX", "slower", "differs", "refused"]

# -- the data --------------------------------------------------------------------------------------------------------

NUMBERS = ["length", "width", "weight", "rooms"]
WORDS = ["colour", "city"]
GOOD = ["good", "great", "fast", "Quiet", "bright", "solid", "clean", "fresh"]
BAD = ["bad", "slow", "Broken", "noisy", "dark", "cheap", "dirty", "stale"]
OTHER = ["the", "a", "house", "I've", "car", "on", "2nd", "floor", "café", "it", "was", "and", "very", "not", "for"]


def table(rows: int, seed: int, missing: bool = False) -> pd.DataFrame:
    """Numbers with decimals, whole numbers, categories and text.

    Args:
        missing: a tenth of the numbers is NaN.

    Returns:
        columns NUMBERS, WORDS and "text", shape (rows, 7).
    """
    dice = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "length": dice.uniform(0, 8, rows).round(1),
            "width": dice.uniform(0, 8, rows).round(2),
            "weight": dice.uniform(0, 8, rows),
            "rooms": dice.integers(1, 9, rows),
            "colour": dice.choice(["red", "green", "blue", "dark blue"], rows),
            "city": dice.choice(["Rome", "Oslo", "Zürich"], rows),
        }
    )
    if missing:
        frame["rooms"] = frame["rooms"].astype(float)
        frame[NUMBERS] = frame[NUMBERS].mask(dice.random((rows, len(NUMBERS))) < 0.1)
    liked = frame["length"].fillna(4) + dice.normal(size=rows) > 4
    sentences = [
        [*dice.choice(GOOD if good else BAD, 3), *dice.choice(OTHER, 5), dice.choice(GOOD + BAD)] for good in liked
    ]
    frame["text"] = [", ".join(map(str, dice.permutation(words))) + "!" for words in sentences]
    return frame


def codes(rows: int, seed: int) -> pd.DataFrame:
    """Categories as whole numbers from 0 to 4, shape (rows, 4)."""
    drawn = np.random.default_rng(seed).integers(0, 5, (rows, len(NUMBERS)))
    return pd.DataFrame(drawn, columns=NUMBERS)


def target(frame: pd.DataFrame, classes: int) -> pd.Series:
    """What is learned from the rows, shape (rows,): numbers above 0 where `classes` is 0, else labels of text."""
    filled = frame[NUMBERS].fillna(4)
    score = filled["length"] + filled["width"] * filled["weight"] / 8 + filled["rooms"] / 2 + 1
    if "colour" in frame:
        score = score + (frame["colour"] == "red") * 3 + frame["text"].str.count("good|great|fast") * 2
    if not classes:
        return score.rename("price")
    limits = np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1])
    return pd.Series(np.array(["high", "low", "medium"])[np.searchsorted(limits, score)], name="price")


# -- the pipelines ---------------------------------------------------------------------------------------------------

_logistic = partial(linear_model.LogisticRegression, max_iter=500)
_few = [("ridge", linear_model.Ridge()), ("tree", tree.DecisionTreeRegressor(max_depth=4, random_state=0))]
_voters = [("logistic", _logistic()), ("bayes", naive_bayes.GaussianNB())]

# How the estimators are made whose defaults do not fit: those of other estimators, and slow ones.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "AdaBoostClassifier": {"n_estimators": 10},
    "AdaBoostRegressor": {"n_estimators": 10},
    "BaggingClassifier": {"n_estimators": 5},
    "BaggingRegressor": {"n_estimators": 5},
    "CCA": {"n_components": 1},
    "CalibratedClassifierCV": {"cv": 3},
    "ClassifierChain": {"estimator": _logistic()},
    "ExtraTreesClassifier": {"n_estimators": 20},
    "ExtraTreesRegressor": {"n_estimators": 20},
    "FixedThresholdClassifier": {
        "estimator": _logistic(),
        "threshold": 0.4,
        "response_method": "predict_proba",
        "pos_label": "high",
    },
    "GaussianProcessClassifier": {"kernel": 1.0 * RBF(2.0)},
    "GaussianProcessRegressor": {"kernel": 1.0 * RBF(2.0) + WhiteKernel(), "normalize_y": True},
    "GradientBoostingClassifier": {"n_estimators": 20},
    "GradientBoostingRegressor": {"n_estimators": 20},
    "HistGradientBoostingClassifier": {"max_iter": 20},
    "HistGradientBoostingRegressor": {"max_iter": 20},
    "IsotonicRegression": {"out_of_bounds": "clip"},
    "KernelRidge": {"kernel": "rbf"},
    "LabelPropagation": {"gamma": 0.5},
    "LabelSpreading": {"gamma": 0.5},
    "LogisticRegression": {"max_iter": 500},
    "LogisticRegressionCV": {"cv": 3, "use_legacy_attributes": False, "l1_ratios": (0,), "max_iter": 500},
    "MLPClassifier": {"hidden_layer_sizes": (10,), "max_iter": 100},
    "MLPRegressor": {"hidden_layer_sizes": (10,), "max_iter": 100},
    "MultiOutputClassifier": {"estimator": _logistic()},
    "MultiOutputRegressor": {"estimator": linear_model.Ridge()},
    "OneVsOneClassifier": {"estimator": svm.LinearSVC()},
    "OneVsRestClassifier": {"estimator": _logistic()},
    "OutputCodeClassifier": {"estimator": _logistic(), "code_size": 3},
    "PLSCanonical": {"n_components": 1},
    "PLSRegression": {"n_components": 2},
    "QuadraticDiscriminantAnalysis": {"reg_param": 0.1},
    "RadiusNeighborsClassifier": {"radius": 5.0, "outlier_label": "most_frequent"},
    "RadiusNeighborsRegressor": {"radius": 5.0},
    "RandomForestClassifier": {"n_estimators": 20},
    "RandomForestRegressor": {"n_estimators": 20},
    "RegressorChain": {"estimator": linear_model.Ridge()},
    "SelfTrainingClassifier": {"estimator": _logistic()},
    "StackingClassifier": {"estimators": _voters, "cv": 3},
    "StackingRegressor": {"estimators": _few, "cv": 3},
    "TransformedTargetRegressor": {
        "regressor": linear_model.Ridge(),
        "func": np.log1p,
        "inverse_func": np.expm1,
        "check_inverse": False,
    },
    "TunedThresholdClassifierCV": {"estimator": _logistic(), "cv": 3},
    "VotingClassifier": {"estimators": _voters, "voting": "soft"},
    "VotingRegressor": {"estimators": _few},
}
# Of text there are thousands of columns with hardly anything in them: only what people use for that.
OF_TEXT = {
    "BernoulliNB",
    "CalibratedClassifierCV",
    "ComplementNB",
    "DecisionTreeClassifier",
    "DummyClassifier",
    "ElasticNet",
    "ExtraTreesClassifier",
    "KNeighborsClassifier",
    "KNeighborsRegressor",
    "Lasso",
    "LinearRegression",
    "LinearSVC",
    "LinearSVR",
    "LogisticRegression",
    "LogisticRegressionCV",
    "MLPClassifier",
    "MLPRegressor",
    "MultinomialNB",
    "NearestCentroid",
    "NuSVC",
    "OneVsOneClassifier",
    "OneVsRestClassifier",
    "PassiveAggressiveClassifier",
    "Perceptron",
    "RandomForestClassifier",
    "RandomForestRegressor",
    "Ridge",
    "RidgeClassifier",
    "RidgeClassifierCV",
    "SGDClassifier",
    "SGDRegressor",
    "SVC",
    "SVR",
}
TWO_CLASSES = {"FixedThresholdClassifier", "TunedThresholdClassifierCV"}
TARGET_IN_A_TABLE = ("MultiTask", "MultiOutput", "ClassifierChain", "RegressorChain")  # how these names begin
NOT_NEGATIVE = {"MultinomialNB", "ComplementNB"}


@dataclass(frozen=True)
class Pipeline:
    """An estimator behind something, and the data that it is tried with.

    family: scikit-learn's module.
    data: rows of features by the number of rows and a seed, shape (rows, features).
    classes: how many there are, 0 for a regression.
    labels: other labels for the training rows than `target` gives.
    """

    name: str
    family: str
    behind: str
    make: Callable[[], Any]
    data: Callable[[int, int], pd.DataFrame]
    classes: int
    labels: Callable[[int, int], pd.Series] | None = None

    @property
    def task(self) -> Task:
        """By the number of classes."""
        return "classification" if self.classes else "regression"

    def fit(self) -> tuple[Any, pd.DataFrame, pd.Series]:
        """The estimator, fitted; and the rows and the labels that it was fitted on."""
        everything = self.data(TRAINING_ROWS, 0)
        features = self.features(everything)
        labels = self.labels(TRAINING_ROWS, 0) if self.labels else target(everything, self.classes)
        if self.name == "ClassifierChain":
            labels = (labels == "high").astype(int)
        in_a_table = self.name.startswith(TARGET_IN_A_TABLE)
        return self.make().fit(features, labels.to_numpy()[:, None] if in_a_table else labels), features, labels

    def features(self, everything: pd.DataFrame) -> pd.DataFrame:
        """The columns that it is fitted on."""
        if self.behind == "TF-IDF":
            return everything[["text"]]
        if self.name == "IsotonicRegression":
            return everything[["length"]]
        if self.behind == "categories and missing values":
            return everything[NUMBERS + WORDS]
        return everything.drop(columns=[*WORDS, "text"], errors="ignore")


def pipelines() -> list[Pipeline]:
    """All of them: every estimator in its places, and models that people have."""
    return [*_of_every_estimator(), *_of_people()]


def _of_every_estimator() -> Iterator[Pipeline]:
    for kind, classes in (("classifier", 3), ("regressor", 0)):
        for name, estimator in all_estimators(type_filter=kind):
            for behind in BEHIND:
                if behind == "TF-IDF" and name not in OF_TEXT:
                    continue
                two = classes and (name in TWO_CLASSES or behind == "scaler")  # both are tried of most
                yield Pipeline(
                    name,
                    estimator.__module__.split(".")[1],
                    behind,
                    partial(_pipeline, name, estimator, behind),
                    partial(_data, name, behind),
                    2 if two or name == "ClassifierChain" else classes,
                )


def _data(name: str, behind: Behind, rows: int, seed: int) -> pd.DataFrame:
    if name == "CategoricalNB" and behind == "alone":
        return codes(rows, seed)
    return table(rows, seed, missing=behind == "categories and missing values")


def _pipeline(name: str, kind: Callable[..., Any], behind: Behind) -> Any:
    estimator = kind(**ARGUMENTS.get(name, {}))
    if "random_state" in estimator.get_params(deep=False):
        estimator.set_params(random_state=0)
    bins = KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf")
    scaler = bins if name == "CategoricalNB" else MinMaxScaler(clip=True) if name in NOT_NEGATIVE else StandardScaler()
    if behind == "alone":
        return estimator
    if behind == "scaler":
        return make_pipeline(scaler, estimator)
    if behind == "TF-IDF":
        return make_pipeline(make_column_transformer((TfidfVectorizer(), "text")), estimator)
    numbers = make_pipeline(SimpleImputer(strategy="median"), scaler)
    if name == "IsotonicRegression":
        return make_pipeline(make_column_transformer((numbers, ["length"])), estimator)
    encoder = OrdinalEncoder() if name == "CategoricalNB" else OneHotEncoder(handle_unknown="ignore")
    return make_pipeline(make_column_transformer((numbers, NUMBERS), (encoder, WORDS)), estimator)


def _of_people() -> Iterator[Pipeline]:
    digits = datasets.load_digits(as_frame=True)
    for behind, make in (
        ("alone", lambda: svm.SVC(probability=True, random_state=0)),
        ("scaler", lambda: make_pipeline(StandardScaler(), svm.SVC(probability=True, random_state=0))),
    ):
        yield Pipeline(
            "SVC(probability=True) of digits",
            "svm",
            behind,
            make,
            partial(_part_of, digits.data),
            10,
            partial(_part_of, digits.target),
        )
    missing = partial(table, missing=True)
    forest = partial(ensemble.RandomForestClassifier, 20, random_state=0)
    boosting = partial(ensemble.HistGradientBoostingRegressor, max_iter=20)
    kinds: list[tuple[str, Callable[[], Any], int]] = [
        ("HistGradientBoostingClassifier", partial(ensemble.HistGradientBoostingClassifier, max_iter=20), 3),
        ("HistGradientBoostingRegressor", boosting, 0),
        ("RandomForestClassifier", forest, 3),
        ("DecisionTreeClassifier", partial(tree.DecisionTreeClassifier, random_state=0), 3),
        ("RandomForestRegressor", partial(ensemble.RandomForestRegressor, 20, random_state=0), 0),
    ]
    for name, make_one, classes in kinds:
        module = "tree" if "Tree" in name else "ensemble"
        yield Pipeline(f"{name}, missing values", module, "alone", make_one, missing, classes)
    grams = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, stop_words="english", min_df=2)
    yield Pipeline(
        "LogisticRegression of pairs of words",
        "linear_model",
        "TF-IDF",
        lambda: make_pipeline(make_column_transformer((grams, "text")), _logistic()),
        table,
        3,
    )
    yield Pipeline(
        "CalibratedClassifierCV(SVC)", "calibration", "scaler", lambda: _calibrated(svm.SVC(), "sigmoid"), table, 3
    )
    yield Pipeline(
        "CalibratedClassifierCV(GaussianNB, isotonic)",
        "calibration",
        "scaler",
        lambda: _calibrated(naive_bayes.GaussianNB(), "isotonic"),
        table,
        3,
    )
    yield Pipeline(
        "KNeighborsClassifier by distance",
        "neighbors",
        "scaler",
        lambda: make_pipeline(StandardScaler(), neighbors.KNeighborsClassifier(weights="distance")),
        table,
        3,
    )
    yield Pipeline(
        "OneVsRestClassifier(SVC)",
        "multiclass",
        "scaler",
        lambda: make_pipeline(StandardScaler(), multiclass.OneVsRestClassifier(svm.SVC())),
        table,
        3,
    )


def _calibrated(estimator: Any, method: str) -> Any:
    return make_pipeline(StandardScaler(), calibration.CalibratedClassifierCV(estimator, method=method, cv=3))


def _part_of(data: Any, rows: int, seed: int) -> Any:
    """The first rows where the seed is 0, else those that follow."""
    return (data.iloc[:rows] if seed == 0 else data.iloc[TRAINING_ROWS : TRAINING_ROWS + rows]).reset_index(drop=True)


# -- what becomes of them --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What became of a pipeline.

    reason: why it is slower, differs or is refused, in a few words; detail: as it was told.
    labels: how many of the other rows have another label, or a value beyond rounding.
    largest: by how much a probability (or a value, in shares of the estimator's) is off at most.
    seconds: to fit it, and to export, load and try it.
    """

    name: str
    family: str
    behind: str
    outcome: Outcome
    reason: str = ""
    detail: str = ""
    labels: int = 0
    largest: float = 0.0
    seconds: float = 0.0


def measure(chosen: Sequence[Pipeline], tell: Callable[[str], None]) -> list[Result]:
    """What becomes of each.

    Args:
        tell: is called with each result.
    """
    results = []
    for number, pipeline in enumerate(chosen, 1):
        results.append(result := try_pipeline(pipeline))
        why = f": {result.reason}" if result.reason else ""
        tell(f"{number} of {len(chosen)}: {result.name}, {result.behind}: {result.outcome}{why}")
    return results


def try_pipeline(pipeline: Pipeline) -> Result:
    """Fit it, build and load its bundle, and compare both on other rows."""
    began = perf_counter()
    found = partial(Result, pipeline.name, pipeline.family, pipeline.behind)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # of few rounds and of estimators that will go: not what is asked here
        estimator, features, labels = pipeline.fit()
        try:
            build_bundle(Path(folder), _fitted(pipeline, estimator, features, labels))
            bundle = read_bundle(Path(folder))
            predictor = load_predictor(bundle)
            other = pipeline.features(pipeline.data(OTHER_ROWS, 1))
            wrong, largest = compare(served_estimator(estimator), predictor, other, pipeline.task)
        except Exception as error:  # whatever it is, this one is not served
            return found("refused", in_a_few_words(str(error)), str(error), seconds=_seconds(began))
    if wrong or (pipeline.task == "classification" and largest > PROBABILITIES):
        reason = f"{wrong} of {len(other)} rows, probabilities by {largest:.1g} ({bundle.serving})"
        return found("differs", reason, bundle.serving_reason, wrong, largest, _seconds(began))
    if bundle.serving == "skops":
        reason = in_a_few_words(bundle.serving_reason)
        return found("slower", reason, bundle.serving_reason, wrong, largest, _seconds(began))
    return found("ONNX", labels=wrong, largest=largest, seconds=_seconds(began))


def _seconds(began: float) -> float:
    return round(perf_counter() - began, 2)


def _fitted(pipeline: Pipeline, estimator: Any, features: pd.DataFrame, labels: pd.Series) -> FittedModel:
    metric = "accuracy" if pipeline.classes else "mae"
    return FittedModel(estimator, features, labels, pipeline.task, "price", Gate(metric, 0.0))


def compare(estimator: Any, predictor: Predictor, rows: pd.DataFrame, task: Task) -> tuple[int, float]:
    """How the served predictions of some rows differ from the estimator's; some of the rows are also asked one by one.

    Returns:
        how many have another label or a value beyond rounding, and the largest difference of a probability or,
        relatively, of a value.
    """
    plain = plain_rows(rows)
    expected, served = estimator_predictions(estimator, rows), predictor.predict(plain)
    one_by_one = [predictor.predict([row]) for row in plain[:ALONE]]
    wrong, largest = _differences(expected, served, task)
    if first_difference(_first(served), Predictions([item.labels[0] for item in one_by_one], None), task):
        wrong += 1
    return wrong, largest


def _first(predictions: Predictions) -> Predictions:
    return Predictions(predictions.labels[:ALONE], None)


def _differences(expected: Predictions, served: Predictions, task: Task) -> tuple[int, float]:
    if task == "regression":
        pairs = [
            (Predictions([a], None), Predictions([b], None))
            for a, b in zip(expected.labels, served.labels, strict=True)
        ]
        values, others = (np.asarray(side.labels, float) for side in (expected, served))
        shares = np.abs(others - values) / np.maximum(np.abs(values), 1)
        return sum(bool(first_difference(a, b, task)) for a, b in pairs), float(shares.max())
    wrong = sum(a != b for a, b in zip(expected.labels, served.labels, strict=True))
    if expected.probabilities is None:
        return wrong, 0.0
    if served.probabilities is None:
        return len(expected.labels), 1.0
    return wrong, float(np.abs(np.asarray(expected.probabilities) - np.asarray(served.probabilities)).max())


# A reason as it is told, and what a person would say.
WORDS_FOR = {
    r"Unable to find a shape calculator for type '<class '[\w.]*\.(\w+)'>'": r"skl2onnx does not know \1",
    r"Only binary classification is iplemented": "skl2onnx knows it for two classes only",
    r"invalid literal for int": "skl2onnx knows it for labels that are numbers only",
    r"INVALID_ARGUMENT|Type Error": "skl2onnx writes a model that does not run",
    r"the ONNX model differs from the estimator: (.*)": r"its ONNX model differs: \1",
    r"the operator '([\w.]+)', which": r"its ONNX model needs the operator \1",
    r"(?s).*holds the (?:type|function) ([\w.]+), which serving does not load.*": r"\1 is not trusted",
    r"the version would not be served: (.*)": r"\1",
}
MOST = 90  # characters of other reasons


def in_a_few_words(reason: str) -> str:
    """A reason in less than a line."""
    for pattern, said in WORDS_FOR.items():
        if found := re.search(pattern, reason):
            reason = found.expand(said)
            break
    line = reason.strip().partition("\n")[0]
    return line if len(line) <= MOST else line[: MOST - 1] + "…"


# -- the table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Counts of results by outcome."""

    counts: Counter[str]

    @property
    def total(self) -> int:
        """Of all outcomes."""
        return sum(self.counts.values())

    @property
    def served(self) -> int:
        """How many are served, and answer as the estimator does."""
        return self.counts["ONNX"] + self.counts["slower"]

    def sentence(self) -> str:
        """The shares, for people."""
        by_onnx = self.counts["ONNX"] / self.served if self.served else 0.0
        return (
            f"{self.served} of {self.total} pipelines are served ({self.served / max(self.total, 1):.1%}), "
            f"{self.counts['ONNX']} of them by ONNX ({by_onnx:.1%}); {self.counts['differs']} answer differently, "
            f"{self.counts['refused']} are refused."
        )


def summary(results: Sequence[Result]) -> Summary:
    """Counts of results by outcome."""
    return Summary(Counter(result.outcome for result in results))


def by_family(results: Sequence[Result]) -> str:
    """A table: of each module of scikit-learn how many pipelines there are by outcome."""
    families = sorted({result.family for result in results})
    rows = [["family (`sklearn.`)", "ONNX", "slower", "differs", "refused"]]
    for family in families:
        counts: Counter[str] = Counter(result.outcome for result in results if result.family == family)
        rows.append([family, *(str(counts[outcome]) for outcome in rows[0][1:])])
    counts = summary(results).counts
    return markdown([*rows, ["**all**", *(f"**{counts[outcome]}**" for outcome in rows[0][1:])]])


def by_estimator(results: Sequence[Result]) -> str:
    """A table: of each estimator the outcome behind each thing, with the reason where that is not ONNX."""
    cells: dict[str, dict[str, str]] = {}
    for result in results:
        cells.setdefault(result.name, {})[result.behind] = _cell(result)
    rows = [[name.replace("|", "\\|"), *(of.get(behind, "") for behind in BEHIND)] for name, of in cells.items()]
    return markdown([["estimator", *BEHIND], *rows])


def _cell(result: Result) -> str:
    return f"{result.outcome}: {result.reason}".replace("|", "\\|") if result.reason else result.outcome


def not_by_onnx(results: Sequence[Result]) -> str:
    """A list: what ONNX does not serve, and why."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for result in results:
        if result.outcome != "ONNX":
            reasons.setdefault((result.name, result.outcome, result.reason), []).append(result.behind)
    return "\n".join(
        f"- {name} ({'; '.join(behind)}): {outcome}, {reason}" for (name, outcome, reason), behind in reasons.items()
    )


def as_markdown(results: Sequence[Result], machine: dict[str, str]) -> str:
    """The whole report."""
    return "\n\n".join(
        [
            "# Every estimator, and what serves it",
            summary(results).sentence(),
            by_family(results),
            by_estimator(results),
            "## Not by ONNX",
            not_by_onnx(results) or "None.",
            as_text(machine),
        ]
    )


def as_json(results: Sequence[Result], machine: dict[str, str]) -> dict[str, Any]:
    """All results, and the counts."""
    counts = summary(results)
    return {
        "machine": machine,
        "rows": {"training": TRAINING_ROWS, "compared": OTHER_ROWS},
        "pipelines": counts.total,
        "served": counts.served,
        "outcomes": dict(counts.counts),
        "results": [asdict(result) for result in results],
    }
