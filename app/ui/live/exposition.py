"""The model API's own series as numbers, read from Prometheus' text format (the exposition format)."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Labels = dict[str, str]


@dataclass(frozen=True)
class MetricSeries:
    """All of the API's own series at one moment.

    time: seconds since 1970; by_name: pairs of labels and value, by the name of the metric.
    """

    time: float
    by_name: dict[str, list[tuple[Labels, float]]] = field(default_factory=dict)

    def select(self, name: str, **labels: str) -> list[tuple[Labels, float]]:
        """The series of this name with these labels."""
        return [
            (own_labels, value)
            for own_labels, value in self.by_name.get(name, [])
            if labels.items() <= own_labels.items()
        ]

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series of this name with these labels, 0 where there are none."""
        return sum(value for _, value in self.select(name, **labels))


def parse_metrics(text: str, time: float) -> MetricSeries:
    """Parse the text of /metrics.

    Raises:
        ValueError: this is not the text of the model API.
    """
    series = MetricSeries(time)
    for family in text_string_to_metric_families(text):
        for point in family.samples:
            if point.name.startswith(("mlops_", "process_start_time")):
                series.by_name.setdefault(point.name, []).append((point.labels, point.value))
    if "mlops_registry_up" not in series.by_name:
        raise ValueError("it has no series mlops_registry_up")
    return series
