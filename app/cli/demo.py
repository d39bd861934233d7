"""`mlops demo`: the platform as processes on this machine, from an empty folder to a verified prediction."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import secrets
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

import click

from app.cli.errors import CommandError
from app.cli.folder_lock import lock_folder
from app.clients.errors import ServiceError
from app.clients.mlflow import MlflowClient
from app.clients.model_api import ModelApiClient
from app.contract.models import ModelInfo
from app.contract.predictions import Prediction
from app.registry.bundle import Bundle, fetch_bundle
from app.registry.predictor import example_difference
from app.runtime.processes import ChildProcess, mlflow_server, wait_for_url
from app.runtime.settings import PlatformSettings
from app.runtime.waiting import wait_until

LABELS = {"mlflow": "MLflow", "prefect": "Prefect", "api": "Model API", "ui": "Page server", "train": "The training"}
NEEDED_BYTES = 500_000_000
START_SECONDS = 180.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Demo:
    """One run of the demo.

    Args:
        model: the model to train.
        folder: databases, artifacts, cache and logs; kept between runs.
        ports: of mlflow, prefect, api and ui on 127.0.0.1.
    """

    def __init__(self, model: str, folder: Path, ports: dict[str, int]) -> None:
        self.model, self.folder, self.ports = model, folder.absolute(), ports
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        self.services: list[ChildProcess] = []
        self.training: ChildProcess | None = None
        self.result = self.folder / "logs" / "train.json"
        self.is_up: set[str] = set()
        self.started = time.monotonic()

    def run(self, once: bool) -> None:
        """Start everything, train, predict, print; then wait for Ctrl-C unless `once`.

        Raises:
            CommandError: something stops it. Whatever was started is stopped again.
        """
        lock = self._prepare()
        for number in SIGNALS:
            signal.signal(number, _interrupt)
        try:
            version = self._train(self._start_servers())
            self._show(*self._predict(version))
            if once:
                return
            self._serve_deployments()
            self._watch()
        except KeyboardInterrupt:
            click.echo("\nStopping.")
        finally:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of them running
            for service in self.services:
                service.signal(signal.SIGTERM)
            for service in reversed(self.services):
                service.stop()
            lock.close()

    # -- before anything is started --------------------------------------------------------------------------------

    def _prepare(self) -> TextIO:
        """Check folder, disk and ports; returns the lock of the folder, which is held while it is open."""
        lock = self._lock_folder()
        free = shutil.disk_usage(self.folder).free
        if free < NEEDED_BYTES:
            raise CommandError(
                f"{free // 1_000_000} MB free on the disk of {self.folder}, {NEEDED_BYTES // 1_000_000} MB are needed",
                "free some, or name another folder with --folder",
            )
        for name, port in self.ports.items():
            self._check_port(name, port)
        return lock

    def _lock_folder(self) -> TextIO:
        try:
            (self.folder / "logs").mkdir(parents=True, exist_ok=True)
            lock = lock_folder(self.folder)
            probe = self.folder / "logs" / ".probe"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                what, cure = f"no room left on the disk of {self.folder}", "free some and run it again"
            else:
                what = f"{self.folder} cannot be written ({error.strerror})"
                cure = "make it writable, or name another with --folder"
            raise CommandError(what, cure) from error
        return lock

    def _check_port(self, name: str, port: int) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise CommandError(
                    f"port {port}, which {LABELS[name]} needs, is in use",
                    f"stop what uses it, or run `mlops demo --{name}-port {port + 1}`",
                ) from error

    # -- the steps -------------------------------------------------------------------------------------------------

    def _env(self) -> dict[str, str]:
        home = self.folder / "prefect"
        home.mkdir(exist_ok=True)
        return {
            "MLFLOW_TRACKING_URI": self.urls["mlflow"],
            "PREFECT_API_URL": f"{self.urls['prefect']}/api",
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
            "DO_NOT_TRACK": "1",
            "MLOPS_API_URL": self.urls["api"],
            "MLOPS_CACHE_DIR": str(self.folder / "cache"),
            "MLOPS_DEFAULT_MODEL": self.model,
            "MLOPS_POLL_SECONDS": "1",
            "MLOPS_FEEDBACK_KEY": self._secret("feedback.key"),
            "MLOPS_PORT": str(self.ports["api"]),
            "MLOPS_UI_PORT": str(self.ports["ui"]),
        }

    def _secret(self, name: str) -> str:
        path = self.folder / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(32))
        return path.read_text()

    def _start(self, name: str, command: list[str], env: dict[str, str] | None = None) -> ChildProcess:
        service = ChildProcess(
            name, [sys.executable, "-m", *command], {**self._env(), **(env or {})}, self.folder / "logs"
        )
        self.services.append(service)
        return service

    def _start_servers(self) -> ChildProcess:
        """Start all but the pages; returns the training, which runs already."""
        data = self.folder / "mlflow"
        data.mkdir(exist_ok=True)
        self._say(f"starting MLflow, Prefect, the training of {self.model}, the API and the pages")
        self.mlflow = self._start("mlflow", *mlflow_server(self.ports["mlflow"], data))
        self.prefect = self._start(
            "prefect", ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.ports["prefect"])]
        )
        # its imports take as long as the servers' start, so it waits for them rather than they for it
        self.result.unlink(missing_ok=True)
        command = ["app.cli", "train", self.model, "--wait", str(START_SECONDS), "--result", str(self.result)]
        self.training = self._start("train", [*command, "--who", "mlops demo"])
        self._await(self.mlflow, f"{self.urls['mlflow']}/health", "MLflow")
        self._await(self.prefect, f"{self.urls['prefect']}/api/health", "Prefect")
        self.api = self._start("api", ["app.api"])
        return self.training

    def _train(self, training: ChildProcess) -> str:
        self._lines_shown = 0

        def ended() -> bool:
            has_ended = training.ended  # before its last lines are read
            self._show_progress(training)
            self._check_alive()
            return has_ended

        wait_until(ended, math.inf)
        result = json.loads(self.result.read_text())
        version, decision = str(result["version"]), result["decision"]
        self.services.remove(training)
        self._say(f"registered version {version} of {self.model}: {decision['reason']}")
        if decision["outcome"] == "refused":
            raise CommandError(
                f"version {version} was refused by the check {decision['check']}: {decision['reason']}",
                f"`mlops history {self.model}` has every decision",
            )
        self.ui = self._start("ui", ["app.ui"])
        return version

    def _show_progress(self, training: ChildProcess) -> None:
        """Print what Prefect's task runs have logged since the last time."""
        lines = training.lines()
        shown, self._lines_shown = self._lines_shown, len(lines)
        for line in lines[shown:]:
            if "Task run '" in line and "Finished in state" not in line:
                task, _, message = line.split("Task run '", 1)[1].partition("' - ")
                self._say(f"  {task.rsplit('-', 1)[0]}: {message.strip()}")

    def _predict(self, version: str) -> tuple[ModelInfo, Prediction]:
        """The API's verified answer for the version's example."""
        self._await(self.api, f"{self.urls['api']}/livez", "Model API")
        with ModelApiClient(self.urls["api"], key=PlatformSettings().api_key) as api:
            info = self._taken_up(api, version)
            answer = api.predict(self.model, info.example)
        if answer.version != version:
            raise CommandError(f"version {version} was promoted, but {answer.version} answered")
        with MlflowClient(self.urls["mlflow"]) as registry:
            bundle = fetch_bundle(registry, registry.version(self.model, version), self.folder / "cache" / "gate")
        verify(bundle, answer.prediction)
        return info, answer

    def _taken_up(self, api: ModelApiClient, version: str) -> ModelInfo:
        """Wait until the API serves the version."""
        last: list[ModelInfo] = []

        def served() -> ModelInfo | None:
            self._check_alive()
            with contextlib.suppress(ServiceError):  # it has no version of the model yet
                last[:] = [api.model(self.model)]
            return last[0] if last and last[0].version == version else None

        def problem() -> str:
            failure = last[0].last_failure if last else None
            why = failure.reason if failure else last[0] if last else "it does not serve the model"
            return f"the API did not take up version {version}: {why} (log: {self.api.log})"

        try:
            return wait_until(served, 60, problem, 0.05)
        except TimeoutError as error:
            raise CommandError(str(error)) from error

    def _show(self, info: ModelInfo, answer: Prediction) -> None:
        self._await(self.ui, f"{self.urls['ui']}/_stcore/health", "Page server")
        values = [f"{name}={value}" for name, value in info.example.items()]
        seconds = time.monotonic() - self.started
        api = self.urls["api"]
        click.echo(
            f"\n{self.model} version {answer.version} says {click.style(str(answer.prediction), bold=True)} "
            f"for {' '.join(values)}   ({seconds:.0f} s after the start)\n\n"
            f"  Pages      {self.urls['ui']}\n"
            f"  Model API  {api}/docs\n"
            f"  MLflow     {self.urls['mlflow']}\n"
            f"  Prefect    {self.urls['prefect']}\n\n"
            f"  curl '{api}/predict?{'&'.join(values)}'\n"
        )

    def _serve_deployments(self) -> None:
        self._start("deployments", ["flows.serve"])
        click.echo("Ctrl-C stops everything; the history stays in " + str(self.folder))

    def _watch(self) -> None:
        wait_until(self._dead, math.inf, pause=0.5)
        self._check_alive()

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _await(self, service: ChildProcess, url: str, label: str) -> None:
        if label in self.is_up:
            return
        if not wait_for_url(url, START_SECONDS, lambda: service.ended or self._dead() is not None):
            self._check_alive()
            raise CommandError(f"{label} did not answer at {url} within {START_SECONDS:.0f} s; its log: {service.log}")
        self.is_up.add(label)
        self._say(f"{label} is up")

    def _dead(self) -> ChildProcess | None:
        """A service that should not have ended; the training may, once it has left its result."""
        done = self.training if self.result.exists() else None
        return next((service for service in self.services if service.ended and service is not done), None)

    def _check_alive(self) -> None:
        dead = self._dead()
        if dead:
            raise CommandError(
                f"{LABELS.get(dead.name, dead.name)} ended with code {dead.process.returncode}:\n{dead.tail()}\n"
                f"(whole log: {dead.log})"
            )

    def _say(self, text: str) -> None:
        click.echo(f"[{time.monotonic() - self.started:5.1f} s] {text}")


def verify(bundle: Bundle, prediction: Any) -> None:
    """Check an answer for the version's example.

    Raises:
        CommandError: the estimator itself answers otherwise.
    """
    difference = example_difference(bundle, prediction)
    if difference:
        raise CommandError(f"the API's answer is not the estimator's: {difference}")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
