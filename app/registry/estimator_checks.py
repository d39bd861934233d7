"""What a loaded estimator may not say, though its types are trusted.

Some attributes name a method to call or a folder to write; others are positions in arrays, which scikit-learn's
compiled code takes without a look, so that a wrong one reads foreign memory or ends the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

METHODS = {"auto", "predict", "predict_proba", "predict_log_proba", "decision_function", "transform"}
MAX_THREADS = 64


def _is_method(value: Any) -> bool:
    names = value if isinstance(value, list | tuple) else [value]
    return all(name is None or (isinstance(name, str) and name in METHODS) for name in names)


# attribute -> what it may be. Methods are called with the rows that are to be predicted.
ATTRIBUTES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "memory": (lambda value: value is None, "None: a served model keeps no cache on disk"),
    "input": (lambda value: isinstance(value, str) and value == "content", "'content': a served model opens no files"),
    "importance_getter": (lambda value: isinstance(value, str) and "__" not in value, "the name of an attribute"),
    "n_jobs": (
        lambda value: value is None or (isinstance(value, int) and -MAX_THREADS <= value <= MAX_THREADS),
        f"None or at most {MAX_THREADS}",
    ),
    **{
        name: (_is_method, "a way to predict: " + ", ".join(sorted(METHODS)))
        for name in ("stack_method", "stack_method_", "response_method", "chain_method", "chain_method_")
    },
}


def check_estimator(estimator: Any) -> str:
    """What is wrong with a loaded estimator, or ""."""
    for item, features in _parts(estimator):
        name = type(item).__name__
        for attribute, value in _attributes(item).items():
            if attribute in ATTRIBUTES and not ATTRIBUTES[attribute][0](value):
                return (
                    f"the attribute {attribute} of {name} in it is {value!r}; it has to be {ATTRIBUTES[attribute][1]}"
                )
        if name in _POSITIONS and _is_fitted(item) and not _sound(_POSITIONS[name], item, features):
            return f"a {name} in it refers to positions outside its own arrays"
    return ""


def _is_fitted(item: Any) -> bool:
    """Whether it can predict: estimators also keep the unfitted ones that they made theirs of."""
    fitted = _FITTED.get(type(item).__name__)
    return fitted is None or fitted in _attributes(item)


def _sound(check: Callable[[Any, int], bool], item: Any, features: int) -> bool:
    try:
        return check(item, features)
    except (AttributeError, TypeError, ValueError, IndexError, KeyError):
        return False


def _attributes(item: Any) -> dict[str, Any]:
    return item.__dict__ if hasattr(item, "__dict__") and isinstance(item.__dict__, dict) else {}


def _parts(root: Any) -> Iterator[tuple[Any, int]]:
    """All that the estimator is made of, each once, with the number of features of what it is a part of."""
    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(root, 0)]
    while waiting:
        item, features = waiting.pop()
        if id(item) in seen or isinstance(item, str | bytes | int | float | type(None)):
            continue
        seen.add(id(item))
        attributes = _attributes(item)
        count = attributes.get("n_features_in_", features)
        features = count if isinstance(count, int) else 0
        yield item, features
        inner: list[Any] = list(attributes.values())
        if isinstance(item, dict):
            inner += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set):
            inner += item
        elif isinstance(item, np.ndarray) and item.dtype == object:
            inner += item.ravel().tolist()
        elif isinstance(item, partial):
            inner += [item.func, *item.args, *item.keywords.values()]
        waiting.extend((part, features) for part in inner)


# -- positions -------------------------------------------------------------------------------------------------------


def _children_follow(children: np.ndarray, own: np.ndarray, count: int) -> bool:
    """Whether children come after their parents, which also means that there is no way round in circles."""
    return bool(np.all((children > own) & (children < count)))


def _tree(item: Any, features: int) -> bool:
    left, right, count = item.children_left, item.children_right, item.node_count
    inner = np.flatnonzero(left != -1)
    return (
        count == len(left) == len(item.value) > 0
        and item.n_features == features
        and _children_follow(left[inner], inner, count)
        and _children_follow(right[inner], inner, count)
        and bool(np.all((item.feature[inner] >= 0) & (item.feature[inner] < features)))
    )


def _tree_predictor(item: Any, features: int) -> bool:
    nodes = item.nodes
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    chosen = nodes[inner]
    by_category = chosen[chosen["is_categorical"] != 0]
    return (
        nodes.ndim == 1
        and len(nodes) > 0
        and _children_follow(chosen["left"].astype(np.int64), inner, len(nodes))
        and _children_follow(chosen["right"].astype(np.int64), inner, len(nodes))
        and bool(np.all((chosen["feature_idx"] >= 0) & (chosen["feature_idx"] < features)))
        and bool(np.all(by_category["bitset_idx"] < len(item.raw_left_cat_bitsets)))
        and item.raw_left_cat_bitsets.ndim == 2
        and item.raw_left_cat_bitsets.shape[1] == 8
    )


def _neighbours(item: Any, features: int) -> bool:
    data, order, nodes, bounds = item.get_arrays()
    rows = len(data)
    return (
        data.shape[1] == features
        and len(order) == rows
        and bool(np.all((order >= 0) & (order < rows)))
        and bool(np.all((nodes["idx_start"] >= 0) & (nodes["idx_start"] <= nodes["idx_end"])))
        and bool(np.all(nodes["idx_end"] <= rows))
        and bounds.shape[1:] == (len(nodes), features)
    )


def _support_vectors(item: Any, features: int) -> bool:
    vectors = item.support_vectors_
    classes = len(item._n_support)
    return (
        vectors.shape[1] in (features, 0)
        and bool(np.all(item._n_support >= 0))
        and int(item._n_support.sum()) in (vectors.shape[0], 2 * vectors.shape[0])
        and item._dual_coef_.shape[0] == max(classes - 1, 1)
        and item._dual_coef_.shape[1] == len(item.support_)
    )


def _forest(item: Any, features: int) -> bool:
    """The trees of a forest get its rows unchecked: each has to be for as many features."""
    columns = getattr(item, "estimators_features_", None)
    trees = np.asarray(item.estimators_, dtype=object).ravel()
    counts = [features] * len(trees) if columns is None else [len(part) for part in columns]
    return len(counts) == len(trees) and all(
        tree.tree_.n_features == count for tree, count in zip(trees, counts, strict=True)
    )


def _boosting(item: Any, features: int) -> bool:
    return bool(item.estimators_.shape[1] == item.n_trees_per_iteration_) and _forest(item, features)


_SUPPORT_VECTORS = ("SVC", "NuSVC", "SVR", "NuSVR", "OneClassSVM")
_FORESTS = ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor")
_BOOSTED = ("GradientBoostingClassifier", "GradientBoostingRegressor")
_POSITIONS: dict[str, Callable[[Any, int], bool]] = {
    "Tree": _tree,
    "TreePredictor": _tree_predictor,
    **dict.fromkeys((*_FORESTS, "RandomTreesEmbedding", "IsolationForest"), _forest),
    **dict.fromkeys(_BOOSTED, _boosting),
    **dict.fromkeys(("KDTree", "KDTree32", "KDTree64", "BallTree", "BallTree32", "BallTree64"), _neighbours),
    **dict.fromkeys(_SUPPORT_VECTORS, _support_vectors),
}
# The attribute that says that an estimator is fitted; the others have no other state.
_FITTED = {
    **dict.fromkeys(_SUPPORT_VECTORS, "support_vectors_"),
    **dict.fromkeys((*_FORESTS, "RandomTreesEmbedding", "IsolationForest", *_BOOSTED), "estimators_"),
}
