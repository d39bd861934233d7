from __future__ import annotations

from itertools import count

import pytest

from app.ui.api_client import ModelApi
from app.ui.figures import KEPT, ApiSource, Feedback
from app.ui.problems import Problem

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


class Api(ModelApi):
    """Gives the texts one after the other."""

    def __init__(self, *texts: str) -> None:
        super().__init__("http://api")
        self.texts = list(texts)

    def metrics(self) -> str:
        return self.texts.pop(0)


def source(*texts: str, every: float = 2.0) -> ApiSource:
    times = count(START, every)
    made = ApiSource(Api(*texts), clock=lambda: next(times))
    for _ in texts:
        made.refresh()
    return made


def test_rates_come_from_what_was_added() -> None:
    traffic = source(text(100), text(110), text(130, 10)).traffic("iris")
    assert [point.rate for point in traffic.points] == [5.0, 15.0]
    assert traffic.rate == 10.0
    assert traffic.failed == 0.25
    assert traffic.requests == 140


def test_latency_is_of_the_window_not_of_all_time() -> None:
    traffic = source(text(1000), text(1010, slow=10)).traffic("iris")
    assert traffic.recent
    assert traffic.p50 == pytest.approx(0.001 + 0.099 / 2)


def test_without_requests_in_the_window_latency_is_since_the_start() -> None:
    traffic = source(text(1000), text(1000)).traffic("iris")
    assert (traffic.recent, traffic.failed, traffic.rate) == (False, None, 0.0)
    assert traffic.p50 == pytest.approx(0.0005)


def test_the_first_reading_has_no_rate() -> None:
    traffic = source(text(100)).traffic("iris")
    assert (traffic.rate, traffic.points) == (None, [])


def test_a_restarted_api_counts_from_zero() -> None:
    traffic = source(text(100, 50, slow=40), text(4, 1, slow=1), text(8, 1, slow=1)).traffic("iris")
    assert [point.rate for point in traffic.points] == [2.5, 2.0]
    assert traffic.failed == pytest.approx(1 / 9)
    assert traffic.p50 is not None
    assert traffic.p50 < 0.001


def test_only_the_last_minute_counts() -> None:
    readings = [text(1000 * i) for i in range(4)] + [text(3000)] * 40
    assert source(*readings).traffic("iris").rate == 0.0


def test_history_is_bounded() -> None:
    assert len(source(*[text(i) for i in range(KEPT + 20)]).traffic("iris").points) == KEPT - 1


def test_a_clock_that_stands_still_makes_no_point() -> None:
    assert source(text(1), text(2), every=0.0).traffic("iris").points == []


def test_versions_mix_and_buckets() -> None:
    made = source(text(10))
    assert made.models() == {"iris": "2"}
    assert made.versions("iris") == ["2"]
    assert [(m.label, m.reference, m.rows) for m in made.mix("iris", "2")] == [
        ("setosa", 0.25, 10),
        ("virginica", 0.75, 0),
    ]
    (petal,) = made.buckets("iris", "2")
    assert (petal.reference, petal.rows, petal.drift.verdict) == ([0.5, 0.5], [10, 0], "too few")
    assert made.since == 500
    assert made.mix("iris", "9") == made.buckets("other", "2") == []


def feedback(**values: float) -> Feedback | None:
    of = 'model="iris",version="2"'
    labels = {"right": ',correct="true"', "wrong": ',correct="false"'}
    names = {"count": "absolute_error_count", "total": "absolute_error_sum"}
    more = {f"mlops_feedback_{names.get(k, 'total')}{{{of}{labels.get(k, '')}}}": v for k, v in values.items()}
    return source(text(1, more=more)).feedback("iris", "2")


def test_feedback_of_both_kinds() -> None:
    assert feedback(right=3, wrong=1) == Feedback(4, 0.75, None)
    assert feedback(count=2, total=5) == Feedback(2, None, 2.5)
    assert feedback(right=0, wrong=0) == Feedback(0, None, None)
    assert feedback() is None


def test_what_cannot_be_read_leaves_the_figures() -> None:
    made = source(text(10))
    made.api.texts = ["<html>"]  # type: ignore[attr-defined]
    with pytest.raises(Problem, match="does not answer as the model API does"):
        made.refresh()
    assert made.models() == {"iris": "2"}
    assert made.read_at == START
