from __future__ import annotations

from itertools import count

import pytest

from app.clients.errors import ServiceError
from app.clients.model_api import ModelApiClient
from app.ui.live.api_source import KEPT, ApiSource
from app.ui.live.data import FeedbackSummary, RequestWindow, Snapshot, Traffic
from app.ui.live.exposition import MetricSeries

START = 1000.0


def text(ok: int, failed: int = 0, slow: int = 0, more: dict[str, float] | None = None) -> str:
    """/metrics of one model: `ok` fast requests, `failed` fast ones with 422, and how many of them were slow."""
    of = 'model="iris",version="2"'
    total = ok + failed
    lines = [
        "mlops_registry_up 1",
        "process_start_time_seconds 500",
        f'mlops_model_info{{{of},run_id="r",serving="onnx"}} 1',
        f'mlops_requests_total{{{of},status="200"}} {ok}',
        f'mlops_requests_total{{{of},status="422"}} {failed}',
        f'mlops_request_duration_seconds_bucket{{{of},le="0.001"}} {total - slow}',
        f'mlops_request_duration_seconds_bucket{{{of},le="0.1"}} {total}',
        f'mlops_request_duration_seconds_bucket{{{of},le="+Inf"}} {total}',
        f'mlops_predictions_total{{{of},label="setosa"}} {ok}',
        f'mlops_prediction_reference_share{{{of},label="setosa"}} 0.25',
        f'mlops_prediction_reference_share{{{of},label="virginica"}} 0.75',
    ]
    for bucket, (rows, share) in enumerate(((ok, 0.5), (0, 0.5))):
        lines.append(f'mlops_feature_bucket_total{{{of},feature="petal",bucket="{bucket}"}} {rows}')
        lines.append(f'mlops_feature_reference_share{{{of},feature="petal",bucket="{bucket}"}} {share}')
    return "\n".join([*lines, *(f"{name} {value}" for name, value in (more or {}).items())]) + "\n"


class Api(ModelApiClient):
    """Gives the texts one after the other."""

    def __init__(self, *texts: str) -> None:
        super().__init__("http://api")
        self.texts = list(texts)

    def metrics(self) -> str:
        return self.texts.pop(0)


class Made(ApiSource):
    """Gives its last snapshot, which must be there."""

    @property
    def last(self) -> Snapshot:
        assert self.snapshot
        return self.snapshot


def source(*texts: str, every: float = 2.0) -> Made:
    times = count(START, every)
    made = Made(Api(*texts), clock=lambda: next(times))
    for _ in texts:
        made.refresh()
    return made


def traffic(*texts: str, every: float = 2.0) -> Traffic:
    return source(*texts, every=every).last.traffic["iris"]


def rates(result: Traffic) -> list[float]:
    return [requests.per_minute(requests.count) for _, requests in result.points]


def of_last_minute(result: Traffic) -> RequestWindow:
    assert result.last_minute
    return result.last_minute


def test_rates_come_from_what_was_added() -> None:
    result = traffic(text(100), text(110), text(130, 10))
    assert rates(result) == [300.0, 900.0]
    assert [at for at, _ in result.points] == [START + 2, START + 4]
    now = of_last_minute(result)
    assert now.per_minute(now.count) == 600.0
    assert now.statuses == {"200": 30, "422": 10}
    assert now.failed_share == 0.25
    assert result.whole.count == 140
    assert result.whole.seconds == START + 4 - 500


def test_latency_is_of_the_window_not_of_all_time() -> None:
    now = of_last_minute(traffic(text(1000), text(1010, slow=10)))
    assert now.latency(0.5) == pytest.approx(0.001 + 0.099 / 2)
    assert now.fast_share == 1.0


def test_without_requests_in_the_window_there_is_the_whole() -> None:
    result = traffic(text(1000), text(1000))
    now = of_last_minute(result)
    assert (now.count, now.failed_share, now.fast_share, now.latency(0.5)) == (0, None, None, None)
    assert result.whole.latency(0.5) == pytest.approx(0.0005)


