"""A proxy in front of a real server that answers some paths wrongly, which the real one cannot be made to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


@dataclass
class FaultyProxy:
    """Forwards to the server at `behind`, but for the paths (as they begin) in `answers`.

    An answer is a status and a body; None never comes.
    """

    behind: str = ""
    answers: dict[str, tuple[int, Any] | None] = field(default_factory=dict)
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes] | None:
        for begin, reply in self.answers.items():
            if path.startswith(begin):
                if reply is None:
                    return None
                status, content = reply
                if isinstance(content, str):
                    return status, "text/html", content.encode()
                return status, "application/json", json.dumps(content).encode()
        sent = httpx.request(method, self.behind + path, content=body, headers=headers, timeout=30)
        return sent.status_code, sent.headers.get("content-type", "text/plain"), sent.content


@contextmanager
def serving(proxy: FaultyProxy) -> Iterator[FaultyProxy]:
    """Run the proxy on a free port; its `url` is set."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("content-length", 0))
            kept = {key: value for key, value in self.headers.items() if key.lower() == "content-type"}
            reply = proxy.answer(self.command, self.path, self.rfile.read(length), kept)
            if reply is None:
                proxy.over.wait(60)
                return
            status, kind, content = reply
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_PATCH = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
