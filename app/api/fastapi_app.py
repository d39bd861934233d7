"""The routes that FastAPI answers: the documentation, and what tells of models. Made when the first is asked for."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from app.api import model_info, open_inference_info, openapi
from app.api.errors import Refusal
from app.api.open_inference import infer_refusal_body
from app.api.state import State

# FastAPI's own telemetry is off: the platform reads Prometheus' metrics, and telemetry would slow each request.
TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}


def fastapi_app(state: State) -> FastAPI:
    """The application of these routes, which counts every request that it answers."""
    app = FastAPIOffline(redoc_url=None, title="Model API", version="1", telemetry=TELEMETRY)
    app.add_exception_handler(Refusal, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.state.shared = state
    # in one flat list, not in included routers, which the instrumentator would search anew for each request
    for router in (model_info.router, open_inference_info.router):
        app.router.routes.extend(router.routes)
    app.add_route("/", lambda _: RedirectResponse("docs"), include_in_schema=False)

    def count(info: Info) -> None:
        status = info.response.status_code if info.response else 500
        state.metrics.requests.add((info.method, info.modified_handler, "", ""), status, info.modified_duration)

    Instrumentator(registry=state.metrics.registry).add(count).instrument(app)
    openapi.install(app, state.models, state.keys.required)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """The answer of FastAPI's routes to a request that they refuse."""
    assert isinstance(error, Refusal)
    body = infer_refusal_body(error) if _is_v2(request) else error.body()
    return Response(body, error.status, error.headers, "application/json")


async def _refuse_route(request: Request, error: Exception) -> Response:
    """The answer where there is no such path, or not by this method: as all refusals, so that clients can read it."""
    assert isinstance(error, HTTPException)
    message = error.detail
    if error.status_code == 404 and _is_v2(request):
        message = f"there is no {request.method} {request.url.path[:200]} here: /docs has what there is"
    return await _refuse(request, Refusal(error.status_code, message, dict(error.headers or {})))


def _is_v2(request: Request) -> bool:
    return f"{request.url.path}/".startswith("/v2/")
