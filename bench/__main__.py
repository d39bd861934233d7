"""`make bench`: the figures of the README, measured here in one run.

`make bench ARGS=--demo` adds the demo's, `make bench ARGS=--platform` those of the platform of `make up`;
`ARGS='--platform --fresh'` takes that down first, with all that is stored in it, and measures how it comes up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import mlflow
import psutil

from app.clients.mlflow import MlflowClient
from app.registry.promotion import promote
from app.runtime.processes import ChildProcess, free_port, mlflow_server, wait_for_url
from app.runtime.waiting import wait_until
from bench import platform
from bench.load import Load, load
from flows import dataset
from flows.bundle_writer import FittedModel
from flows.catalog import load_model
from flows.register import register

SERVER_CORE, CLIENT_CORE = 0, 1
CONNECTIONS = 16
SECONDS = 5.0
ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


class Bench:
    """Servers of one run and the rows of its table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[tuple[str, str, str]] = []
        os.environ["MLOPS_CACHE_DIR"] = str(folder / "gate")
        # `mlflow models serve` looks for uvicorn on the PATH
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

    def add(self, what: str, figure: str, goal: str = "") -> None:
        """Add a row to the table, and print it."""
        self.rows.append((what, figure, goal))
        sys.stderr.write(f"  {what}: {figure}\n")

    def service(self, name: str, command: list[str], pinned: bool, **env: str) -> ChildProcess:
        """Start `python -m` with this command, on the servers' core alone where it is pinned."""
        pin = ["taskset", "-c", str(SERVER_CORE)] if pinned else []
        return ChildProcess(name, [*pin, sys.executable, "-m", *command], env, self.folder)

    def start_mlflow(self) -> ChildProcess:
        """Start an MLflow server, and name it in the environment."""
        port = free_port()
        self.mlflow = f"http://127.0.0.1:{port}"
        os.environ["MLFLOW_TRACKING_URI"] = self.mlflow
        command, env = mlflow_server(port, self.folder)
        service = self.service("mlflow", command, False, **env)
        _wait_until_up(service, f"{self.mlflow}/health")
        return service

    def register(self) -> tuple[str, str]:
        """Put iris into production.

        Returns:
            MLflow's URIs of the registered version, and of the same estimator as a plain scikit-learn model.
        """
        iris = load_model("iris")
        train, held_out = dataset.split(iris, dataset.validate(iris, iris.load()))
        features, labels = train.drop(columns="species"), train["species"]
        estimator = iris.estimator(42).fit(features, labels)
        mlflow.set_tracking_uri(self.mlflow)
        with MlflowClient() as registry:
            run = registry.create_run(registry.ensure_experiment("bench"), "bench", {})
            version = register(registry, "iris", run, FittedModel.of(iris, estimator, train), held_out, {})
            promote(registry, "iris", definition=iris.definition, who="bench")
        with mlflow.start_run():
            plain = mlflow.sklearn.log_model(
                estimator, name="plain", skops_trusted_types=["sklearn.tree._tree.Tree"], input_example=features.head(1)
            )
        return f"models:/iris/{version.version}", plain.model_uri

    def api(self) -> None:
        """Measure the model API: its start from the cache, its rates and its memory."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        query = "&".join(f"{name}={value}" for name, value in ROW.items())
        env = {"MLOPS_PORT": str(port), "MLOPS_CACHE_DIR": str(self.folder / "cache"), "MLOPS_DEFAULT_MODEL": "iris"}
        service = self.service("api", ["app.api"], True, **env)
        _wait_until_up(service, f"{url}/readyz")
        service.stop()

        begin = time.perf_counter()
        service = self.service("api", ["app.api"], True, **env)
        wait_until(lambda: _prediction(f"{url}/predict?{query}") == "setosa", 120, "a prediction", pause=0.005)
        self.add("API, start to first prediction from cache", f"{time.perf_counter() - begin:.2f} s", "2 s")
        try:
            load(f"{url}/predict?{query}", seconds=1)
            body = json.dumps(ROW).encode()
            self.get_load = load(f"{url}/predict?{query}", seconds=SECONDS)
            self.add_load("API, GET /predict", self.get_load, "2,000/s")
            self.add_load("API, POST /predict", load(f"{url}/predict", body, seconds=SECONDS), "2,000/s")
            table = json.dumps({"dataframe_records": [ROW]}).encode()
            self.invocations_load = load(f"{url}/invocations", table, seconds=SECONDS)
            self.add_load("API, POST /invocations", self.invocations_load, "")
            rss = psutil.Process(service.process.pid).memory_info().rss / 1e6
            self.add("API, memory (RSS) after the load", f"{rss:.0f} MB", "160 MB")
        finally:
            service.stop()

    def mlflow_serve(self, label: str, uri: str) -> None:
        """Measure `mlflow models serve` of a model's URI, and set the API against it; `api` comes first."""
        port = free_port()
        command = ["mlflow", "models", "serve", "-m", uri, "-p", str(port), "--env-manager", "local", "--workers", "1"]
        service = self.service("serve", command, True)
        url = f"http://127.0.0.1:{port}"
        body = json.dumps({"dataframe_records": [ROW]}).encode()
        try:
            _wait_until_up(service, f"{url}/ping")
            load(f"{url}/invocations", body, seconds=1)
            measured = load(f"{url}/invocations", body, seconds=SECONDS)
            self.add_load(label, measured, "")
            for path, of_api in (("GET /predict", self.get_load), ("POST /invocations", self.invocations_load)):
                self.add(f"  API {path} against it", f"{of_api.rate / measured.rate:.0f} times", "50 times")
        finally:
            service.stop()

    def add_load(self, what: str, measured: Load, goal: str) -> None:
        """Add a row with a load's figures."""
        failed = f", {measured.failed} FAILED" if measured.failed else ""
        figure = f"{measured.rate:,.0f}/s, p50 {measured.p50:.2f} ms, p99 {measured.p99:.2f} ms{failed}"
        self.add(what, figure, goal)

    def demo(self) -> None:
        """Time the demo of a fresh clone, then once more."""
        clone = self.folder / "clone"
        subprocess.run(["git", "clone", "-q", ".", str(clone)], check=True)
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "MLFLOW_"))}
        ports = " ".join(f"--{name}-port {free_port()}" for name in ("mlflow", "prefect", "api", "ui"))
        for label, goal in (("a fresh clone", "90 s"), ("warm", "30 s")):
            begin = time.perf_counter()
            # the prediction is printed at the end; what follows it is only the stop
            with subprocess.Popen(
                ["make", "demo", f"ARGS={ports}"],
                cwd=clone,
                env={**env, "ONCE": "1"},
                stdout=subprocess.PIPE,
                text=True,
            ) as run:
                assert run.stdout
                first = next((time.perf_counter() for line in run.stdout if " says setosa" in line), None)
            if run.returncode or first is None:
                raise SystemExit(f"`make demo` on {label} failed with {run.returncode}")
            self.add(f"make demo to first prediction, {label}", f"{first - begin:.0f} s", goal)

    def table(self) -> str:
        """All rows as a Markdown table."""
        rows = [("what", "measured", "goal"), *self.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
        ]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join(lines)


