"""Drift of what is asked from what was trained on, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.registry.reference import psi

MODERATE, STRONG = 0.1, 0.25
# Chance alone gives a PSI of about (buckets - 1) / rows: 0.18 for ten buckets and 50 rows, which would read as drift.
MIN_ROWS = 200


@dataclass(frozen=True)
class Drift:
    """psi: None where it cannot be told. verdict: stable, moderate, strong, too few, or unknown."""

    feature: str
    psi: float | None
    rows: int
    verdict: str


def judge(
    feature: str,
    reference: Sequence[float],
    counts: Sequence[float],
    recorded: float | None = None,
    min_rows: int = MIN_ROWS,
) -> Drift:
    """Compare one feature's rows per bucket with the training data's shares.

    Args:
        reference: share of the training rows per bucket.
        counts: rows per bucket, same length.
        recorded: the PSI where somebody has worked it out, and so judged the rows to be enough.
        min_rows: from how many rows on drift is judged.
    """
    rows = round(sum(counts))
    try:
        value = recorded if recorded is not None else psi(reference, counts) if rows else None
    except ValueError:
        return Drift(feature, None, rows, "unknown")
    if value is None or (rows < min_rows and recorded is None):
        return Drift(feature, value, rows, "too few")
    return Drift(feature, value, rows, "stable" if value < MODERATE else "moderate" if value < STRONG else "strong")
