"""The API as a process: swaps under load, kills, terminations, limits of memory and start."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.clients.mlflow import PRODUCTION, MlflowClient
from app.clients.model_api import WITH_TOKENS
from app.registry.feedback_store import read
from app.runtime.processes import Server
from app.runtime.waiting import wait_until
from app.testing.model_api import SETOSA, Example, cache_bundle, metric, publish

Process = Callable[..., Server]


def ready(server: Server) -> None:
    with httpx.Client(base_url=server.uri) as client:
        wait_until(lambda: client.get("/predict", params=SETOSA).status_code == 200)


def serves(client: httpx.Client, name: str, version: str) -> bool:
    return client.get(f"/models/{name}").json()["version"] == version


def test_a_swap_under_load_fails_no_request_and_mixes_no_answer(
    process: Process, mlflow: MlflowClient, model_name: str, examples: dict[str, Example], permuted: Example
) -> None:
    versions = {publish(mlflow, model_name, examples["iris"].bundle): "setosa"}
    versions[publish(mlflow, model_name, permuted.bundle, promote=False)] = "virginica"
    runs = {version: mlflow.version(model_name, version).run_id for version in versions}
    server = process()
    ready(server)
    stop = threading.Event()

    def load(kind: int) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        with httpx.Client(base_url=server.uri) as client:
            while not stop.is_set():
                if kind % 2:
                    response = client.get("/predict", params=SETOSA)
                else:
                    response = client.post("/predict", json=[SETOSA] * 70)
                assert response.status_code == 200, response.text
                body = response.json()
                answers += body if isinstance(body, list) else [body]
        return answers

    with ThreadPoolExecutor(6) as pool, httpx.Client(base_url=server.uri) as client:
        futures = [pool.submit(load, kind) for kind in range(6)]
        try:
            for version in [*reversed(versions), *versions, *reversed(versions)]:
                mlflow.set_alias(model_name, PRODUCTION, version)
                wait_until(partial(serves, client, model_name, version))
        finally:
            stop.set()
        answers = [answer for future in futures for answer in future.result()]
    assert {answer["version"] for answer in answers} == set(versions)
    for answer in answers:
        assert answer["prediction"] == versions[answer["version"]]
        assert answer["run_id"] == runs[answer["version"]]


def test_acknowledged_feedback_survives_a_kill(
    process: Process, mlflow: MlflowClient, model_name: str, examples: dict[str, Example]
) -> None:
    publish(mlflow, model_name, examples["iris"].bundle)
    server = process()
    ready(server)
    killed = threading.Event()
    acknowledged: list[str] = []

    def send() -> None:
        with httpx.Client(base_url=server.uri, timeout=30, headers=WITH_TOKENS) as client:
            while not killed.is_set():
                try:
                    answer = client.get("/predict", params=SETOSA).json()
                    body = {"feedback_token": answer["feedback_token"], "label": "setosa"}
                    if client.post("/feedback", json=body).status_code == 201:
                        acknowledged.append(answer["prediction_id"])
                except httpx.TransportError:
                    return

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(send) for _ in range(8)]
        wait_until(lambda: len(acknowledged) >= 40)
        assert server.process
        server.process.signal(signal.SIGKILL)
        killed.set()
        for future in futures:
            future.result()
    stored = {row["id"] for row in read(mlflow, model_name)}
    assert set(acknowledged) <= stored


def test_a_termination_answers_what_is_under_way(
    process: Process, mlflow: MlflowClient, model_name: str, examples: dict[str, Example]
) -> None:
    publish(mlflow, model_name, examples["iris"].bundle)
    server = process()
    ready(server)
    assert server.process
    begun = threading.Barrier(9)

    def send() -> tuple[str, int]:
        with httpx.Client(base_url=server.uri, timeout=30, headers=WITH_TOKENS) as client:
            answer = client.get("/predict", params=SETOSA).json()
            body = {"feedback_token": answer["feedback_token"], "label": "setosa"}
            begun.wait()
            try:
                return answer["prediction_id"], client.post("/feedback", json=body).status_code
            except httpx.TransportError:  # came after the end
                return answer["prediction_id"], 0

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(send) for _ in range(8)]
        begun.wait()
        server.process.signal(signal.SIGTERM)
        answers = [future.result() for future in futures]
    assert server.process.process.wait(30) in (0, -signal.SIGTERM)
    stored = {row["id"] for row in read(mlflow, model_name)}
    assert {name for name, status in answers if status == 201} <= stored
    assert {status for _, status in answers} <= {0, 201, 503}


def test_a_model_in_onnx_takes_no_scikit_learn_and_little_memory(
    process: Process, examples: dict[str, Example], tmp_path: Path
) -> None:
    cache_bundle(tmp_path / "cache", "iris", examples["iris"].bundle)
    server = process(MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    ready(server)
    assert server.process
    process_info = psutil.Process(server.process.process.pid)
    assert process_info.memory_info().rss < 160 * 1024**2
    loaded = [region.path for region in process_info.memory_maps()]
    assert [path for path in loaded if "/onnxruntime/" in path]
    assert not [
        path for path in loaded if any(f"/site-packages/{name}/" in path for name in ("sklearn", "pandas", "grpc"))
    ]


def test_the_process_counts_its_requests(process: Process, examples: dict[str, Example], tmp_path: Path) -> None:
    cache_bundle(tmp_path / "cache", "iris", examples["iris"].bundle)
    server = process(MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    with httpx.Client(base_url=server.uri) as client:
        for _ in range(50):
            assert client.get("/predict", params=SETOSA).status_code == 200
        assert metric(client, "mlops_requests_total", model="iris", status="200") == 50
        assert metric(client, "http_requests_total", handler="/predict", status="2xx") == 50
        assert metric(client, "process_resident_memory_bytes")


@pytest.mark.parametrize(
    "start",
    [
        b"content-length: 99999999\r\n\r\n[",
        b"transfer-encoding: chunked\r\n\r\n" + (b"10000\r\n" + b"[" * 0x10000 + b"\r\n") * 17,
    ],
)
def test_a_body_over_the_limit_is_refused_before_it_is_complete(
    process: Process, examples: dict[str, Example], tmp_path: Path, start: bytes
) -> None:
    cache_bundle(tmp_path / "cache", "iris", examples["iris"].bundle)
    server = process(MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    address = httpx.URL(server.uri)
    with socket.create_connection((address.host, address.port or 80), timeout=30) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\n" + start)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("MLOPS_PORT", "many"), ("MLFLOW_TRACKING_URI", "sqlite:///x"),
     ("MLFLOW_TRACKING_URI", "http://mlflow:many"), ("MLFLOW_TRACKING_URI", "http://"), ("MLOPS_CACHE_DIR", "/proc/no"),
     ("MLOPS_FEEDBACK_KEY", "short")],
)  # fmt: skip
def test_a_wrong_setting_ends_it_in_words(process: Process, name: str, value: str) -> None:
    with pytest.raises(RuntimeError, match="the API cannot start") as error:
        process(**{"MLOPS_FEEDBACK_KEY": "", name: value})
    assert "Traceback" not in str(error.value)


def test_what_a_start_from_the_cache_does_not_need_is_not_imported() -> None:
    names = {"fastapi", "grpc", "httpx", "pandas", "scipy", "sklearn", "skops"}
    code = f"import sys, app.api.main, app.runtime.server; print(sorted({names} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
