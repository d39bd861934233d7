"""Answers of a real uvicorn, byte by byte as a client sees them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from app.api.asgi import send_answer
from app.runtime.processes import free_port
from app.runtime.waiting import wait_until

BODY = b'{"a": 1}'
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """BODY, with another content type at /csv."""
    while (await receive()).get("more_body"):
        pass
    await send_answer(send, 200, BODY, {"Content-Type": "text/csv"} if scope["path"] == "/csv" else None)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    port = free_port()
    config = uvicorn.Config(application, port=port, http="httptools", log_level="warning", lifespan="off")
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


def read_to_the_end(peer: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    return b"".join(iter(lambda: peer.recv(65536), b""))


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def test_head_and_body_come_in_order_again_and_again(port: int) -> None:
    with connected(port) as peer:
        for _ in range(3):
            peer.sendall(GET)
            head, _, body = read(peer, BODY).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert body == BODY


def test_requests_that_are_sent_at_once_are_answered_one_after_the_other(port: int) -> None:
    with connected(port) as peer:
        peer.sendall(GET * 3 + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = read_to_the_end(peer)
        assert received.count(b"HTTP/1.1 200 OK") == received.count(BODY) == 4


def test_the_answer_to_head_is_a_head(port: int) -> None:
    with connected(port) as peer:
        for _ in range(2):
            peer.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read(peer, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_answer_says_what_it_is_and_how_long(port: int) -> None:
    with connected(port) as peer:
        for path, kind in ((b"/", b"application/json"), (b"/csv", b"text/csv")):
            peer.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            head = read(peer, BODY).partition(b"\r\n\r\n")[0].lower()
            assert b"\r\ncontent-type: " + kind in head
            assert b"\r\ncontent-length: 8" in head
            assert b"\r\ndate: " in head


def test_a_client_that_has_the_connection_closed_is_told_so(port: int) -> None:
    with connected(port) as peer:
        peer.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        received = read_to_the_end(peer)
        assert received.endswith(BODY)
        assert b"\r\nconnection: close\r\n" in received


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(port: int) -> None:
    with connected(port) as peer:
        peer.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert read(peer, b"\r\n\r\n").startswith(b"HTTP/1.1 100 Continue")
        peer.sendall(b"x")
        assert read(peer, BODY).startswith(b"HTTP/1.1 200 OK")


def test_what_is_no_http_is_told_so_before_the_connection_closes(port: int) -> None:
    with connected(port) as peer:
        peer.sendall(b"\x16\x03\x01 no http\r\n\r\n")
        received = read_to_the_end(peer)
        assert received.startswith(b"HTTP/1.1 400 ")
        assert b"Invalid HTTP request" in received


class Recorded(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[Any, Recorded]]:
    """uvicorn's side of a connection, and what it is connected to."""
    config = uvicorn.Config(application, http="httptools", lifespan="off")
    config.load()
    protocol = config.http_protocol_class(config, uvicorn.Server(config).server_state, {})  # type: ignore[call-arg]
    transport = Recorded()
    protocol.connection_made(transport)
    yield protocol, transport
    protocol.connection_lost(None)


def test_head_and_body_are_one_write() -> None:
    async def scenario() -> None:
        async with connection() as (protocol, transport):
            protocol.data_received(GET)
            await asyncio.gather(*protocol.tasks)
            (answer,) = transport.written
            assert answer.endswith(b"\r\n\r\n" + BODY)

    asyncio.run(scenario())


def test_an_answer_waits_for_a_client_that_does_not_read() -> None:
    async def scenario() -> None:
        async with connection() as (protocol, transport):
            protocol.pause_writing()
            protocol.data_received(GET)
            (answering,) = protocol.tasks
            for _ in range(10):
                await asyncio.sleep(0)
            assert not transport.written
            protocol.resume_writing()
            await answering
            assert b"".join(transport.written).endswith(b"\r\n\r\n" + BODY)

    asyncio.run(scenario())
