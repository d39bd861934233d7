"""Calls the endpoints that are plain ASGI directly, past FastAPI.

FastAPI's middleware stack and the instrumentator's search for the route cost as much as the prediction itself, so
a request that fits one of these routes goes straight to its endpoint. Everything else, a wrong method too, goes to
FastAPI. Both are counted by the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter

from prometheus_fastapi_instrumentator.metrics import Info
from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class DirectRoutes:
    """ASGI middleware, the outermost.

    Args:
        app: FastAPI, for all other requests.
        routes: those with an ASGI app as their endpoint.
        count: counts a request; for all other requests the instrumentator calls it.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[Route], count: Callable[[Info], None]) -> None:
        self.app, self.count = app, count
        routes = list(routes)
        self.fixed = {route.path: route for route in routes if "{" not in route.path}
        self.patterns = [route for route in routes if "{" in route.path]

    def match(self, scope: Scope) -> Route | None:
        """The route of a request, whose path parameters are put into the scope; None where FastAPI has to answer."""
        route = self.fixed.get(scope["path"])
        if route:
            scope["path_params"] = {}
            return route if scope["method"] in (route.methods or ()) else None
        for route in self.patterns:
            match, scope_update = route.matches(scope)
            if match is Match.FULL:
                scope.update(scope_update)
                return route
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, here or by FastAPI, and count it where it was answered here."""
        route = self.match(scope) if scope["type"] == "http" else None
        if route is None:
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        status = 500

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await route.app(scope, receive, send_and_note_status)
        finally:
            self.count(
                Info(
                    request=Request(scope),
                    response=None,
                    method=scope["method"],
                    modified_handler=route.path,
                    modified_status=f"{status // 100}xx",
                    modified_duration=perf_counter() - started,
                )
            )
