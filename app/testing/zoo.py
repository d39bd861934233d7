"""Usual scikit-learn models of every kind, fitted: what must go on being served, however strict the loader is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn import (
    calibration,
    cluster,
    compose,
    cross_decomposition,
    decomposition,
    discriminant_analysis,
    dummy,
    ensemble,
    feature_extraction,
    feature_selection,
    gaussian_process,
    impute,
    isotonic,
    kernel_approximation,
    kernel_ridge,
    linear_model,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    preprocessing,
    random_projection,
    semi_supervised,
    svm,
    tree,
)
from sklearn.gaussian_process import kernels
from sklearn.pipeline import make_pipeline, make_union

ROWS = 80


def frame() -> pd.DataFrame:
    """Three columns of numbers, one of categories and one of text, shape (80, 5); the same at each call."""
    dice = np.random.default_rng(0)
    words = np.array(["good fast", "bad slow", "good slow thing", "bad fast thing"])
    return pd.DataFrame(
        {
            **{name: dice.normal(size=ROWS) for name in ("a", "b", "c")},
            "kind": dice.choice(["x", "y", "z"], ROWS),
            "text": dice.choice(words, ROWS),
        }
    )


def target(task: str, rows: pd.DataFrame) -> pd.Series:
    """What the models of a task learn from the rows, shape (80,)."""
    score = rows["a"] + (rows["kind"] == "x") + 0.5 * rows["text"].str.startswith("good")
    return score if task == "regression" else pd.Series(np.where(score > score.median(), "high", "low"))


def _scaled(estimator: Any) -> Any:
    return make_pipeline(preprocessing.StandardScaler(), estimator)


def _columns(estimator: Any) -> Any:
    numbers = make_pipeline(impute.SimpleImputer(strategy="median"), preprocessing.StandardScaler())
    words = make_pipeline(
        impute.SimpleImputer(strategy="most_frequent"), preprocessing.OneHotEncoder(handle_unknown="ignore")
    )
    return make_pipeline(
        compose.ColumnTransformer(
            [("numbers", numbers, ["a", "b", "c"]), ("kind", words, ["kind"])], remainder="drop", sparse_threshold=0.3
        ),
        estimator,
    )


def _text(vectorizer: Any, estimator: Any) -> Any:
    return make_pipeline(compose.make_column_transformer((vectorizer, "text")), estimator)


def _selected(estimator: Any) -> Any:
    return make_pipeline(
        compose.make_column_transformer(
            (preprocessing.StandardScaler(), compose.make_column_selector(dtype_include=np.number)),
            (preprocessing.OrdinalEncoder(), ["kind"]),
        ),
        estimator,
    )


NUMBERS = ["a", "b", "c"]
_LOGISTIC = linear_model.LogisticRegression
_TREE = tree.DecisionTreeClassifier
Make = Callable[[], Any]

# On all columns where the name begins with "columns" or "text", else on the three of numbers.
CLASSIFIERS: dict[str, Make] = {
    "logistic": lambda: _scaled(_LOGISTIC()),
    "logistic elastic": lambda: _scaled(_LOGISTIC(solver="saga", l1_ratio=0.5, max_iter=200)),
    "logistic cv": lambda: _scaled(linear_model.LogisticRegressionCV(cv=3, use_legacy_attributes=False)),
    "ridge": lambda: _scaled(linear_model.RidgeClassifierCV()),
    "sgd hinge": lambda: _scaled(linear_model.SGDClassifier(random_state=0)),
    "sgd log": lambda: _scaled(linear_model.SGDClassifier(loss="log_loss", random_state=0)),
    "perceptron": lambda: _scaled(linear_model.Perceptron()),
    "svc": lambda: _scaled(svm.SVC()),
    "svc poly": lambda: _scaled(svm.NuSVC(kernel="poly")),
    "linear svc": lambda: _scaled(svm.LinearSVC()),
    "tree": lambda: _TREE(random_state=0),
    "forest": lambda: ensemble.RandomForestClassifier(10, random_state=0),
    "extra trees": lambda: ensemble.ExtraTreesClassifier(10, random_state=np.random.RandomState(0)),
    "gradient boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=5, random_state=0),
    "hist gradient boosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=5, random_state=0),
    "ada boost": lambda: ensemble.AdaBoostClassifier(_TREE(max_depth=1), n_estimators=5, random_state=0),
    "bagging": lambda: ensemble.BaggingClassifier(neighbors.KNeighborsClassifier(), 3, random_state=0),
    "voting": lambda: ensemble.VotingClassifier([("l", _LOGISTIC()), ("t", _TREE())], voting="soft"),
    "stacking": lambda: ensemble.StackingClassifier(
        [("l", _LOGISTIC()), ("f", ensemble.RandomForestClassifier(3, random_state=0)), ("s", svm.SVC())], cv=3
    ),
    "knn": lambda: neighbors.KNeighborsClassifier(),
    "knn kd tree": lambda: neighbors.KNeighborsClassifier(algorithm="kd_tree", metric="manhattan"),
    "knn ball tree": lambda: neighbors.KNeighborsClassifier(algorithm="ball_tree", metric="minkowski", p=3),
    "radius neighbors": lambda: neighbors.RadiusNeighborsClassifier(5.0),
    "nearest centroid": lambda: neighbors.NearestCentroid(),
    "gaussian process": lambda: gaussian_process.GaussianProcessClassifier(1.0 * kernels.RBF(1.0)),
    "mlp": lambda: _scaled(neural_network.MLPClassifier((5,), max_iter=30, random_state=0)),
    "mlp tanh": lambda: neural_network.MLPClassifier((5,), activation="tanh", max_iter=30, random_state=0),
    "gaussian nb": lambda: naive_bayes.GaussianNB(),
    "bernoulli nb": lambda: make_pipeline(preprocessing.Binarizer(), naive_bayes.BernoulliNB()),
    "multinomial nb": lambda: make_pipeline(preprocessing.MinMaxScaler(clip=True), naive_bayes.MultinomialNB()),
    "lda": lambda: discriminant_analysis.LinearDiscriminantAnalysis(),
    "qda": lambda: discriminant_analysis.QuadraticDiscriminantAnalysis(),
    "calibrated": lambda: calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=3),
    "calibrated svc": lambda: calibration.CalibratedClassifierCV(svm.SVC(), cv=3),
    "calibrated isotonic": lambda: calibration.CalibratedClassifierCV(
        naive_bayes.GaussianNB(), method="isotonic", cv=3
    ),
    "grid search": lambda: model_selection.GridSearchCV(
        _scaled(_LOGISTIC()), {"logisticregression__C": [0.1, 1.0]}, cv=3
    ),
    "random search": lambda: model_selection.RandomizedSearchCV(
        _TREE(random_state=0), {"max_depth": [1, 2]}, n_iter=2, cv=3, scoring="f1_macro", random_state=0
    ),
    "threshold": lambda: model_selection.FixedThresholdClassifier(
        _LOGISTIC(), threshold=0.4, response_method="predict_proba", pos_label="high"
    ),
    "one vs rest": lambda: multiclass.OneVsRestClassifier(_LOGISTIC()),
    "one vs one": lambda: multiclass.OneVsOneClassifier(svm.LinearSVC()),
    "self training": lambda: semi_supervised.SelfTrainingClassifier(_LOGISTIC()),
    "label propagation": lambda: semi_supervised.LabelPropagation(max_iter=2000),
    "dummy": lambda: dummy.DummyClassifier(),
    "pca": lambda: make_pipeline(preprocessing.RobustScaler(), decomposition.PCA(2), _LOGISTIC()),
    "k means": lambda: make_pipeline(cluster.KMeans(3, random_state=0), _LOGISTIC()),
    "normalizer": lambda: make_pipeline(preprocessing.Normalizer(), _LOGISTIC()),
    "kernel pca": lambda: make_pipeline(decomposition.KernelPCA(2, kernel="rbf"), _LOGISTIC()),
    "fast ica": lambda: make_pipeline(decomposition.FastICA(2, random_state=0), _LOGISTIC()),
    "union": lambda: make_pipeline(make_union(decomposition.PCA(1), preprocessing.SplineTransformer()), _LOGISTIC()),
    "nystroem": lambda: make_pipeline(kernel_approximation.Nystroem(n_components=5, random_state=0), _LOGISTIC()),
    "projection": lambda: make_pipeline(
        random_projection.SparseRandomProjection(2, random_state=0, density=0.5), _LOGISTIC()
    ),
    "select k best": lambda: make_pipeline(feature_selection.SelectFromModel(_TREE(random_state=0)), _LOGISTIC()),
    "select by score": lambda: make_pipeline(feature_selection.SelectKBest(k=2), _LOGISTIC()),
    "select by percentile": lambda: make_pipeline(
        feature_selection.SelectPercentile(feature_selection.mutual_info_classif, percentile=50), _LOGISTIC()
    ),
    "rfe": lambda: make_pipeline(feature_selection.RFE(_LOGISTIC(), n_features_to_select=2), _LOGISTIC()),
    "variance": lambda: make_pipeline(feature_selection.VarianceThreshold(), _LOGISTIC()),
    "bins": lambda: make_pipeline(
        preprocessing.KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"), _LOGISTIC()
    ),
    "quantiles": lambda: make_pipeline(preprocessing.QuantileTransformer(n_quantiles=10), _LOGISTIC()),
    "power": lambda: make_pipeline(preprocessing.PowerTransformer(), _LOGISTIC()),
    "knn imputer": lambda: make_pipeline(impute.KNNImputer(add_indicator=True), _LOGISTIC()),
    "numpy function": lambda: make_pipeline(preprocessing.FunctionTransformer(np.tanh), _LOGISTIC()),
    "columns, logistic": lambda: _columns(_LOGISTIC()),
    "columns, one hot": lambda: make_pipeline(
        compose.make_column_transformer((preprocessing.OneHotEncoder(), ["kind"])), _LOGISTIC()
    ),
    "columns, forest": lambda: _columns(ensemble.RandomForestClassifier(5, random_state=0)),
    "columns, selector": lambda: _selected(_LOGISTIC()),
    "columns, target encoder": lambda: make_pipeline(
        compose.make_column_transformer((preprocessing.TargetEncoder(random_state=0), ["kind"])), _LOGISTIC()
    ),
    "columns, hist gradient boosting": lambda: make_pipeline(
        compose.make_column_transformer((preprocessing.OrdinalEncoder(), ["kind"]), remainder="passthrough"),
        compose.ColumnTransformer([("all", "passthrough", [0, 1, 2, 3])]),
        ensemble.HistGradientBoostingClassifier(max_iter=3, categorical_features=[0]),
    ),
    "text, tfidf": lambda: _text(feature_extraction.text.TfidfVectorizer(), _LOGISTIC()),
    "text, stop words": lambda: _text(
        feature_extraction.text.TfidfVectorizer(stop_words="english", ngram_range=(1, 2), sublinear_tf=True),
        naive_bayes.ComplementNB(),
    ),
    "text, characters": lambda: _text(
        feature_extraction.text.CountVectorizer(analyzer="char_wb", ngram_range=(2, 3)),
        make_pipeline(decomposition.TruncatedSVD(2, random_state=0), _LOGISTIC()),
    ),
    "text, hashing": lambda: _text(
        feature_extraction.text.HashingVectorizer(n_features=32), linear_model.SGDClassifier()
    ),
}
REGRESSORS: dict[str, Make] = {
    "linear": lambda: _scaled(linear_model.LinearRegression()),
    "ridge": lambda: _scaled(linear_model.RidgeCV()),
    "lasso": lambda: _scaled(linear_model.LassoCV(cv=3)),
    "elastic net": lambda: _scaled(linear_model.ElasticNet(0.01)),
    "bayesian": lambda: linear_model.BayesianRidge(),
    "huber": lambda: linear_model.HuberRegressor(),
    "quantile": lambda: linear_model.QuantileRegressor(),
    "theil sen": lambda: linear_model.TheilSenRegressor(random_state=0),
    "ransac": lambda: linear_model.RANSACRegressor(random_state=0),
    "tweedie": lambda: linear_model.TweedieRegressor(power=0),
    "sgd": lambda: _scaled(linear_model.SGDRegressor(loss="huber", random_state=0)),
    "svr": lambda: _scaled(svm.SVR()),
    "kernel ridge": lambda: kernel_ridge.KernelRidge(kernel="rbf"),
    "polynomial": lambda: make_pipeline(preprocessing.PolynomialFeatures(2), linear_model.Ridge()),
    "tree": lambda: tree.ExtraTreeRegressor(random_state=0),
    "forest": lambda: ensemble.RandomForestRegressor(10, random_state=0),
    "gradient boosting": lambda: ensemble.GradientBoostingRegressor(n_estimators=5, loss="huber", random_state=0),
    "hist gradient boosting": lambda: ensemble.HistGradientBoostingRegressor(max_iter=5, loss="absolute_error"),
    "hist poisson": lambda: compose.TransformedTargetRegressor(
        ensemble.HistGradientBoostingRegressor(max_iter=5, loss="poisson"), func=np.exp, inverse_func=np.log
    ),
    "ada boost": lambda: ensemble.AdaBoostRegressor(n_estimators=5, random_state=0),
    "voting": lambda: ensemble.VotingRegressor([("l", linear_model.Ridge()), ("t", tree.DecisionTreeRegressor())]),
    "stacking": lambda: ensemble.StackingRegressor(
        [("l", linear_model.Ridge()), ("k", neighbors.KNeighborsRegressor())]
    ),
    "knn": lambda: neighbors.KNeighborsRegressor(weights="distance"),
    "gaussian process": lambda: gaussian_process.GaussianProcessRegressor(
        kernels.ConstantKernel() * kernels.Matern(nu=1.5)
        + kernels.WhiteKernel()
        + kernels.RationalQuadratic() ** 2
        + kernels.DotProduct(),
        optimizer=None,
    ),
    "mlp": lambda: _scaled(
        neural_network.MLPRegressor(hidden_layer_sizes=(5,), max_iter=30, early_stopping=True, random_state=0)
    ),
    "pls": lambda: cross_decomposition.PLSRegression(2),
    "isotonic": lambda: make_pipeline(
        compose.make_column_transformer(("passthrough", ["a"])), isotonic.IsotonicRegression(out_of_bounds="clip")
    ),
    "transformed target": lambda: compose.TransformedTargetRegressor(
        linear_model.Ridge(), transformer=preprocessing.QuantileTransformer(n_quantiles=10)
    ),
    "grid search": lambda: model_selection.GridSearchCV(linear_model.Ridge(), {"alpha": [1, 2]}, scoring="r2"),
    "chain": lambda: multioutput.RegressorChain(linear_model.Ridge()),
    "columns, ridge": lambda: _columns(linear_model.Ridge()),
}
OUTLIERS: dict[str, Make] = {
    "isolation forest": lambda: ensemble.IsolationForest(n_estimators=10, random_state=0),
    "one class svm": lambda: svm.OneClassSVM(),
    "local outlier factor": lambda: neighbors.LocalOutlierFactor(novelty=True),
}
ZOO = {
    **{f"classification: {name}": make for name, make in CLASSIFIERS.items()},
    **{f"regression: {name}": make for name, make in REGRESSORS.items()},
    **{f"outliers: {name}": make for name, make in OUTLIERS.items()},
}


@cache
def fitted(name: str) -> tuple[Any, pd.DataFrame]:
    """The model of this name of ZOO, fitted, and the rows that it was fitted on; not to be changed."""
    task, _, what = name.partition(": ")
    rows = frame()
    labels: Any = target(task, rows)
    features = rows if what.startswith(("columns", "text")) else rows[NUMBERS]
    if what == "chain":
        labels = np.column_stack([labels, labels * 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of models that were given few rounds, to be quick
        return ZOO[name]().fit(features, labels), features
