"""A proxy in front of a real server that answers some paths wrongly, which the real one cannot be made to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import httpx


@dataclass
class FaultyProxy:
    """Forwards every request to the server at `behind`, but for paths that begin as one in `answers`.

    An answer is a status and a body: text, or what is sent as JSON. None leaves the request without an answer.
    """

    behind: str = ""
    answers: dict[str, tuple[int, Any] | None] = field(default_factory=dict)
    url: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes] | None:
        """Status, content type and body of the answer to a request; None leaves it without one."""
        for prefix, answer in self.answers.items():
            if path.startswith(prefix):
                if answer is None:
                    return None
                status, content = answer
                if isinstance(content, str):
                    return status, "text/html", content.encode()
                return status, "application/json", json.dumps(content).encode()
        response = httpx.request(method, self.behind + path, content=body, headers=headers, timeout=30)
        return response.status_code, response.headers.get("content-type", "text/plain"), response.content


@dataclass
class LosingProxy(FaultyProxy):
    """Answers 503 to the first requests of a path, as a server does that is restarted.

    lost: beginning of a path -> how many are left; arrives: whether they reach the server before their answer is lost.
    """

    lost: dict[str, int] = field(default_factory=dict)
    arrives: bool = False

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes] | None:
        """As `FaultyProxy.answer`."""
        prefix = next((prefix for prefix, left in self.lost.items() if left and path.startswith(prefix)), None)
        if prefix is None:
            return super().answer(method, path, body, headers)
        self.lost[prefix] -= 1
        if self.arrives:
            super().answer(method, path, body, headers)
        return 503, "text/plain", b"upstream connect error"


AnyProxy = TypeVar("AnyProxy", bound=FaultyProxy)


@contextmanager
def serving(proxy: AnyProxy) -> Iterator[AnyProxy]:
    """Run the proxy on a free port; its `url` is set."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("content-length", 0))
            headers = {key: value for key, value in self.headers.items() if key.lower() == "content-type"}
            answer = proxy.answer(self.command, self.path, self.rfile.read(length), headers)
            if answer is None:
                proxy.stopping.wait(60)
                return
            status, content_type, content = answer
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
