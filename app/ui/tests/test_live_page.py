from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.clients.mlflow import MlflowClient
from app.clients.model_api import WITH_TOKENS
from app.runtime.waiting import wait_until
from app.testing.model_api import publish
from app.testing.pages import open_page, prometheus, ran, read
from app.testing.proxy import FaultyProxy, serving

EVERYTHING_SETOSA = {"sepal_length": 5.0, "sepal_width": 3.4, "petal_length": 1.4, "petal_width": 0.2}


def metric(app: Any, label: str) -> str:
    return next(item.value for item in app.metric if item.label == label)


def test_traffic_drift_and_accuracy(served: Any) -> None:
    name = served.names["iris"]
    app = open_page("live", name)
    rows = [EVERYTHING_SETOSA] * 400
    url = f"{served.url}/models/{name}/predict"
    answers = httpx.post(url, json=rows, headers=WITH_TOKENS, timeout=30).raise_for_status().json()
    labels = ["setosa"] * 3 + ["virginica"]
    labelled = [{"feedback_token": a["feedback_token"], "label": x} for a, x in zip(answers, labels, strict=False)]
    before = counts(served.url, name)
    httpx.post(f"{served.url}/feedback", json=labelled, timeout=30).raise_for_status()
    ran(app)
    right, all_ = before[0] + 3, before[1] + 4
    assert metric(app, "Live accuracy") == f"{right / all_:.1%}"
    assert metric(app, "Median latency").endswith("ms")
    assert metric(app, "p90 latency").endswith("s")
    assert metric(app, "Under 100 ms").endswith("%")
    assert metric(app, "Failed") == "0.0%"
    assert float(metric(app, "Requests per minute").replace(",", "")) > 0
    shown = read(app.caption)
    assert f"Of {all_:,} predictions with feedback, {right:,} were right." in shown
    assert "below 0.1 stable, 0.1 to 0.25 moderate drift, above strong drift" in shown
    httpx.post(url, json={"sepal_length": "no number"}, timeout=30)
    assert metric(ran(app), "Failed") != "0.0%"


def counts(url: str, name: str) -> tuple[int, int]:
    """Right labels and all labels, as the API counted them so far."""
    from app.ui.live.exposition import parse_metrics

    series = parse_metrics(httpx.get(f"{url}/metrics").text, 0.0)
    right = series.total("mlops_feedback_total", model=name, correct="true")
    return round(right), round(series.total("mlops_feedback_total", model=name))


def test_a_model_without_requests(served: Any, registry: MlflowClient) -> None:
    name = f"idle-{uuid4().hex[:6]}"  # the other tests predict with those of the fixture
    publish(registry, name, served.examples["cars"].bundle)
    wait_until(lambda: httpx.get(f"{served.url}/models/{name}", timeout=30).is_success)
    app = open_page("live", name)
    assert metric(app, "Live accuracy") == "–"
    assert "This version has predicted nothing yet" in read(app.caption)
    assert "No rows to compare with the training data yet" in read(app.caption)


def test_a_regression_has_an_error_instead_of_an_accuracy(served: Any) -> None:
    name = served.names["sugar"]
    answer = served.predict("sugar", {"age": 50, "weight": 70.0})
    body = {"feedback_token": answer["feedback_token"], "label": answer["prediction"] + 12.0}
    httpx.post(f"{served.url}/feedback", json=body, timeout=30).raise_for_status()
    app = open_page("live", name)
    assert float(metric(app, "Live mean error")) > 0
    assert "rows so far: drift is judged from 200 rows on" in read(app.caption)


def test_an_api_that_is_down(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_API_URL", dead)
    app = open_page("live")
    assert f"The model API at {dead} does not answer" in read(app.error)
    assert read(app.title) == "Live"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((401, "no"), "answered 401"),
        ((200, "<html>hello</html>"), "does not answer as the model API does"),
        ((200, "up 1\n"), "does not answer as the model API does"),
        ((200, "mlops_registry_up{ 1\n"), "does not answer as the model API does"),
        ((500, "oh"), "answered 500"),
        (None, "did not answer within 0.3 s"),
    ],
)
def test_metrics_that_cannot_be_read(answer: Any, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FaultyProxy(answers={"/metrics": answer})) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        monkeypatch.setenv("MLOPS_UI_TIMEOUT", "0.3")
        app = open_page("live")
    assert expected in read(app.error)


