"""Reference statistics of training data, and drift from them: the population stability index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from app.dates import Precision, shown
from app.vocabulary import CategoricalReference, ColumnReference, Dtype, NumericReference

BUCKETS = 10
CATEGORIES = 20
OTHER, MISSING = "(other)", "(missing)"
# A bucket that is empty on one side would make the index infinite.
SHARE_FLOOR = 1e-4


def numeric_reference(
    values: Sequence[float | None] | np.ndarray, dtype: Dtype, nullable: bool = False
) -> NumericReference:
    """Buckets by deciles of one numeric feature.

    Args:
        values: numbers, shape (n_rows,), one of them finite at least; None and NaN are missing ones.
        dtype: the signature's name of the type, such as "double".
        nullable: whether values may be missing.

    Returns:
        the reference, with at most 9 edges.
    """
    all_values = np.asarray(values, dtype=np.float64)
    column = all_values[~np.isnan(all_values)]
    edges = np.unique(np.quantile(column, np.linspace(0, 1, BUCKETS + 1)[1:-1]))
    edges = edges[edges < column.max()]
    counts = np.bincount(np.searchsorted(edges, column, side="left"), minlength=len(edges) + 1)
    return NumericReference(
        dtype=dtype,
        min=float(column.min()),
        max=float(column.max()),
        median=float(np.median(column)),
        edges=edges.tolist(),
        shares=(counts / len(all_values)).tolist(),
        missing=1 - len(column) / len(all_values) if nullable else None,
    )


def categorical_reference(
    values: Sequence[Any] | np.ndarray, dtype: Dtype, nullable: bool = False
) -> CategoricalReference:
    """The commonest categories of one feature (or of the labels) and their shares.

    Args:
        values: shape (n_rows,), one of them a value at least; None and NaN are missing ones.
        nullable: whether values may be missing.

    Returns:
        the reference, with up to 20 categories, commonest first, and then "(other)".
    """
    texts = [str(value) for value in values if not is_missing(value)]
    names, counts = np.unique(np.asarray(texts), return_counts=True)
    order = np.lexsort((names, -counts))[:CATEGORIES]
    kept = counts[order] / len(values)
    return CategoricalReference(
        dtype=dtype,
        categories=[*names[order].tolist(), OTHER],
        shares=[*kept.tolist(), float(max(0.0, len(texts) / len(values) - kept.sum()))],
        missing=1 - len(texts) / len(values) if nullable else None,
    )


def is_missing(value: Any) -> bool:
    """Whether a value is None or NaN."""
    return value is None or value != value


def bucket_shares(reference: ColumnReference) -> list[float]:
    """The share of the training rows in each bucket; the last one is of missing values, where there may be some."""
    return reference.shares if reference.missing is None else [*reference.shares, reference.missing]


def bucket_labels(reference: ColumnReference) -> list[str]:
    """A readable name for each bucket, in order: "<= 5.1", ..., "> 6.9", or the categories; "(missing)" at the end.

    The edges of a datetime are dates: "<= 2026-03-01".
    """
    missing = [] if reference.missing is None else [MISSING]
    if isinstance(reference, CategoricalReference):
        return [*reference.categories, *missing]
    for edges in _texts_of_edges(reference):
        if len(set(edges)) == len(edges):
            break
    return [*(f"<= {edge}" for edge in edges), f"> {edges[-1]}" if edges else "all", *missing]


def _texts_of_edges(reference: NumericReference) -> Iterator[list[str]]:
    """The edges as texts, each time more exactly; the last ones differ where the edges do."""
    if reference.dtype == "datetime":
        precisions: tuple[Precision, ...] = ("days", "minutes", "seconds", "microseconds")
        yield from ([shown(edge, precision) for edge in reference.edges] for precision in precisions)
    for digits in range(6, 18):  # 17 tell any two floats apart
        yield [f"{edge:.{digits}g}" for edge in reference.edges]


def bucket_counts(reference: ColumnReference, values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """How many values of one column fall into each bucket; text that no bucket has falls into "(other)".

    Args:
        values: shape (n_rows,); None and NaN are missing ones, where the column may have some.

    Returns:
        whole numbers, shape (n_buckets,).
    """
    if reference.missing is not None:
        return _counts_with_missing(reference, values)
    size = len(reference.shares)
    if isinstance(reference, CategoricalReference):
        places = {name: place for place, name in enumerate(reference.categories)}
        counts = np.zeros(size, dtype=np.int64)
        for value, count in Counter(map(str, values)).items():
            counts[places.get(value, size - 1)] += count
        return counts
    column = np.asarray(values, dtype=np.float64)
    return np.bincount(np.searchsorted(reference.edges, column, side="left"), minlength=size)


def _counts_with_missing(reference: ColumnReference, values: Sequence[Any] | np.ndarray) -> np.ndarray:
    there: Sequence[Any] | np.ndarray
    if isinstance(reference, CategoricalReference):
        there = [value for value in values if not is_missing(value)]
    else:
        column = np.asarray(values, dtype=np.float64)
        there = column[~np.isnan(column)]
    return np.append(bucket_counts(replace(reference, missing=None), there), len(values) - len(there))


def psi(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Population stability index: sum over buckets of (a - e) * ln(a / e).

    Shares below 1e-4 count as 1e-4. Below 0.1 is commonly read as stable, above 0.25 as shifted.
    Source: Siddiqi, Credit Risk Scorecards (2006), ch. 6.

    Args:
        expected, actual: shares or counts per bucket, same length; each is normalised to sum 1.

    Raises:
        ValueError: lengths differ, something is negative or not finite, or one side sums to 0.
    """
    e, a = np.asarray(expected, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    if e.shape != a.shape or e.ndim != 1 or e.size == 0:
        raise ValueError(f"one share per bucket is needed on both sides, got shapes {e.shape} and {a.shape}")
    for name, shares in (("expected", e), ("actual", a)):
        if not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
            raise ValueError(f"{name} shares must be finite, not negative and not all 0: {shares.tolist()}")
    e, a = np.maximum(e / e.sum(), SHARE_FLOOR), np.maximum(a / a.sum(), SHARE_FLOOR)
    return float(((a - e) * np.log(a / e)).sum())
