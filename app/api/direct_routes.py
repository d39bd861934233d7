"""The shortest way to the prediction endpoints.

FastAPI's middleware stack and the instrumentator's search for the route cost as much as the prediction itself, so
requests that fit a prediction route go straight to its endpoint. Everything else, a wrong method too, takes FastAPI's
way. Both are counted by the same function.
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
        routes: whose endpoints are ASGI apps.
        count: what counts a request; the instrumentator calls it for all others.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[Route], count: Callable[[Info], None]) -> None:
        self.app, self.count = app, count
        routes = list(routes)
        self.fixed = {route.path: route for route in routes if "{" not in route.path}
        self.others = [route for route in routes if "{" in route.path]

    def find(self, scope: Scope) -> Route | None:
        route = self.fixed.get(scope["path"])
        if route:
            scope["path_params"] = {}
            return route if scope["method"] in (route.methods or ()) else None
        for route in self.others:
            match, child = route.matches(scope)
            if match is Match.FULL:
                scope.update(child)
                return route
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self.find(scope) if scope["type"] == "http" else None
        if route is None:
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await route.app(scope, receive, noted)
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