def test_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FaultyProxy(answers={"/metrics": (200, "mlops_registry_up 1\n")})) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        assert "The API serves no model yet" in read(open_page("live").info)


CHALLENGED = """
mlops_registry_up 1
mlops_model_info{model="iris",version="3",run_id="r",serving="onnx"} 1
mlops_challenger_rows_total{model="iris",version="9",agreement="agree"} 5
mlops_challenger_rows_total{model="iris",version="9",agreement="disagree"} 5
mlops_challenger_rows_total{model="iris",version="10",agreement="agree"} 1900
mlops_challenger_rows_total{model="iris",version="10",agreement="disagree"} 100
mlops_challenger_failed_rows_total{model="iris",version="10"} 7
mlops_challenger_dropped_rows_total{model="iris",version="10"} 12
mlops_challenger_feedback_total{model="iris",version="10",right="both"} 70
mlops_challenger_feedback_total{model="iris",version="10",right="challenger"} 20
mlops_challenger_feedback_total{model="iris",version="10",right="production"} 5
mlops_challenger_feedback_total{model="iris",version="10",right="neither"} 5
mlops_challenger_duration_seconds_bucket{model="iris",version="10",le="0.001"} 60
mlops_challenger_duration_seconds_bucket{model="iris",version="10",le="+Inf"} 60
"""


def test_the_newest_challenger_is_compared_with_production(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FaultyProxy(answers={"/metrics": (200, CHALLENGED)})) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        app = open_page("live")
    assert "Challenger: version 10" in read(app.subheader)
    assert metric(app, "Agrees") == "95.0%"
    assert metric(app, "Rows compared") == "2,000"
    assert metric(app, "Median time").endswith("ms")
    assert metric(app, "Rows dropped") == "12"
    graded = "Of 100 rows whose true label came, it was right on 90.0%, and production on 75.0%."
    assert graded in read(app.caption)


def test_a_challenger_of_a_regression_is_compared_by_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in CHALLENGED.splitlines() if "feedback" not in line]
    for by, total in (("challenger", 120), ("production", 150)):
        of = f'{{model="iris",version="10",by="{by}"}}'
        lines += [
            f"mlops_challenger_feedback_absolute_error_{what}{of} {n}" for what, n in (("count", 60), ("sum", total))
        ]
    with serving(FaultyProxy(answers={"/metrics": (200, "\n".join([*lines, ""]))})) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        app = open_page("live")
    assert "On 60 rows whose true value came, it was off by 2 on average, and production by 2.5." in read(app.caption)


def test_without_a_challenger_or_canary_nothing_is_said_of_one(served: Any) -> None:
    shown = read(open_page("live", served.names["iris"]).subheader)
    assert "Challenger" not in shown
    assert "Canary" not in shown


CANARY = """
mlops_registry_up 1
mlops_model_info{model="iris",version="3",run_id="r",serving="onnx"} 1
mlops_canary_requests_total{model="iris",version="4"} 200
mlops_canary_failures_total{model="iris",version="4"} 5
mlops_canary_returned{model="iris",version="4"} RETURNED
"""


