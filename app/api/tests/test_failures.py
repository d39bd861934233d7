"""What fails without being the client's fault is a 500 that the alert counts; and the API stays within its memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

from app.api import served_model, workers
from app.api.main import create_app
from app.contract.errors import InferRefused, Refused
from app.registry.predictor import Predictions, Rows
from app.runtime.waiting import wait_until
from app.testing.model_api import SETOSA, Example, absent_mlflow, cache_bundle, metric, settings, state_of

MATRIX = {"inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP64", "data": [*SETOSA.values()]}]}


class Failing:
    """A predictor that raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def predict(self, rows: Rows) -> Predictions:
        raise self.error


class Blocking:
    """A predictor that answers once it is let go."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Semaphore(0), threading.Event()

    def predict(self, rows: Rows) -> Predictions:
        self.entered.release()
        self.go.wait(60)
        return Predictions(["setosa"] * len(rows), [[1.0, 0.0, 0.0]] * len(rows))


@pytest.fixture
def client(tmp_path: Path, examples: dict[str, Example]) -> Iterator[TestClient]:
    """Iris (ONNX) by default, and slow (skops, in a thread)."""
    for name in ("iris", "slow"):
        cache_bundle(tmp_path, name, examples[name].bundle)
    app = create_app(settings(tmp_path, default_model="iris"), absent_mlflow())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def serve_with(client: TestClient, predictor: Any, name: str = "iris") -> None:
    models = state_of(client).models
    models.install(replace(models.current[name], predictor=predictor))


@pytest.mark.parametrize("name", ["iris", "slow"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("broken"), RuntimeException("std::bad_alloc")])
def test_what_the_values_do_not_cause_is_500_and_counted(
    client: TestClient, error: Exception, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    serve_with(client, Failing(error), name)
    answer = client.post(f"/models/{name}/predict", json=SETOSA)
    assert answer.status_code == 500
    assert type(error).__name__ in Refused.model_validate(answer.json()).detail
    inferred = client.post(f"/v2/models/{name}/infer", json=MATRIX)
    assert inferred.status_code == 500
    assert InferRefused.model_validate(inferred.json()).error
    assert metric(client, "mlops_requests_total", model=name, status="500") == 2
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("error", [ValueError("unknown"), OverflowError("large"), Fail("Unknown Category")])
def test_what_the_values_cause_is_422(client: TestClient, error: Exception) -> None:
    serve_with(client, Failing(error))
    answer = client.post("/predict", json=SETOSA)
    assert answer.status_code == 422
    assert str(error) in answer.json()["detail"][0]["msg"]
    assert metric(client, "mlops_requests_total", model="iris", status="500") == 0


class Burning:
    """A predictor that takes 20 ms of the CPU."""

    takes_matrix = False

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def predict(self, rows: Rows) -> Predictions:
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass
        return self.inner.predict(rows)


def test_an_onnx_model_leaves_the_event_loop_when_it_is_measured_to_be_slow(
    tmp_path: Path, examples: dict[str, Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_bundle(tmp_path, "iris", examples["iris"].bundle)
    with TestClient(create_app(settings(tmp_path), absent_mlflow())) as client:
        assert not state_of(client).models.current["iris"].in_thread
    load = served_model.load_predictor
    monkeypatch.setattr(served_model, "load_predictor", lambda bundle: Burning(load(bundle)))
    with TestClient(create_app(settings(tmp_path), absent_mlflow())) as client:
        assert state_of(client).models.current["iris"].in_thread
        blocking = Blocking()
        serve_with(client, blocking)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.get, "/predict", params=SETOSA)
            assert blocking.entered.acquire(timeout=30)
            assert client.get("/livez").status_code == 200  # the loop turns meanwhile
            blocking.go.set()
            assert waiting.result().status_code == 200


def test_what_waits_for_a_thread_is_bounded_in_bytes(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MAX_WAITING", 250_000)
    blocking = Blocking()
    serve_with(client, blocking)
    body = b"[" + b",".join([b'{"sepal_length":5,"sepal_width":3,"petal_length":1,"petal_width":1}'] * 1500) + b"]"
    with ThreadPoolExecutor(2) as pool:
        first = [pool.submit(client.post, "/predict", content=body) for _ in range(2)]
        for _ in first:
            assert blocking.entered.acquire(timeout=30)
        refused = client.post("/predict", content=body)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert metric(client, "mlops_requests_total", model="iris", status="503") == 1
        blocking.go.set()
        assert [request.result().status_code for request in first] == [200, 200]
    wait_until(lambda: client.post("/predict", content=body).status_code == 200)
