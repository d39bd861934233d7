"""The figures that a real Prometheus gives, mostly of a past that is written here."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.clients.errors import ServiceError
from app.clients.prometheus import PrometheusClient
from app.registry.reference import psi
from app.runtime.waiting import wait_until
from app.testing.pages import open_page, prometheus, read
from app.testing.proxy import FaultyProxy, serving
from app.ui.live.data import FeedbackSummary, Snapshot
from app.ui.live.prometheus_source import PrometheusSource

END = 1_790_000_010  # seconds since 1970, a multiple of the step of 15 s
SCRAPE = 15
SAMPLES = 301  # 75 minutes
RESTART = 281  # 5 minutes before the end
SWAP = 241  # 15 minutes before the end
Answers = dict[str, tuple[int, Any] | None]
FOREIGN = "does not answer as Prometheus does"
NOBODY = "global: {scrape_interval: 1h}"


class Past:
    """Samples of every SCRAPE seconds until an end (seconds since 1970), in the OpenMetrics format."""

    def __init__(self, end: int) -> None:
        self.end = end
        self._families: dict[str, list[str]] = {}

    def add(self, name: str, values: Sequence[float | str | None], **labels: str) -> None:
        of = ",".join(f'{key}="{value}"' for key, value in labels.items())
        for i, value in enumerate(values):
            if value is not None:
                line = f"{name}{{{of}}} {value} {self.end - (len(values) - 1 - i) * SCRAPE}"
                self._families.setdefault(name, []).append(line)

    def text(self) -> str:
        return "\n".join([*(line for lines in self._families.values() for line in lines), "# EOF\n"])


def counted(step: float, restart: int = SAMPLES) -> list[float]:
    """A counter that goes up by `step` with every sample, and begins anew at one of them."""
    return [step * (i if i < restart else i - restart) for i in range(SAMPLES)]


def always(value: float | str) -> list[float | str]:
    return [value] * SAMPLES


def write_replica(past: Past, restart: int = SAMPLES, **of: str) -> None:
    """A replica with 40 good and 20 bad requests in a minute; 20 took up to 1 ms, 48 up to 100 ms."""
    for status, step in (("200", 10), ("422", 5)):
        past.add("mlops_requests_total", counted(step, restart), **of, status=status)
    for bound, step in (("0.001", 5), ("0.1", 12), ("+Inf", 15)):
        past.add("mlops_request_duration_seconds_bucket", counted(step, restart), **of, le=bound)
    write_version(past, restart, **of)
    past.add("mlops_model_info", always(1), **of, run_id="r", serving="onnx")


def write_version(past: Past, restart: int = SAMPLES, **of: str) -> None:
    """Rows and references: three of four rows are in bucket 0, of the training rows one of two was."""
    for bucket, step in (("0", 3), ("1", 1)):
        past.add("mlops_feature_bucket_total", counted(step, restart), **of, feature="petal", bucket=bucket)
        past.add("mlops_feature_reference_share", always(0.5), **of, feature="petal", bucket=bucket)
    past.add("mlops_predictions_total", counted(4, restart), **of, label="setosa")
    for label, share in (("setosa", 0.25), ("virginica", 0.75)):
        past.add("mlops_prediction_reference_share", always(share), **of, label=label)


def write_past(end: int = END) -> str:
    past = Past(end)
    past.add("mlops_registry_up", always(1), pod="a")
    write_replica(past, model="steady", version="1", pod="a")
    past.add("mlops:feature_psi", always(0.31), model="steady", version="1", feature="petal")
    for correct, values in (("true", 3.0), ("false", 1.0)):
        counts = [0.0 if i < SAMPLES - 40 else values for i in range(SAMPLES)]
        past.add("mlops_feedback_total", counts, model="steady", version="1", pod="a", correct=correct)
    write_replica(past, RESTART, model="restarted", version="1", pod="a")
    past.add("mlops_feedback_absolute_error_count", counted(1), model="restarted", version="1", pod="a")
    past.add("mlops_feedback_absolute_error_sum", counted(2.5), model="restarted", version="1", pod="a")
    for pod in "ab":
        write_replica(past, model="replicas", version="1", pod=pod)
    # from SWAP on version 10 serves; version 9 still has series
    for version, served in (
        ("9", [1 if i < SWAP else None for i in range(SAMPLES)]),
        ("10", [None if i < SWAP else 1 for i in range(SAMPLES)]),
    ):
        past.add("mlops_model_info", served, model="swapped", version=version, pod="a", run_id="r", serving="o")
    write_version(past, model="swapped", version="9", pod="a")
    fresh = [None if i < SWAP else float(i - SWAP) for i in range(SAMPLES)]
    past.add("mlops_requests_total", fresh, model="swapped", version="10", pod="a", status="200")
    old = [float(min(i, SWAP)) for i in range(SAMPLES)]
    past.add("mlops_requests_total", old, model="swapped", version="9", pod="a", status="200")
    for bucket in "01":
        of = {"model": "swapped", "version": "10", "pod": "a", "feature": "petal", "bucket": bucket}
        past.add("mlops_feature_bucket_total", fresh, **of)
        past.add("mlops_feature_reference_share", [None if i < SWAP else 0.5 for i in range(SAMPLES)], **of)
    # nonsense: numbers that are none, and series that lack labels
    write_version(past, model="odd", version="1", pod="a")
    past.add("mlops_model_info", always(1), model="odd", version="1", pod="a")
    past.add("mlops:feature_psi", always("NaN"), model="odd", version="1", feature="petal")
    past.add("mlops_prediction_reference_share", always("+Inf"), model="odd", version="1", label="other")
    past.add("mlops_request_duration_seconds_bucket", always("NaN"), model="odd", version="1", le="+Inf")
    past.add("mlops_requests_total", always("+Inf"), model="odd", version="1", status="200")
    past.add("mlops_feature_bucket_total", counted(1), job="theirs")
    past.add("mlops_requests_total", counted(1), status="404", version="", model="")
    return past.text()


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that knows the past."""
    with prometheus(tmp_path_factory.mktemp("past"), NOBODY, history=write_past()) as url:
        yield url


