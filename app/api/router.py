"""Routes of predictions, feedback, probes and metrics, which are answered here; FastAPI answers all others.

FastAPI's own request handling costs more than a prediction does. Where nobody asks for what it answers, such as the
documentation, it is not even imported: that takes a third of the start, and 9 MB.
"""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.asgi import send_answer
from app.api.errors import Refusal
from app.api.request_counts import RequestCounts


class Answer(NamedTuple):
    """What a request is answered. body: JSON where no header says otherwise; model, version: what answered, if any."""

    status: int
    body: bytes
    headers: dict[str, str] | None = None
    model: str = ""
    version: str = ""


class Endpoint(Protocol):
    """What a route leads to."""

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """The answer to one request; refusals are answers too."""
        ...

    def refusal_body(self, refusal: Refusal) -> bytes:
        """What a refused request is answered, as JSON."""
        ...


class Route(NamedTuple):
    """path: as FastAPI writes it, such as "/models/{name}/predict"; methods: those that the endpoint answers."""

    path: str
    endpoint: Endpoint
    methods: tuple[str, ...] = ("POST",)


class Get:
    """An endpoint for GET, of whose requests only the scope matters.

    Args:
        answer_to: the answer to a scope; it may raise Refusal.
    """

    def __init__(self, answer_to: Callable[[Scope], Awaitable[Answer]]) -> None:
        self._answer_to = answer_to

    @classmethod
    def route(cls, path: str, answer_to: Callable[[Scope], Awaitable[Answer]]) -> Route:
        """A route that leads to such an endpoint."""
        return Route(path, cls(answer_to), ("GET", "HEAD"))

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """As `Endpoint.answer`."""
        try:
            return await self._answer_to(scope)
        except Refusal as refusal:
            return Answer(refusal.status, refusal.body(), refusal.headers)

    def refusal_body(self, refusal: Refusal) -> bytes:
        """As `Endpoint.refusal_body`."""
        return refusal.body()


class Deferred:
    """An ASGI application that the first request makes, in a thread: predictions go on meanwhile."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._app: ASGIApp | None = None
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._app is None:
            async with self._lock:
                if self._app is None:
                    self._app = await asyncio.to_thread(self._make)
        await self._app(scope, receive, send)


class Router:
    """The API as one ASGI application.

    Args:
        routes: those that are answered here.
        default: FastAPI, for all other requests; it counts those itself, in the same counts.
        counts: each request that is answered here is counted in it, once.
        lifespan: what runs as long as the API does.
        state: what its endpoints share.
    """

    def __init__(
        self,
        routes: list[Route],
        default: ASGIApp,
        counts: RequestCounts,
        lifespan: Callable[[Any], AbstractAsyncContextManager[None]],
        state: Any,
    ) -> None:
        self.counts, self.lifespan, self.state = counts, lifespan, state
        self._default = default
        self._fixed = {route.path: route for route in routes if "{" not in route.path}
        self._patterns: list[tuple[re.Pattern[str], Route]] = [
            (_pattern(route.path), route) for route in routes if "{" in route.path
        ]

    def _match(self, scope: Scope) -> Route | None:
        """The route of a request, whose path parameters are put into the scope."""
        path = scope["path"]
        route = self._fixed.get(path)
        if route is not None:
            scope["path_params"] = {}
            return route
        for pattern, route in self._patterns:
            match = pattern.fullmatch(path)
            if match:
                scope["path_params"] = match.groupdict()
                return route
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and count it, or pass it on; or begin and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        route = self._match(scope) if scope["type"] == "http" else None
        if route is None:
            await self._default(scope, receive, send)
            return
        started = perf_counter()
        method = scope["method"]
        answer = Answer(500, b"")  # where the client is gone, or the endpoint fails
        try:
            if method in route.methods:
                answer = await route.endpoint.answer(scope, receive)
            else:
                allowed = Refusal(405, "Method Not Allowed", {"Allow": ", ".join(route.methods)})
                answer = Answer(405, route.endpoint.refusal_body(allowed), allowed.headers)
            await send_answer(send, answer.status, answer.body, answer.headers)
        finally:
            key = (method, route.path, answer.model, answer.version)
            self.counts.add(key, answer.status, perf_counter() - started)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Begin when the server does, and end when it ends, as ASGI's lifespan protocol has it."""
        await receive()
        phase = "startup"
        try:
            async with self.lifespan(self):
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()
        except BaseException:
            await send({"type": f"lifespan.{phase}.failed", "message": traceback.format_exc()})
            raise
        await send({"type": "lifespan.shutdown.complete"})


def _pattern(path: str) -> re.Pattern[str]:
    """What a route's path matches; a parameter such as {name} is a text without a slash."""
    parts = re.split(r"\{(\w+)\}", path)
    return re.compile("".join(f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)))
