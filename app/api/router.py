"""Routes of predictions and feedback, which are answered here; FastAPI answers all others.

FastAPI's own request handling costs more than a prediction does.
"""

from __future__ import annotations

import re
from time import perf_counter
from typing import NamedTuple, Protocol

from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.asgi import send_answer
from app.api.errors import Refusal
from app.api.request_counts import RequestCounts


class Answer(NamedTuple):
    """What a request is answered. body: JSON; model, version: what answered, where a version did."""

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


class Router:
    """The API as one ASGI application.

    Args:
        routes: those that are answered here.
        default: FastAPI, for all other requests; it counts those itself, in the same counts.
        counts: each request that is answered here is counted in it, once.
    """

    def __init__(self, routes: list[Route], default: ASGIApp, counts: RequestCounts) -> None:
        self.default, self.counts = default, counts
        self._fixed = {route.path: route for route in routes if "{" not in route.path}
        self._patterns: list[tuple[re.Pattern[str], Route]] = [
            (compile_path(route.path)[0], route) for route in routes if "{" in route.path
        ]

    def _match(self, scope: Scope) -> Route | None:
        """The route of a request, whose path parameters are put into the scope."""
        path = scope["path"]
        route = self._fixed.get(path)
        if route is not None:
            scope["path_params"] = {}
            return route
        for pattern, route in self._patterns:
            match = pattern.match(path)
            if match:
                scope["path_params"] = match.groupdict()
                return route
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and count it, or pass it on."""
        route = self._match(scope) if scope["type"] == "http" else None
        if route is None:
            await self.default(scope, receive, send)
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
