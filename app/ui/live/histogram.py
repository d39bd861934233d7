"""Quantiles of a Prometheus histogram."""

from __future__ import annotations


def quantile(q: float, bounds: list[float], cumulative: list[float]) -> float | None:
    """A quantile from a histogram, linear within its bucket, as PromQL's histogram_quantile gives it.

    Args:
        q: 0 to 1.
        bounds: upper bounds of the buckets, ascending, the last one infinite.
        cumulative: observations up to each bound, same length.

    Returns:
        the value in the unit of the bounds; the largest finite bound where the quantile is above it; None without
        observations.
    """
    total = cumulative[-1] if cumulative else 0.0
    if total <= 0:
        return None
    rank = q * total
    index = next(i for i, count in enumerate(cumulative) if count >= rank)
    if index == len(bounds) - 1:
        return bounds[-2] if len(bounds) > 1 else None
    low, below = (bounds[index - 1], cumulative[index - 1]) if index else (0.0, 0.0)
    inside = cumulative[index] - below
    return low + (bounds[index] - low) * ((rank - below) / inside if inside else 1.0)
