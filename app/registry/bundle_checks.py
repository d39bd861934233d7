"""Whether what a bundle says of its model fits together; the types of its fields have been checked by then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from app.registry.reference import bucket_shares
from app.vocabulary import NUMERIC, ColumnReference, GoldenRows, NumericReference

if TYPE_CHECKING:
    from app.registry.bundle import Bundle

MAX_FEATURES = 10_000
MAX_CLASSES = 10_000
MAX_NAME = 500  # characters of a feature or class
MAX_BUCKETS = 1_000  # of a column: each is a time series of Prometheus
MAX_CATEGORIES = 1_000  # of a feature that may have no others
MAX_GOLDEN_ROWS = 1_000


def first_problem(bundle: Bundle) -> str:
    """The first thing that does not fit, with the file that it is in; or ""."""
    checks = (_features(bundle), _classes(bundle), _reference(bundle), _golden(bundle, bundle.golden), _example(bundle))
    return next(filter(None, checks), "")


def _features(bundle: Bundle) -> str:
    names = [feature.name for feature in bundle.features]
    if not 0 < len(names) <= MAX_FEATURES:
        return f"MLmodel has {len(names)} features, 1 to {MAX_FEATURES} are served"
    if len(set(names)) != len(names):
        return "MLmodel has two features of one name"
    for feature in bundle.features:
        if not 0 < len(feature.name) <= MAX_NAME:
            return f"MLmodel has a feature whose name has {len(feature.name)} characters, {MAX_NAME} are the most"
        if feature.dtype not in NUMERIC | {"string"}:
            return f"feature {feature.name!r} has the type {feature.dtype!r}, which cannot be served"
        if feature.categories and feature.dtype != "string":
            return f"feature {feature.name!r} has categories, and is no text"
        if len(feature.categories) > MAX_CATEGORIES:
            return f"feature {feature.name!r} has {len(feature.categories)} categories, {MAX_CATEGORIES} are the most"
    return ""


def _classes(bundle: Bundle) -> str:
    count = len(bundle.classes)
    if bundle.task == "classification" and not 0 < count <= MAX_CLASSES:
        return f"MLmodel has {count} classes, 1 to {MAX_CLASSES} are served"
    if bundle.task == "regression" and count:
        return "MLmodel has classes, and is of a regression"
    if any(len(str(label)) > MAX_NAME for label in bundle.classes):
        return f"MLmodel has a class whose name has more than {MAX_NAME} characters"
    return ""


def _reference(bundle: Bundle) -> str:
    reference = bundle.reference
    if reference.features.keys() != {feature.name for feature in bundle.features}:
        return "reference.json has other features than MLmodel"
    for name, column in [*reference.features.items(), (bundle.target, reference.prediction)]:
        problem = _column(column)
        if problem:
            return f"reference.json: {name!r} {problem}"
    for feature in bundle.features:
        if (reference.features[feature.name].missing is not None) != feature.nullable:
            return f"reference.json and MLmodel differ in whether {feature.name!r} may be missing"
    return ""


def _column(column: ColumnReference) -> str:
    if isinstance(column, NumericReference):
        buckets = len(column.edges) + 1
        if sorted(column.edges) != column.edges:
            return "has edges that do not ascend"
    else:
        buckets = len(column.categories)
    if buckets != len(column.shares):
        return f"has {buckets} buckets and {len(column.shares)} shares"
    if buckets > MAX_BUCKETS:
        return f"has {buckets} buckets, {MAX_BUCKETS} are the most"
    if not all(0 <= share <= 1 for share in bucket_shares(column)):
        return "has a share that is not between 0 and 1"
    return ""


def _golden(bundle: Bundle, golden: GoldenRows) -> str:
    rows, width = len(golden.rows), len(bundle.features)
    if not 0 < rows <= MAX_GOLDEN_ROWS:
        return f"golden.json has {rows} rows, 1 to {MAX_GOLDEN_ROWS} are compared"
    if not all(len(row) == width and _are_values(row) for row in golden.rows):
        return f"golden.json has a row that is not {width} values"
    for place, feature in enumerate(bundle.features):
        if not feature.nullable and any(row[place] is None for row in golden.rows):
            return f"golden.json has a row without {feature.name!r}, which may not be missing"
    if len(golden.outputs) != rows:
        return f"golden.json has {rows} rows and {len(golden.outputs)} outputs"
    if bundle.task == "regression" and not all(isinstance(output, int | float) for output in golden.outputs):
        return "golden.json has an output that is no number"
    if bundle.task == "classification" and not set(golden.outputs) <= set(bundle.classes):
        return "golden.json has an output that is none of the classes"
    shares = golden.probabilities
    if shares is not None and (len(shares) != rows or any(len(row) != len(bundle.classes) for row in shares)):
        return f"golden.json has probabilities that are not {rows} rows of {len(bundle.classes)} classes"
    return ""


def _example(bundle: Bundle) -> str:
    if bundle.example.keys() != {feature.name for feature in bundle.features}:
        return "input_example.json has other features than MLmodel"
    return "" if _are_values(bundle.example.values()) else "input_example.json has a value that is a list or an object"


def _are_values(values: Iterable[Any]) -> bool:
    return all(value is None or isinstance(value, bool | int | float | str) for value in values)