@pytest.mark.parametrize("returned", [0, 1])
def test_a_canary_that_was_returned_says_so(returned: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = CANARY.replace("RETURNED", str(returned))
    with serving(FaultyProxy(answers={"/metrics": (200, answer)})) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        app = open_page("live")
    assert "Canary: version 4" in read(app.subheader)
    assert metric(app, "Canary's requests") == "200"
    assert metric(app, "Canary failed") == "2.5%"
    assert ("1 replica of the API returned it to production" in read(app.warning)) == bool(returned)


def test_figures_stay_while_the_api_is_away(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served.predict("iris", EVERYTHING_SETOSA)
    with serving(FaultyProxy(served.url)) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        app = open_page("live", served.names["iris"])
        peer.answers["/metrics"] = (500, "oh")
        ran(app)
    assert "answered 500" in read(app.error)
    assert "The figures below were read at" in read(app.caption)
    assert metric(app, "Requests per minute")


# -- with Prometheus ---------------------------------------------------------------------------------------------

CONFIG = """
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
scrape_configs: [{job_name: model-api, static_configs: [{targets: ["ADDRESS"]}]}]
"""
RULES = """
groups:
- name: test
  rules:
  - {record: "mlops:feature_psi", expr: "sum by (model, version, feature) (mlops_feature_bucket_total) > bool -1"}
  - {record: "mlops:drift_settings", expr: vector(1), labels: {window: 30m, min_rows: "300"}}
  - alert: ApiDown
    expr: absent(mlops_registry_up)
    labels: {severity: critical}
    annotations:
      part_of: mlops
      summary: No replica of the model API answers
      runbook_url: "http://ui.localhost/alerts#apidown"
"""


def test_with_prometheus(served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = served.names["iris"]
    with prometheus(tmp_path, CONFIG.replace("ADDRESS", served.url.removeprefix("http://")), rules=RULES) as url:
        monkeypatch.setenv("MLOPS_PROMETHEUS_URL", url)
        wait_until(lambda: not open_page("live", name).error)
        scraped(url)
        answers = httpx.post(
            f"{served.url}/models/{name}/predict", json=[EVERYTHING_SETOSA] * 400, headers=WITH_TOKENS, timeout=30
        ).raise_for_status()
        labelled = [{"feedback_token": answers.json()[i]["feedback_token"], "label": "setosa"} for i in range(2)]
        httpx.post(f"{served.url}/feedback", json=labelled, timeout=30).raise_for_status()
        httpx.post(f"{served.url}/models/{name}/predict", json={"sepal_length": "no number"}, timeout=30)
        app = wait_until(lambda: shows(open_page("live", name), "Of 2 predictions with feedback, 2 were right."))
        assert "No alert is firing." in read(app.caption)
        assert "are of the last 30 minutes, of all replicas together" in read(app.caption)
        assert "rows with the training data: below 0.1 stable" in read(app.caption)
        assert metric(app, "Live accuracy") == "100.0%"
        assert metric(app, "Median latency").endswith("ms")
        assert float(metric(app, "Requests per minute")) >= 2
        assert 0 < float(metric(app, "Failed").removesuffix("%")) < 100


def scraped(url: str) -> None:
    """Waits until Prometheus has read the API once more."""
    query = {"query": "timestamp(mlops_registry_up)"}

    def last() -> float:
        return float(httpx.get(f"{url}/api/v1/query", params=query).json()["data"]["result"][0]["value"][1])

    before = last()
    wait_until(lambda: last() > before)


def shows(app: Any, text: str) -> Any:
    return app if text in read(app.caption) else None


def test_an_alert_is_told_when_there_is_nothing_else_to_tell(
    dead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with prometheus(tmp_path, CONFIG.replace("ADDRESS", dead.removeprefix("http://")), rules=RULES) as url:
        monkeypatch.setenv("MLOPS_PROMETHEUS_URL", url)
        app = wait_until(lambda: alarmed(open_page("live")))
    assert "has no figures of the model API" in read(app.error)
    assert "[What to do](http://ui.localhost/alerts#apidown)" in read(app.error)
    assert "No alert is firing" not in read(app.caption)


def alarmed(app: Any) -> Any:
    return app if "No replica of the model API answers." in read(app.error) else None


def test_prometheus_down(served: Any, dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_PROMETHEUS_URL", dead)
    app = open_page("live", served.names["iris"])
    assert f"Prometheus at {dead} does not answer" in read(app.error)
    assert "alert" not in read(app.caption)  # nobody knows