def source(url: str, now: float = END, interval: float = 0.0, timeout: float = 30.0) -> PrometheusSource:
    return PrometheusSource(PrometheusClient(url, timeout), interval=interval, clock=lambda: now)


@pytest.fixture
def snapshot(past: str) -> Snapshot:
    made = source(past)
    made.refresh()
    assert made.snapshot
    return made.snapshot


def test_the_last_minutes_are_there_at_once(snapshot: Snapshot) -> None:
    traffic = snapshot.traffic["steady"]
    times = [at for at, _ in traffic.points]
    assert times == [END - 14 * 60 + 15 * i for i in range(57)]
    for _, requests in [*traffic.points, (END, traffic.last_minute)]:
        assert requests
        assert requests.per_minute(requests.statuses["200"]) == pytest.approx(40)
        assert requests.per_minute(requests.statuses["422"]) == pytest.approx(20)
        assert requests.failed_share == pytest.approx(1 / 3)
        assert requests.fast_share == pytest.approx(0.8)
        assert requests.latency(0.5) == pytest.approx(0.001 + 0.099 * (30 - 20) / 28)
        assert requests.latency(0.9) == 0.1  # the largest bound that is a number
    assert (traffic.whole.seconds, traffic.whole.count) == (15 * 60, pytest.approx(15 * 60))


def test_snapshots_between_two_steps_show_the_same_points(past: str, snapshot: Snapshot) -> None:
    made = source(past, END + 14)
    made.refresh()
    assert made.snapshot
    assert made.snapshot.traffic["steady"].points == snapshot.traffic["steady"].points


def test_a_restart_is_no_gap_and_no_peak(snapshot: Snapshot) -> None:
    rates = [requests.count for _, requests in snapshot.traffic["restarted"].points]
    assert min(rates) >= 40
    assert max(rates) <= 61
    (petal,) = snapshot.feature_buckets("restarted", "1")
    assert petal.rows == [pytest.approx(720, abs=4), pytest.approx(240, abs=2)]
    assert snapshot.feedback("restarted", "1") == FeedbackSummary(240, error=2.5)


