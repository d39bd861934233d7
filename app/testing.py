"""What tests share: servers to start, kill and start again; the commands that the docs tell people to run."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

from app.cli.services import Service, wait_for

ROOT = Path(__file__).parents[1]
START_SECONDS = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server that tests may stop (SIGKILL of its whole process group) and start again with the same data."""

    def __init__(self, name: str, command: list[str], uri: str, health: str, env: dict[str, str], logs: Path) -> None:
        self.name, self.command, self.uri, self.health, self.env, self.logs = name, command, uri, health, env, logs
        self.service: Service | None = None

    def start(self) -> None:
        if self.service and not self.service.ended:
            return
        service = Service(self.name, [sys.executable, "-m", *self.command], self.env, self.logs)
        self.service = service
        if not wait_for(f"{self.uri}{self.health}", START_SECONDS, lambda: service.ended):
            raise RuntimeError(f"{self.name} did not start:\n{service.tail(40)}")

    def stop(self, grace: float = 0) -> None:
        if self.service:
            self.service.stop(grace)


def shell_commands(page: Path) -> list[str]:
    """The lines of a Markdown page's sh blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def python_block(page: Path) -> str:
    """The first python block of a Markdown page."""
    found = re.search(r"```python\n(.*?)```", page.read_text(), re.S)
    assert found, f"{page} has no python block"
    return found[1]
