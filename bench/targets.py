"""The servers that are measured: how each is started, and how a prediction is asked of it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.runtime.processes import free_port
from bench.load import Request
from bench.machine import ROOT
from bench.models import Iris
from images import environments

PEERS = Path(__file__).parent / "peers"
ENVIRONMENTS = ROOT / ".mlops" / "bench"
Rows = list[list[float]]


@dataclass(frozen=True)
class Launch:
    """A command, and environment variables besides those of this process."""

    command: list[str]
    env: dict[str, str]


@dataclass(frozen=True)
class Start:
    """What a server is started with.

    programs: the folder of its environment's programs.
    folder: for what it writes.
    """

    programs: Path
    iris: Iris
    port: int
    folder: Path

    def python(self, *arguments: str | Path, **env: str) -> Launch:
        """Its environment's Python with these arguments."""
        return Launch([str(self.programs / "python"), *map(str, arguments)], env)


@dataclass(frozen=True)
class Target:
    """A server.

    name: for the command line; label: for people.
    packages: whose versions are told.
    launch: how it is started.
    path: where it takes predictions; body: the JSON that asks for those of some rows.
    locked: its dependencies are requirements/<locked>.txt; dev's are those of the project.
    has_rate: it is also measured at a fixed rate.
    """

    name: str
    label: str
    packages: tuple[str, ...]
    launch: Callable[[Start], Launch]
    path: str | Callable[[Rows], str]
    body: Callable[[Iris, Rows], Any]
    locked: str = "dev"
    has_rate: bool = False

    @property
    def lock(self) -> Path:
        """The file of its dependencies' versions."""
        return ROOT / "requirements" / f"{self.locked}.txt"

    def programs(self) -> Path:
        """The folder of its environment's programs; the environment is made where it is not there.

        Raises:
            RuntimeError: it cannot be installed; with what uv says.
        """
        if self.locked == "dev":
            return Path(sys.executable).parent
        return environments.programs(self.lock, ENVIRONMENTS)

    def versions(self) -> str:
        """Its packages with their versions, such as "mlserver 1.7.1"."""
        locked = dict(re.findall(r"^([\w-]+)==(\S+)", self.lock.read_text(), re.MULTILINE))
        return ", ".join(f"{name} {locked[name]}" for name in self.packages)

    def request(self, iris: Iris, rows: Rows) -> Request:
        """The request for the predictions of these rows."""
        path = self.path if isinstance(self.path, str) else self.path(rows)
        return Request(path, json.dumps(self.body(iris, rows), separators=(",", ":")).encode())


# -- how predictions are asked for -----------------------------------------------------------------------------------


def records(iris: Iris, rows: Rows) -> Any:
    """An object per row; one row is not in a list."""
    objects = [dict(zip(iris.columns, row, strict=True)) for row in rows]
    return objects[0] if len(objects) == 1 else objects


def dataframe_split(iris: Iris, rows: Rows) -> Any:
    """MLflow's."""
    return {"dataframe_split": {"columns": iris.columns, "data": rows}}


def open_inference(datatype: str) -> Callable[[Iris, Rows], Any]:
    """The Open Inference Protocol's: one tensor."""

    def body(iris: Iris, rows: Rows) -> Any:
        data = [value for row in rows for value in row]
        return {"inputs": [{"name": "features", "shape": [len(rows), 4], "datatype": datatype, "data": data}]}

    return body


def under(key: str) -> Callable[[Iris, Rows], Any]:
    """An object with the rows at this key."""
    return lambda iris, rows: {key: rows}


# -- how servers are started -----------------------------------------------------------------------------------------


def api(start: Start) -> Launch:
    """Our API as its image has it, with its cache in its folder."""
    env = {"MLOPS_PORT": str(start.port), "MLOPS_CACHE_DIR": str(start.folder / "cache"), "PYTHONPATH": str(ROOT)}
    return start.python("-m", "app.api", **env, MLOPS_DEFAULT_MODEL="iris")


def script(name: str) -> Callable[[Start], Launch]:
    """A script of bench/peers that takes a port."""
    return lambda start: start.python(PEERS / name, str(start.port))


def mlflow_serve(uri: Callable[[Iris], str]) -> Callable[[Start], Launch]:
    """`mlflow models serve` of a model's URI."""

    def launch(start: Start) -> Launch:
        options = ["-m", uri(start.iris), "-p", str(start.port), "--env-manager", "local", "--workers", "1"]
        return start.python("-m", "mlflow", "models", "serve", *options)

    return launch