def _wait_until_up(service: ChildProcess, url: str) -> None:
    if not wait_for_url(url, 120, lambda: service.ended):
        raise SystemExit(f"{service.name} did not answer at {url}:\n{service.tail(30)}")


def _prediction(url: str) -> Any:
    """What the API predicts; None while it does not answer."""
    try:
        return httpx.get(url).json().get("prediction")
    except httpx.HTTPError:
        return None


def main() -> None:
    """Measure what the options name, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", action="store_true", help="also time `make demo` on a fresh clone")
    parser.add_argument("--platform", action="store_true", help="also measure the platform of `make up`")
    parser.add_argument(
        "--fresh", action="store_true", help="with --platform: take it down first, with all of its data"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch))
        if options.demo:
            bench.demo()
        if options.platform:
            platform.measure(bench.add, bench.folder, options.fresh)
        server = bench.start_mlflow()
        try:
            onnx, plain = bench.register()
            os.sched_setaffinity(0, {CLIENT_CORE})
            bench.api()
            bench.mlflow_serve("mlflow models serve, scikit-learn model", plain)
            bench.mlflow_serve("mlflow models serve, our ONNX version", onnx)
        finally:
            server.stop()
    sys.stdout.write(f"{CONNECTIONS} connections, {SECONDS:.0f} s each, server on core {SERVER_CORE}, one worker\n\n")
    sys.stdout.write(bench.table() + "\n")


if __name__ == "__main__":
    main()
