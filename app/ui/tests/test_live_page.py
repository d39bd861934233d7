from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.testing import Peer, serving
from app.ui.testing import open_page, ran, read

EVERYTHING_SETOSA = {"sepal_length": 5.0, "sepal_width": 3.4, "petal_length": 1.4, "petal_width": 0.2}


def metric(app: Any, label: str) -> str:
    return next(item.value for item in app.metric if item.label == label)


def test_traffic_drift_and_accuracy(served: Any) -> None:
    name = served.names["iris"]
    app = open_page("live", name)
    rows = [EVERYTHING_SETOSA] * 400
    url = f"{served.url}/models/{name}/predict"
    answers = httpx.post(url, json=rows, timeout=30).raise_for_status().json()
    labels = ["setosa"] * 3 + ["virginica"]
    told = [{"prediction_id": a["prediction_id"], "label": x} for a, x in zip(answers, labels, strict=False)]
    before = counts(served.url, name)
    httpx.post(f"{served.url}/feedback", json=told, timeout=30).raise_for_status()
    ran(app)
    right, all_ = before[0] + 3, before[1] + 4
    assert metric(app, "Live accuracy") == f"{right / all_:.1%}"
    assert metric(app, "Latency p50").endswith("ms")
    assert metric(app, "Failed") == "0.0%"
    assert float(metric(app, "Requests per second")) > 0
    said = read(app.caption)
    assert f"Of {all_:,} labels that were fed back, {right:,} were predicted right." in said
    assert "below 0.1 stable, 0.1 to 0.25 moderate drift, above strong drift" in said
    httpx.post(url, json={"sepal_length": "no number"}, timeout=30)
    assert metric(ran(app), "Failed") != "0.0%"


def counts(url: str, name: str) -> tuple[int, int]:
    """Right labels and all labels, as the API counted them so far."""
    from app.ui.exposition import read as read_metrics

    sample = read_metrics(httpx.get(f"{url}/metrics").text, 0.0)
    right = sample.value("mlops_feedback_total", model=name, correct="true")
    return round(right), round(sample.value("mlops_feedback_total", model=name))


def test_nothing_was_asked_yet(served: Any) -> None:
    app = open_page("live", served.names["cars"])
    assert metric(app, "Live accuracy") == "–"
    assert "This version has predicted nothing yet" in read(app.caption)
    assert "No rows to compare with the training data yet" in read(app.caption)


def test_a_regression_has_an_error_instead_of_an_accuracy(served: Any) -> None:
    name = served.names["sugar"]
    answer = served.predict("sugar", {"age": 50, "weight": 70.0})
    body = {"prediction_id": answer["prediction_id"], "label": answer["prediction"] + 12.0}
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
    ("answer", "said"),
    [
        ((401, "no"), "answered 401"),
        ((200, "<html>hello</html>"), "does not answer as the model API does"),
        ((200, "up 1\n"), "does not answer as the model API does"),
        ((200, "mlops_registry_up{ 1\n"), "does not answer as the model API does"),
        ((500, "oh"), "answered 500"),
        (None, "did not answer within 0.3 s"),
    ],
)
def test_metrics_that_cannot_be_read(answer: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Peer(answers={"/metrics": answer})) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        monkeypatch.setenv("MLOPS_UI_TIMEOUT", "0.3")
        app = open_page("live")
    assert said in read(app.error)


def test_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Peer(answers={"/metrics": (200, "mlops_registry_up 1\n")})) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        assert "The API serves no model yet" in read(open_page("live").info)


def test_figures_stay_while_the_api_is_away(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served.predict("iris", EVERYTHING_SETOSA)
    with serving(Peer(served.url)) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        app = open_page("live", served.names["iris"])
        peer.answers["/metrics"] = (500, "oh")
        ran(app)
    assert "answered 500" in read(app.error)
    assert "The figures below were read at" in read(app.caption)
    assert metric(app, "Requests per second")
