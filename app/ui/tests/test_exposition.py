from __future__ import annotations

import math

import pytest

from app.ui.exposition import quantile, read

TEXT = """
# TYPE mlops_registry_up gauge
mlops_registry_up 1.0
# TYPE mlops_requests counter
mlops_requests_total{model="a\\"b",version="1",status="200"} 3.0
mlops_requests_total{model="a\\"b",version="2",status="422"} 4.0
# TYPE other gauge
other 5.0
"""


def test_read_keeps_labels_and_values() -> None:
    sample = read(TEXT, 12.0)
    assert sample.time == 12.0
    assert sample.value("mlops_requests_total", model='a"b') == 7.0
    assert sample.of("mlops_requests_total", version="2") == [({"model": 'a"b', "version": "2", "status": "422"}, 4.0)]
    assert sample.of("mlops_requests_total", version="9") == []
    assert "other" not in sample.series


@pytest.mark.parametrize("text", ["", "up 1\n", "<html><body>no</body></html>", 'mlops_registry_up{a="1 2\n'])
def test_what_is_not_the_api_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(text, 0.0)


BOUNDS = [0.001, 0.01, math.inf]


@pytest.mark.parametrize(
    ("q", "cumulative", "value"),
    [
        (0.5, [10.0, 10.0, 10.0], 0.0005),
        (0.5, [0.0, 10.0, 10.0], 0.0055),
        (0.99, [50.0, 100.0, 100.0], 0.001 + 0.009 * 49 / 50),
        (0.99, [0.0, 0.0, 10.0], 0.01),  # above every finite bound
        (0.5, [0.0, 0.0, 0.0], None),
    ],
)
def test_quantile_is_linear_within_a_bucket(q: float, cumulative: list[float], value: float | None) -> None:
    assert quantile(q, BOUNDS, cumulative) == (None if value is None else pytest.approx(value))


def test_quantile_of_nothing() -> None:
    assert quantile(0.5, [], []) is None
