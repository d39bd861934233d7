"""uvicorn's HTTP protocol, with head and body of an answer in one write.

uvicorn writes the head as soon as it is sent, and the body after it. Each is a system call and mostly a packet, and
whoever reads the answer, such as an ingress controller, wakes up twice.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD, CONTINUE = b"HTTP/", b"HTTP/1.1 100 "


class JoiningTransport:
    """A transport that keeps the head of an answer back until the body, or the end, comes."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Write, after what was kept back; or keep the head of an answer back."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(HEAD) and not data.startswith(CONTINUE):
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Write what was kept back: the answer to a HEAD is no more than that."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Close the transport once all is written."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class HttpProtocol(HttpToolsProtocol):
    """What `uvicorn.run` takes as `http`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(JoiningTransport(transport))  # type: ignore[arg-type]

    def on_response_complete(self) -> None:
        """An answer is complete."""
        self.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()