def mlserver(implementation: str, model: Callable[[Iris], Path], **settings: Any) -> Callable[[Start], Launch]:
    """MLServer with one model; settings besides its defaults."""

    def launch(start: Start) -> Launch:
        ports = {"http_port": start.port, "grpc_port": free_port(), "metrics_port": free_port()}
        folders = {"metrics_dir": str(start.folder / "metrics"), "environments_dir": str(start.folder / "envs")}
        for folder in folders.values():
            Path(folder).mkdir(exist_ok=True)
        _write(start.folder / "settings.json", {"host": "127.0.0.1", **ports, **folders, **settings})
        parameters = {"uri": str(model(start.iris))}
        described = {"name": "iris", "implementation": implementation, "parameters": parameters}
        _write(start.folder / "model-settings.json", described)
        return Launch([str(start.programs / "mlserver"), "start", str(start.folder)], {"PYTHONPATH": str(PEERS)})

    return launch


def bentoml(start: Start) -> Launch:
    """`bentoml serve`."""
    env = {"BENCH_MODEL": str(start.iris.joblib), "BENTOML_HOME": str(start.folder), "BENTOML_DO_NOT_TRACK": "True"}
    where = ["--working-dir", str(PEERS), "--host", "127.0.0.1", "--port", str(start.port)]
    return start.python("-m", "bentoml", "serve", "bentoml_service:Iris", *where, **env)


def litserve(start: Start) -> Launch:
    """LitServe's server."""
    return start.python(PEERS / "litserve_server.py", start.iris.joblib, str(start.port))


def kserve(start: Start) -> Launch:
    """KServe's server."""
    ports = ["--http_port", str(start.port), "--grpc_port", str(free_port())]
    return start.python(PEERS / "kserve_server.py", start.iris.joblib, *ports)


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def _onnx(iris: Iris) -> Path:
    return iris.onnx


def _joblib(iris: Iris) -> Path:
    return iris.joblib


INFER = "/v2/models/iris/infer"
HELLO = ("uvicorn", "uvloop", "httptools")
OURS = "api"  # whose ratio to each of the others is told
TARGETS = (
    Target(OURS, "API, POST /predict", (), api, "/predict", records, "api", has_rate=True),
    Target("api-infer", "API, POST /v2/…/infer", (), api, INFER, open_inference("FP64"), "api"),
    Target("api-invocations", "API, POST /invocations", (), api, "/invocations", dataframe_split, "api"),
    Target("asgi", "raw ASGI, a constant", HELLO, script("asgi_hello.py"), "/", records, has_rate=True),
    Target(
        "fastapi",
        "FastAPI, a constant",
        ("fastapi", "pydantic", *HELLO),
        script("fastapi_hello.py"),
        lambda rows: "/predict" if len(rows) == 1 else "/predict/rows",
        records,
    ),
    Target(
        "mlserver-onnx",
        "MLServer with onnxruntime",
        ("mlserver", "onnxruntime"),
        # what is fastest on one core: no process of its own for the model, no line per request, no compression, which
        # nobody asks for; its batching (max_batch_size, max_batch_time) was tried and makes it no faster
        mlserver("mlserver_onnx.OnnxModel", _onnx, parallel_workers=0, debug=False, gzip_enabled=False),
        INFER,
        open_inference("FP32"),
        locked="bench-mlserver",
    ),
    Target(
        "mlflow-onnx",
        "mlflow models serve, our ONNX",
        ("mlflow", "onnxruntime"),
        mlflow_serve(lambda iris: iris.onnx_uri),
        "/invocations",
        dataframe_split,
    ),
    Target(
        "mlflow",
        "mlflow models serve",
        ("mlflow", "scikit-learn"),
        mlflow_serve(lambda iris: iris.sklearn_uri),
        "/invocations",
        dataframe_split,
    ),
    Target(
        "mlserver",
        "MLServer",
        ("mlserver", "mlserver-sklearn", "scikit-learn"),
        mlserver("mlserver_sklearn.SKLearnModel", _joblib),
        INFER,
        open_inference("FP32"),
        locked="bench-mlserver",
    ),
    Target(
        "bentoml", "BentoML", ("bentoml", "scikit-learn"), bentoml, "/predict", under("rows"), locked="bench-bentoml"
    ),
    Target(
        "litserve",
        "LitServe",
        ("litserve", "scikit-learn"),
        litserve,
        "/predict",
        under("input"),
        locked="bench-litserve",
    ),
    Target(
        "kserve",
        "KServe",
        ("kserve", "scikit-learn"),
        kserve,
        "/v1/models/iris:predict",
        under("instances"),
        locked="bench-kserve",
    ),
)
