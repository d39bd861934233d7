"""What tests share: servers to start and kill, peers that answer wrongly, the browser, the commands of the docs."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from app.cli.services import Service, wait_for

ROOT = Path(__file__).parents[1]
START_SECONDS = 120
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


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


@dataclass
class Peer:
    """A server that forwards to a real one, but for the paths (as they begin) that have an answer of their own.

    A real peer cannot be made to answer wrongly. An answer is a status and a body; None never comes.
    """

    behind: str = ""
    answers: dict[str, tuple[int, Any] | None] = field(default_factory=dict)
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes] | None:
        for begin, said in self.answers.items():
            if path.startswith(begin):
                if said is None:
                    return None
                status, content = said
                if isinstance(content, str):
                    return status, "text/html", content.encode()
                return status, "application/json", json.dumps(content).encode()
        sent = httpx.request(method, self.behind + path, content=body, headers=headers, timeout=30)
        return sent.status_code, sent.headers.get("content-type", "text/plain"), sent.content


@contextmanager
def serving(peer: Peer) -> Iterator[Peer]:
    """Run the peer on a free port; its `url` is set."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("content-length", 0))
            kept = {key: value for key, value in self.headers.items() if key.lower() == "content-type"}
            said = peer.answer(self.command, self.path, self.rfile.read(length), kept)
            if said is None:
                peer.over.wait(60)
                return
            status, kind, content = said
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_PATCH = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    peer.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield peer
    finally:
        peer.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def shell_commands(page: Path, fence: str = "sh") -> list[str]:
    """The lines of a Markdown page's sh blocks, which are for the demo; bash blocks are for Kubernetes."""
    blocks = re.findall(rf"```{fence}\n(.*?)```", page.read_text(), re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def python_block(page: Path) -> str:
    """The first python block of a Markdown page."""
    found = re.search(r"```python\n(.*?)```", page.read_text(), re.S)
    assert found, f"{page} has no python block"
    return found[1]
