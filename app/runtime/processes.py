"""Child processes and the wait for their health."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx

from app.runtime.waiting import wait_until

PR_SET_PDEATHSIG = 1
START_SECONDS = 120.0
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """In the child: be told to stop when the parent is killed, so that even `kill -9` leaves no process behind."""
    if _libc:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def answers(url: str) -> bool:
    """Whether the URL answers 2xx now."""
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


def wait_for_url(url: str, seconds: float, interrupted: Callable[[], bool] = lambda: False) -> bool:
    """Whether the URL answers 2xx within the seconds (at least one try), unless interrupted."""

    def outcome() -> str:
        return "up" if answers(url) else "interrupted" if interrupted() else ""

    try:
        return wait_until(outcome, seconds) == "up"
    except TimeoutError:
        return False


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mlflow_server(port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments after `python -m`, and environment, of an MLflow server that keeps everything in the folder."""
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    return command, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class ChildProcess:
    """A child process in a group of its own, with a log file.

    Args:
        name: for messages and the log's name.
        command: program and arguments.
        env: in addition to this process' environment.
        logs: folder of the log file.
    """

    def __init__(self, name: str, command: list[str], env: dict[str, str], logs: Path) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        with self.log.open("ab") as log:
            self._log_begin = log.tell()  # earlier processes of this name wrote what is before
            self.process = subprocess.Popen(  # noqa: S603
                command,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # the signal is sent when the *thread* that started the child ends, so only the main one may ask for it
                preexec_fn=_die_with_parent if threading.current_thread() is threading.main_thread() else None,
            )

    @property
    def ended(self) -> bool:
        """Whether the process has ended, in whatever way."""
        return self.process.poll() is not None

    def lines(self) -> list[str]:
        """What this process has logged so far."""
        with self.log.open("rb") as log:
            log.seek(self._log_begin)
            return log.read().decode(errors="replace").splitlines()

    def tail(self, lines: int = 15) -> str:
        """The end of what it has logged."""
        return "\n".join(self.lines()[-lines:]).strip()

    def stop(self, grace: float = 10.0) -> None:
        """End the whole process group: politely, then for good."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        self.signal(signal.SIGKILL)
        self.process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group; nothing happens where it has ended."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return


class Server:
    """A Python server that may be stopped (SIGKILL of its whole process group) and started again with the same data.

    Args:
        name: for messages and the log's name.
        command: arguments after `python -m`.
        uri: its base URL; health: the path that answers 2xx once it is up.
        env: in addition to this process' environment.
        logs: folder of its log file.
    """

    def __init__(self, name: str, command: list[str], uri: str, health: str, env: dict[str, str], logs: Path) -> None:
        self.name, self.command, self.uri, self.health, self.env, self.logs = name, command, uri, health, env, logs
        self.process: ChildProcess | None = None

    def start(self) -> None:
        """Start it unless it runs, and wait until it is healthy.

        Raises:
            RuntimeError: it ended, or was not healthy in two minutes; with the end of its log.
        """
        if self.process and not self.process.ended:
            return
        process = ChildProcess(self.name, [sys.executable, "-m", *self.command], self.env, self.logs)
        self.process = process
        if not wait_for_url(f"{self.uri}{self.health}", START_SECONDS, lambda: process.ended):
            raise RuntimeError(f"{self.name} did not start:\n{process.tail(40)}")

    def stop(self, grace: float = 0) -> None:
        """End it: after so many seconds for good."""
        if self.process:
            self.process.stop(grace)
