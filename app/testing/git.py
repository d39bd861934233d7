"""Git repositories for tests, and servers that give them out: git's own daemon, and one over HTTP with an account."""

from __future__ import annotations

import base64
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from dulwich.repo import Repo
from dulwich.server import DictBackend
from dulwich.web import HTTPGitApplication

from app.runtime.processes import ChildProcess, free_port
from app.runtime.waiting import wait_until

IDENTITY = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"]


class Repository:
    """A working copy with its history."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        """What git prints for it."""
        command = ["git", *IDENTITY, *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    def commit(self, files: dict[str, str | None], message: str = "Change") -> str:
        """Write files, or remove those whose text is None, and commit; the commit."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")


@contextmanager
def git_daemon(folder: Path, logs: Path) -> Iterator[str]:
    """Git's own daemon for the repositories in a folder; its address, git://127.0.0.1:PORT."""
    port = free_port()
    command = ["git", "daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}"]
    daemon = ChildProcess("git-daemon", [*command, f"--base-path={folder}", str(folder)], {}, logs)

    def listens() -> bool:
        assert not daemon.ended, daemon.tail()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, 20, daemon.tail)
        yield f"git://127.0.0.1:{port}"
    finally:
        daemon.stop()


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def git_over_http(repository: Path, account: tuple[str, str]) -> Iterator[str]:
    """A repository at http://127.0.0.1:PORT/models that asks for an account; its address."""
    opened = Repo(str(repository))
    serve: Callable[..., Any] = HTTPGitApplication(DictBackend({"/models": opened}))  # type: ignore[arg-type]
    wanted = "Basic " + base64.b64encode(":".join(account).encode()).decode()

    def guarded(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if environ.get("HTTP_AUTHORIZATION") != wanted:
            start("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="models"')])
            return [b""]
        return serve(environ, start)

    with make_server("127.0.0.1", 0, guarded, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/models"
        server.shutdown()
        opened.close()