def test_replicas_are_taken_together(snapshot: Snapshot) -> None:
    one, two = snapshot.traffic["steady"].last_minute, snapshot.traffic["replicas"].last_minute
    assert one
    assert two
    assert two.count == pytest.approx(2 * one.count)
    assert snapshot.models["replicas"] == "1"
    (petal,) = snapshot.feature_buckets("replicas", "1")
    assert petal.reference == [0.5, 0.5]
    assert petal.rows == [pytest.approx(1440), pytest.approx(480)]
    assert [(m.label, m.reference, round(m.rows)) for m in snapshot.prediction_shares("replicas", "1")] == [
        ("setosa", 0.25, 1920),
        ("virginica", 0.75, 0),
    ]


def test_a_version_that_came_within_the_window(snapshot: Snapshot) -> None:
    assert snapshot.models["swapped"] == "10"
    assert snapshot.versions("swapped") == ["10", "9"]
    ((new,), (old,)) = (snapshot.feature_buckets("swapped", version) for version in ("10", "9"))
    assert new.rows == [pytest.approx(60, abs=1)] * 2
    assert old.rows == [pytest.approx(720), pytest.approx(240)]
    assert all(requests.count <= 5 for _, requests in snapshot.traffic["swapped"].points)


def test_drift_is_what_the_rule_recorded(snapshot: Snapshot) -> None:
    (petal,) = snapshot.feature_buckets("steady", "1")
    assert (petal.drift.psi, petal.drift.verdict, petal.drift.rows) == (0.31, "strong", 960)


def test_drift_of_what_no_rule_records_is_worked_out_from_the_bars(snapshot: Snapshot) -> None:
    (petal,) = snapshot.feature_buckets("replicas", "1")
    assert petal.drift.psi == pytest.approx(psi([0.5, 0.5], [3, 1]))
    assert petal.drift.verdict == "strong"


def with_settings(window: str, min_rows: str) -> str:
    past = Past(END)
    past.add("mlops_registry_up", always(1), pod="a")
    write_replica(past, model="steady", version="1", pod="a")
    past.add("mlops:drift_settings", always(1), window=window, min_rows=min_rows)
    return past.text()


def test_window_and_rows_are_those_of_the_rules(tmp_path: Path) -> None:
    with prometheus(tmp_path, NOBODY, history=with_settings("10m", "500")) as url:
        made = source(url)
        made.refresh()
    assert made.snapshot
    (petal,) = made.snapshot.feature_buckets("steady", "1")
    assert petal.rows == [pytest.approx(120), pytest.approx(40)]
    assert petal.drift.verdict == "too few"
    assert (made.snapshot.window, made.snapshot.min_rows) == ("10m", 500)


@pytest.mark.parametrize(("window", "min_rows"), [("1h]) or vector(1", "200"), ("an hour", "200"), ("1h", "some")])
def test_settings_that_are_none(window: str, min_rows: str, tmp_path: Path) -> None:
    with (
        prometheus(tmp_path, NOBODY, history=with_settings(window, min_rows)) as url,
        pytest.raises(ServiceError, match=FOREIGN),
    ):
        source(url).refresh()


def test_labels_are_whole_numbers(snapshot: Snapshot) -> None:
    assert snapshot.feedback("steady", "1") == FeedbackSummary(4, right=3)
    assert snapshot.feedback("swapped", "10") is None


def test_numbers_that_are_none_are_left_out(snapshot: Snapshot) -> None:
    traffic = snapshot.traffic["odd"]
    assert [requests.count for _, requests in traffic.points] == [0] * len(traffic.points)
    assert traffic.whole.latency(0.5) is None
    (petal,) = snapshot.feature_buckets("odd", "1")
    assert petal.drift.psi == pytest.approx(psi([0.5, 0.5], [3, 1]))
    assert all(math.isfinite(m.reference) for m in snapshot.prediction_shares("odd", "1"))
    assert set(snapshot.traffic) == {"steady", "restarted", "replicas", "swapped", "odd"}


