"""The series of the model API as numbers, and the quantiles of a histogram."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Labels = dict[str, str]


@dataclass(frozen=True)
class Sample:
    """All of the API's own series at one moment, by name: pairs of labels and value. `time` in seconds since 1970."""

    time: float
    series: dict[str, list[tuple[Labels, float]]] = field(default_factory=dict)

    def of(self, name: str, **labels: str) -> list[tuple[Labels, float]]:
        """The series of this name with these labels."""
        wanted = labels.items()
        return [(found, value) for found, value in self.series.get(name, []) if wanted <= found.items()]

    def value(self, name: str, **labels: str) -> float:
        """The sum of these series, 0 where there are none."""
        return sum(value for _, value in self.of(name, **labels))


def read(text: str, time: float) -> Sample:
    """Read Prometheus' text format.

    Raises:
        ValueError: this is not the text of the model API.
    """
    sample = Sample(time)
    for family in text_string_to_metric_families(text):
        for point in family.samples:
            if point.name.startswith(("mlops_", "process_start_time")):
                sample.series.setdefault(point.name, []).append((point.labels, point.value))
    if "mlops_registry_up" not in sample.series:
        raise ValueError("it has no series mlops_registry_up")
    return sample


def quantile(q: float, bounds: list[float], cumulative: list[float]) -> float | None:
    """A quantile from a histogram, linear within its bucket, as PromQL's histogram_quantile gives it.

    Args:
        q: 0 to 1.
        bounds: upper bounds, ascending, the last one infinite.
        cumulative: observations up to each bound.

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
