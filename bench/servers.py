"""A server on the servers' core: its start, its memory, and the end of it and all of its processes."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import psutil

from app.runtime.processes import ChildProcess
from bench.load import Request
from bench.machine import SERVER_CORE

START_SECONDS = 120.0
PAUSE = 0.005  # seconds between two questions to a server that starts


class NotMeasured(Exception):
    """A server cannot be installed or started, or does not answer as it should."""


class Server:
    """A server that is started when this is created.

    Args:
        name: for its log.
        port: of 127.0.0.1, where it will listen.
        folder: of its log.
    """

    def __init__(self, name: str, command: list[str], env: dict[str, str], port: int, folder: Path) -> None:
        self.base = f"http://127.0.0.1:{port}"
        # the client first, as making one takes a while
        self.client = httpx.Client(base_url=self.base, timeout=START_SECONDS)
        self.begun = time.perf_counter()
        self.child = ChildProcess(name, ["taskset", "-c", str(SERVER_CORE), *command], env, folder)
        self.process = psutil.Process(self.child.process.pid)

    def answer(self, request: Request, expected: str) -> float:
        """Ask until there is an answer.

        Args:
            expected: what the answer must have in it.

        Returns:
            seconds from the start of the process to the answer.

        Raises:
            NotMeasured: the server ended, gives another answer, or none in two minutes.
        """
        answer = ""
        until = time.perf_counter() + START_SECONDS
        while time.perf_counter() < until:
            if self.child.ended:
                raise NotMeasured(cause(self.child.lines()))
            try:
                response = self.client.post(
                    request.path, content=request.body, headers={"Content-Type": "application/json"}
                )
            except httpx.TransportError:
                time.sleep(PAUSE)
                continue
            seconds = time.perf_counter() - self.begun
            answer = f"{response.status_code} {response.text}"
            if response.is_success:
                if expected not in response.text:
                    raise NotMeasured(f"it answers {answer[:200]}")
                return seconds
            time.sleep(PAUSE)
        raise NotMeasured(f"it answers {answer[:200]}" if answer else "it does not answer")

    def memory(self) -> float:
        """Resident memory of all of its processes, in MB."""
        total = 0
        for process in self._processes():
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total / 1e6

    def stop(self) -> None:
        """End it with all of its processes, those in groups of their own, too."""
        processes = self._processes()
        self.client.close()
        self.child.stop(grace=5)
        for process in processes:
            if process.is_running():  # the same, not another one with its number
                process.kill()
        psutil.wait_procs(processes, timeout=5)

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def cause(lines: list[str]) -> str:
    """Why a program ended, of what it printed: its last line that looks like an error, else the last line."""
    errors = [line for line in lines if re.match(r"(error|fatal|[\w.]*(Error|Exception|Stop)): ", line.strip())]
    said = [line for line in lines if line.strip()]
    return (errors or said or ["it ended without a word"])[-1].strip()
