"""What the pages' tests share: pages that are run, and peers that answer wrongly."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from streamlit.testing.v1 import AppTest

from app.ui import show

SCRIPT = "from app.ui import {page}\n{page}.page()"


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


def open_page(page: str, model: str = "", **state: Any) -> AppTest:
    """Run a page as a new visitor who has chosen the model; whatever happens, it must not raise."""
    app = AppTest.from_string(SCRIPT.format(page=page), default_timeout=60)
    if model:
        app.session_state[show.CHOICE] = model
    for key, value in state.items():
        app.session_state[key] = value
    return ran(app)


def ran(app: AppTest) -> AppTest:
    """Run the page again."""
    app.run()
    assert not app.exception, [item.value for item in app.exception]
    return app


def click(app: AppTest, label: str) -> AppTest:
    """Press the button and run the page."""
    found = [button for button in app.button if button.label == label]
    assert found, f"no button {label!r}, there are: {[button.label for button in app.button]}"
    found[0].click()
    return ran(app)


def read(elements: Any) -> str:
    """What people read of these elements: Markdown's escapes are gone."""
    return "\n".join(re.sub(r"\\(.)", r"\1", str(element.value)) for element in elements)
