"""A stand-in for S3, for tests."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest


class Bucket(ThreadingHTTPServer):
    """A stand-in for S3 with one bucket, as far as single requests go. spoiled: what it stores is cut."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.spoiled = False
        self.refused = False


class Handler(BaseHTTPRequestHandler):
    """PUT, HEAD, GET (of a part, too) and DELETE of objects, and the list."""

    server: Bucket

    def answer(self, status: int, content: bytes = b"") -> None:
        """Answer, to a HEAD without the content."""
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.send_header("etag", '"x"')
        self.send_header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_PUT(self) -> None:
        """Keep an object."""
        content = self.rfile.read(int(self.headers["content-length"]))
        if self.server.refused:
            return self.answer(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
        self.server.objects[self.key] = content[:-9] if self.server.spoiled else content
        return self.answer(200)

    def do_HEAD(self) -> None:
        """The length of an object, or that there is none."""
        self.do_GET()

    def do_GET(self) -> None:
        """An object, or the list of them."""
        if self.server.refused:
            return self.answer(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" not in query:
            found = self.server.objects.get(self.key)
            missing = b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"
            if found is None:
                return self.answer(404, missing)
            part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
            return self.answer(206, found[int(part[1]) : int(part[2]) + 1]) if part else self.answer(200, found)
        prefix = query.get("prefix", [""])[0]
        keys = [key for key in sorted(self.server.objects) if key.startswith(prefix)]
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.objects[key])}</Size></Contents>" for key in keys
        )
        counted = f"<IsTruncated>false</IsTruncated><KeyCount>{len(keys)}</KeyCount>"
        return self.answer(200, f"<ListBucketResult>{counted}{items}</ListBucketResult>".encode())

    def do_DELETE(self) -> None:
        """Remove an object."""
        self.server.objects.pop(self.key, None)
        self.answer(204)

    @property
    def key(self) -> str:
        """Of the object that is asked for."""
        return unquote(urlsplit(self.path).path).removeprefix("/bucket/")

    def log_message(self, *_: object) -> None:
        """Nothing: pytest shows what matters."""


@contextmanager
def serving_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """One that is served until the block ends; the environment has keys for it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = Bucket()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
