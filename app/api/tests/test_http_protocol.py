"""Answers of a real uvicorn with the API's protocol, byte by byte as a client sees them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from app.api.http_protocol import HttpProtocol, JoiningTransport
from app.runtime.processes import free_port
from app.runtime.waiting import wait_until

BODY = b"the body"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """/stream: two parts, without a length; else BODY."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    length = [] if scope["path"] == "/stream" else [(b"content-length", b"8")]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    if scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"the ", "more_body": True})
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"body"})
    else:
        await send({"type": "http.response.body", "body": BODY})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    port = free_port()
    config = uvicorn.Config(
        application, port=port, loop="uvloop", http=HttpProtocol, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, 20)
    yield port
    server.should_exit = True
    thread.join()


def read(peer: socket.socket, end: bytes) -> bytes:
    """What comes until it ends so."""
    received = b""
    while not received.endswith(end):
        part = peer.recv(65536)
        assert part, received
        received += part
    return received


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def test_head_and_body_come_in_order_again_and_again(port: int) -> None:
    with connected(port) as peer:
        for _ in range(3):
            peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            head, _, body = read(peer, BODY).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert body == BODY


def test_requests_that_are_sent_at_once_are_answered_one_after_the_other(port: int) -> None:
    with connected(port) as peer:
        peer.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3 + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        received = b""
        while part := peer.recv(65536):
            received += part
        assert received.count(b"HTTP/1.1 200 OK") == received.count(BODY) == 4


def test_the_answer_to_head_is_a_head(port: int) -> None:
    with connected(port) as peer:
        for _ in range(2):
            peer.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read(peer, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_body_in_parts_is_whole(port: int) -> None:
    with connected(port) as peer:
        peer.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read(peer, b"0\r\n\r\n").endswith(b"4\r\nthe \r\n4\r\nbody\r\n0\r\n\r\n")


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(port: int) -> None:
    with connected(port) as peer:
        peer.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert read(peer, b"\r\n\r\n").startswith(b"HTTP/1.1 100 Continue")
        peer.sendall(b"x")
        assert read(peer, BODY).startswith(b"HTTP/1.1 200 OK")


def test_what_is_no_http_is_told_so_before_the_connection_closes(port: int) -> None:
    with connected(port) as peer:
        peer.sendall(b"\x16\x03\x01 no http\r\n\r\n")
        received = b""
        while part := peer.recv(65536):
            received += part
        assert received.startswith(b"HTTP/1.1 400 ")
        assert b"Invalid HTTP request" in received


def test_head_and_body_are_one_write() -> None:
    class Recorded:
        written: list[bytes] = []  # noqa: RUF012
        closed = False

        def write(self, data: bytes) -> None:
            self.written.append(data)

        def close(self) -> None:
            self.closed = True

        def is_closing(self) -> bool:
            return self.closed

    recorded = Recorded()
    transport = JoiningTransport(recorded)  # type: ignore[arg-type]
    transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
    transport.write(b"body")
    transport.write(b"more")
    assert recorded.written == [b"HTTP/1.1 200 OK\r\n\r\nbody", b"more"]
    transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert not transport.is_closing()
    transport.close()
    assert recorded.written[-1] == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert recorded.closed