def test_a_prometheus_that_has_not_met_the_api(past: str) -> None:
    made = source(past, END - 10 * 3600)
    with pytest.raises(ServiceError, match="has no figures of the model API") as raised:
        made.refresh()
    assert "Status, Targets" in raised.value.cure
    assert made.snapshot is None
    assert made.alerts == []


# -- how often ---------------------------------------------------------------------------------------------------


class Counting(FaultyProxy):
    """Counts what it forwards, and can be made to wait."""

    requests = 0
    open = threading.Event()

    def answer(self, *request: Any) -> Any:
        self.requests += 1
        self.open.wait(60)
        return super().answer(*request)


@pytest.fixture
def counting(past: str) -> Iterator[Counting]:
    peer = Counting(past)
    peer.open = threading.Event()
    peer.open.set()
    with serving(peer):
        yield peer
        peer.open.set()


def test_many_visitors_ask_prometheus_as_much_as_one(counting: Counting) -> None:
    made = source(counting.url, interval=3600)
    visitors = [threading.Thread(target=made.refresh) for _ in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert made.snapshot
    assert counting.requests == 3


def test_a_failure_is_not_tried_again_by_each_visitor(counting: Counting) -> None:
    made = source(counting.url, now=0.0, interval=3600)
    for _ in range(4):
        with pytest.raises(ServiceError, match="has no figures"):
            made.refresh()
    assert counting.requests == 3


def test_nobody_waits_for_another_visitors_snapshot(counting: Counting) -> None:
    made = source(counting.url)
    made.refresh()
    before = made.snapshot
    counting.open.clear()
    slow = threading.Thread(target=made.refresh)
    slow.start()
    wait_until(lambda: counting.requests == 4)
    made.refresh()
    assert made.snapshot is before
    assert slow.is_alive()
    counting.open.set()
    slow.join()
    assert made.snapshot is not before


# -- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((200, "<html>hello</html>"), FOREIGN),
        ((200, {"status": "success"}), FOREIGN),
        ((200, {"status": "success", "data": {"result": [{"metric": {}, "value": [1, "many"]}]}}), FOREIGN),
        ((200, {"status": "success", "data": {"result": [{"metric": {"model": "x"}, "value": [1, "1"]}]}}), FOREIGN),
        ((200, {"status": "success", "data": {"result": [{"metric": {"le": "x"}, "values": [[1, "x"]]}]}}), FOREIGN),
        ((404, "no"), FOREIGN),
        ((401, "no"), "answered 401: it wants an account"),
        ((422, {"status": "error", "error": "query processing would load too many samples"}), "Query processing would"),
        ((503, {"status": "error", "errorType": "timeout", "error": "query timed out"}), "Query timed out."),
        ((502, "<html>Bad Gateway</html>"), "answered 502."),
        (None, "did not answer within 0.5 s"),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/query?", "/api/v1/query_range"])
def test_what_cannot_be_read_leaves_the_figures(past: str, answer: Any, expected: str, path: str) -> None:
    with serving(FaultyProxy(past)) as peer:
        # only where nothing answers may the time run out: half a second is little on a busy machine
        made = source(peer.url, timeout=0.5 if answer is None else 30.0)
        wait_until(lambda: _read(made))
        before = made.snapshot
        peer.answers[path] = answer
        with pytest.raises(ServiceError) as raised:
            made.refresh()
        assert expected in raised.value.what
        assert raised.value.cure
        assert made.snapshot is before
        peer.answers.clear()
        wait_until(lambda: _read(made))
        assert made.snapshot is not before


def test_labels_of_somebody_else(past: str) -> None:
    of = {"metric": {"model": "x", "le": "wide"}, "values": [[END, "1"]]}
    answer: Answers = {"/api/v1/query_range": (200, {"status": "success", "data": {"result": [of]}})}
    with serving(FaultyProxy(past, answer)) as peer, pytest.raises(ServiceError, match=FOREIGN):
        source(peer.url).refresh()


def _read(made: PrometheusSource) -> bool:
    """Whether it could be read; on a busy machine half a second may not be enough."""
    try:
        made.refresh()
    except ServiceError:
        return False
    return True


@pytest.mark.parametrize("alerts", [(200, "<html>"), (200, {"data": {"alerts": [{"state": "firing"}]}}), (500, "oh")])
def test_alerts_that_cannot_be_read_are_no_reassurance(past: str, alerts: Any) -> None:
    with serving(FaultyProxy(past, {"/api/v1/alerts": alerts})) as peer:
        made = source(peer.url)
        with pytest.raises(ServiceError):
            made.refresh()
        assert made.alerts is None


def test_prometheus_down(dead: str) -> None:
    with pytest.raises(ServiceError, match=f"Prometheus at {dead} does not answer") as raised:
        source(dead).refresh()
    assert "MLOPS_PROMETHEUS_URL" in raised.value.cure


@pytest.mark.parametrize("url", ["prometheus:9090", "http://", "ftp://prometheus", "http://[", "http://a b"])
def test_no_address_of_prometheus(url: str) -> None:
    with pytest.raises(ServiceError, match="does not answer"):
        source(url).refresh()


# -- alerts ------------------------------------------------------------------------------------------------------

RULES = """
groups:
- name: test
  interval: 1s
  rules:
  - alert: FeatureDrift
    expr: vector(0.4) > 0.25
    labels: {severity: warning, model: iris}
    annotations: {summary: "petal_length of iris drifts", part_of: mlops, runbook_url: "https://x/alerts#featuredrift"}
  - alert: ApiDown
    expr: vector(1)
    labels: {severity: critical}
    annotations: {summary: "No replica of the model API answers.", part_of: mlops, runbook_url: "x"}
  - {alert: Unexplained, expr: vector(1), annotations: {part_of: mlops}}
  - {alert: Waits, expr: vector(1), for: 1h, annotations: {summary: x, part_of: mlops}}
  - {alert: Watchdog, expr: vector(1), annotations: {summary: "another's", runbook_url: "https://x/watchdog"}}
"""


def test_firing_alerts_even_where_there_are_no_figures(tmp_path: Path) -> None:
    config = "global: {evaluation_interval: 1s}\nrule_files: [rules.yml]"
    with prometheus(tmp_path, config, rules=RULES) as url:
        wait_until(lambda: len(httpx.get(f"{url}/api/v1/alerts").json()["data"]["alerts"]) == 5)
        made = source(url)
        with pytest.raises(ServiceError, match="has no figures"):
            made.refresh()
    assert made.alerts
    assert [(a.name, a.severity, a.summary) for a in made.alerts] == [
        ("ApiDown", "critical", "No replica of the model API answers."),
        ("FeatureDrift", "warning", "petal_length of iris drifts"),
        ("Unexplained", "warning", "Unexplained"),
    ]
    assert made.alerts[1].runbook == "https://x/alerts#featuredrift"
    assert made.alerts[0].since > END


# -- the page ----------------------------------------------------------------------------------------------------


def test_a_page_that_was_just_opened_has_its_history(
    tmp_path: Path, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_API_URL", dead)  # not needed, but for the names of the buckets
    with prometheus(tmp_path, NOBODY, history=write_past(round(time.time()))) as url:
        monkeypatch.setenv("MLOPS_PROMETHEUS_URL", url)
        app = open_page("live", "steady")
        assert not app.error
        assert [item.value for item in app.subheader] == [
            "Requests per minute",
            "Median latency",
            "Requests under 100 ms",
            "p90 latency",
            "Predictions",
            "Feature drift",
        ]
        assert "No requests in this time" not in read(app.caption)
        assert "Share of each prediction among 9" in read(app.caption)
        shown = {item.label: item.value for item in app.metric}
        assert shown["Failed"] == "33.3%"
        assert shown["Under 100 ms"] == "80.0%"
        assert shown["p90 latency"] == "100 ms"
        assert shown["Live accuracy"] == "75.0%"
        for model in ("restarted", "replicas", "swapped", "odd"):
            assert not open_page("live", model).error
