"""Every query of every dashboard, asked of the platform's Prometheus while predictions are asked for."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from dashboard_queries import Query, queries
from namespace import wait_for
from release import Platform

from app.clients.model_api import WITH_TOKENS
from app.clients.prometheus import PrometheusClient
from flows.models import iris

PAUSE = 2  # seconds between two requests of 150 rows
PATIENCE = 300  # seconds: some scrapes for rates, then the recording rules
# What is legitimately without data, and why. The query itself has to be understood all the same.
EMPTY = {
    ("mlops-model-quality", "Live mean absolute error"): "the first install trains a classifier only",
    ("mlops-model-quality", "Promotions"): "a mark for a minute, when a version is new",
    ("mlops-platform", "Promotions"): "a mark for a minute, when a version is new",
    ("mlops-model-api", "Promotions"): "a mark for a minute, when a version is new",
    ("mlops-loop", "Promotions"): "a mark for a minute, when a version is new",
    ("mlops-loop", "Promotion"): "promotions are part of trainings unless someone runs the flow promote",
    ("mlops-loop", "Drift to trained"): "nothing has drifted",
    ("mlops-loop", "Drift to served"): "nothing has drifted",
    ("mlops-loop", "Age of the last failure"): "no training has failed",
    ("mlops-loop", "Alerts that ask for a retraining"): "nothing has drifted",
    ("mlops-loop", "What became of alerts"): "nothing has drifted",
    ("mlops-loop", "Cooldown"): "nothing has drifted",
}


@contextmanager
def predictions(platform: Platform) -> Iterator[None]:
    """All rows that the model was trained on, again and again, each with its true label: so nothing drifts."""
    frame = iris.load()
    labels = frame.pop("species").tolist()
    rows = frame.to_dict(orient="records")
    stopping, problems = threading.Event(), []

    def run() -> None:
        with platform.client("api") as api:
            while not stopping.wait(PAUSE):
                try:
                    predictions = api.post("/predict", json=rows, headers=WITH_TOKENS).raise_for_status().json()
                    feedback = [
                        {"feedback_token": prediction["feedback_token"], "label": label}
                        for prediction, label in zip(predictions, labels, strict=True)
                    ]
                    api.post("/feedback", json=feedback).raise_for_status()
                except Exception as error:  # shown by the test, which ends then
                    problems.append(error)
                    return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
    assert not problems, problems


def values(prometheus: PrometheusClient, query: Query) -> list[float]:
    """What a query gives now. Fails with Prometheus' own words where it does not understand it."""
    return [series.number for series in prometheus.query(query.expr)]


def test_every_panel_has_data_while_load_runs(platform: Platform, prometheus: PrometheusClient) -> None:
    needed = {query for query in queries(platform.namespace) if (query.dashboard, query.panel) not in EMPTY}

    def without_data() -> set[Query]:
        results = {query: values(prometheus, query) for query in sorted(needed)}
        return {query for query, numbers in results.items() if all(math.isnan(number) for number in numbers)}

    with predictions(platform):
        missing: set[Query] = set()

        def complete() -> bool:
            missing.clear()
            missing.update(without_data())
            print(f"{len(needed) - len(missing)} of {len(needed)} queries have data")
            return not missing

        try:
            wait_for(complete, "data for every panel", PATIENCE)
        except pytest.fail.Exception as error:
            shown = "\n".join(f"  {query.dashboard}: {query.panel}: {query.expr}" for query in sorted(missing))
            pytest.fail(f"{error}; without data are\n{shown}")


def test_what_may_be_empty_is_understood(platform: Platform, prometheus: PrometheusClient) -> None:
    for query in queries(platform.namespace):
        if (query.dashboard, query.panel) in EMPTY:
            print(f"{query.dashboard}: {query.panel}: {len(values(prometheus, query))} series")


def test_only_panels_that_there_are_may_be_empty() -> None:
    assert set(EMPTY) <= {(query.dashboard, query.panel) for query in queries()}
