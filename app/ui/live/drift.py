"""How far the rows of requests are from the training data, feature by feature, and what that means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.registry.reference import psi

Verdict = Literal["stable", "moderate", "strong", "too few", "unknown"]

MODERATE, STRONG = 0.1, 0.25  # PSI from which on drift has these verdicts
# Chance alone gives a PSI of about (buckets - 1) / rows: 0.18 for ten buckets and 50 rows, which would read as drift.
MIN_ROWS = 200


@dataclass(frozen=True)
class Drift:
    """The drift of one feature.

    psi: the population stability index, None where it cannot be computed; rows: how many it is of;
    verdict: "too few" where there are not enough rows to judge, "unknown" where the numbers make no sense.
    """

    feature: str
    psi: float | None
    rows: int
    verdict: Verdict


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
        recorded: the PSI that a recording rule has computed, for which the rows were enough then.
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