def test_share_under_100_ms() -> None:
    slow = {'mlops_request_duration_seconds_bucket{model="iris",version="3",le="+Inf"}': 30.0}
    assert of_last_minute(traffic(text(0), text(10, more=slow))).fast_share == 0.25


def test_the_first_reading_has_no_rate() -> None:
    result = traffic(text(100))
    assert (result.last_minute, result.points) == (None, [])


def test_a_restarted_api_counts_from_zero() -> None:
    result = traffic(text(100, 50, slow=40), text(4, 1, slow=1), text(8, 1, slow=1))
    assert rates(result) == [150.0, 120.0]
    now = of_last_minute(result)
    assert now.failed_share == pytest.approx(1 / 9)
    median = now.latency(0.5)
    assert median is not None
    assert median < 0.001


def test_only_the_last_minute_counts() -> None:
    readings = [text(1000 * i) for i in range(4)] + [text(3000)] * 40
    assert of_last_minute(traffic(*readings)).count == 0


def test_history_is_bounded() -> None:
    assert len(traffic(*[text(i) for i in range(KEPT + 20)]).points) == KEPT - 1


def test_a_clock_that_stands_still_makes_no_point() -> None:
    result = traffic(text(1), text(2), every=0.0)
    assert (result.points, result.last_minute) == ([], None)


def test_versions_mix_and_buckets() -> None:
    made = source(text(10)).last
    assert made.models == {"iris": "2"}
    assert made.versions("iris") == ["2"]
    assert [(m.label, m.reference, m.rows) for m in made.prediction_shares("iris", "2")] == [
        ("setosa", 0.25, 10),
        ("virginica", 0.75, 0),
    ]
    (petal,) = made.feature_buckets("iris", "2")
    assert (petal.reference, petal.rows, petal.drift.verdict) == ([0.5, 0.5], [10, 0], "too few")
    assert made.since == 500
    assert made.prediction_shares("iris", "9") == made.feature_buckets("other", "2") == []


def feedback(**values: float) -> FeedbackSummary | None:
    of = 'model="iris",version="2"'
    labels = {"right": ',correct="true"', "wrong": ',correct="false"'}
    names = {"count": "absolute_error_count", "total": "absolute_error_sum"}
    more = {f"mlops_feedback_{names.get(k, 'total')}{{{of}{labels.get(k, '')}}}": v for k, v in values.items()}
    return source(text(1, more=more)).last.feedback("iris", "2")


def test_feedback_of_both_kinds() -> None:
    four = feedback(right=3, wrong=1)
    assert four == FeedbackSummary(4, right=3)
    assert four.accuracy == 0.75
    assert feedback(count=2, total=5) == FeedbackSummary(2, error=2.5)
    nothing = feedback(right=0, wrong=0)
    assert nothing == FeedbackSummary(0, right=0)
    assert nothing.accuracy is None
    assert feedback() is None


def test_what_cannot_be_read_leaves_the_figures() -> None:
    api = Api(text(10), "<html>")
    made = ApiSource(api, clock=lambda: START)
    made.refresh()
    before = made.snapshot
    with pytest.raises(ServiceError, match="does not answer as the model API does"):
        made.refresh()
    assert made.snapshot is before


@pytest.mark.parametrize(
    ("replicas", "version"),
    [({"9": 1.0}, "9"), ({"9": 2.0, "10": 1.0}, "9"), ({"9": 1.0, "10": 1.0}, "10"), ({"9": 1.0, "10": 0.0}, "9")],
)
def test_while_replicas_change_the_version_most_of_them_serve_is_shown(
    replicas: dict[str, float], version: str
) -> None:
    result = [({"model": "iris", "version": number}, value) for number, value in replicas.items()]
    assert Snapshot(START, MetricSeries(START, {"mlops_model_info": result}), {}).models == {"iris": version}
