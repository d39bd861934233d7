from __future__ import annotations

import pytest

from app.ui.live.exposition import parse_metrics

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
    series = parse_metrics(TEXT, 12.0)
    assert series.time == 12.0
    assert series.total("mlops_requests_total", model='a"b') == 7.0
    assert series.select("mlops_requests_total", version="2") == [
        ({"model": 'a"b', "version": "2", "status": "422"}, 4.0)
    ]
    assert series.select("mlops_requests_total", version="9") == []
    assert "other" not in series.by_name


@pytest.mark.parametrize("text", ["", "up 1\n", "<html><body>no</body></html>", 'mlops_registry_up{a="1 2\n'])
def test_what_is_not_the_api_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_metrics(text, 0.0)
