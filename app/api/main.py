"""Puts the API together.

Two kinds of routes: those that take predictions and feedback are answered by `Router` itself, because FastAPI's own
request handling costs more than a prediction; all others are FastAPI's, which is the router's default.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from app.api import explain, feedback, health, invocations, model_info, open_inference, openapi, predict
from app.api.bundle_cache import BundleCache
from app.api.endpoint import Serving
from app.api.errors import Refusal
from app.api.explain import Explain
from app.api.feedback import Feedback
from app.api.feedback_committer import Committer
from app.api.feedback_token import FeedbackTokens
from app.api.following import Follower
from app.api.invocations import Invocations
from app.api.keys import Keys
from app.api.metrics import Metrics
from app.api.open_inference import Infer
from app.api.predict import Predict
from app.api.prediction_id import PredictionIds
from app.api.router import Router
from app.api.served_models import ServedModels
from app.api.settings import ApiSettings
from app.api.state import State
from app.api.workers import Workers
from app.clients.mlflow import MlflowClient


def create_app(settings: ApiSettings | None = None, registry: MlflowClient | None = None) -> Router:
    """The API; models are loaded when it starts.

    Args:
        settings: default from the environment.
        registry: MLflow; default from the environment.
    """
    settings = settings or ApiSettings()
    registry = registry or MlflowClient()
    metrics = Metrics()
    models = ServedModels(metrics, settings.default_model)
    follower = Follower(models, registry, BundleCache(settings.cache_dir), settings.poll_seconds)
    committer = Committer(registry)
    serving = Serving(
        models=models,
        ids=PredictionIds(),
        tokens=FeedbackTokens(settings.token_key()),
        workers=Workers(),
        keys=Keys(settings.api_keys_dir, settings.api_keys_required, metrics),
    )
    keys = serving.keys
    grpc_server = None
    if settings.grpc_port:
        from app.api.grpc_server import GrpcServer

        grpc_server = GrpcServer(serving, metrics.requests, settings.host, settings.grpc_port)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        committer.start()
        keys.start()
        follower.start()
        if grpc_server:
            await grpc_server.start()
        yield
        if grpc_server:
            await grpc_server.stop()
        follower.stop()
        keys.stop()
        await committer.close()
        serving.workers.close()

    # FastAPI's own telemetry is off: the platform reads Prometheus' metrics, and telemetry would slow each request
    telemetry: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
    app = FastAPIOffline(redoc_url=None, title="Model API", version="1", lifespan=lifespan, telemetry=telemetry)
    app.add_exception_handler(Refusal, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.state.shared = State(models, follower, metrics, keys)
    # in one flat list, not in included routers, which the instrumentator would search anew for each request
    for router in (model_info.router, open_inference.router, health.router):
        app.router.routes.extend(router.routes)
    app.add_route("/", lambda _: RedirectResponse("docs"), include_in_schema=False)
    metrics.instrument(app)
    openapi.install(app, models, keys.required)
    predictions = [
        *predict.routes(Predict(serving)),
        *open_inference.routes(Infer(serving)),
        *invocations.routes(Invocations(serving)),
    ]
    metrics.requests.predicting |= {route.path for route in predictions}
    others = [*explain.routes(Explain(serving)), *feedback.routes(Feedback(serving, committer))]
    return Router([*predictions, *others], app, metrics.requests)


async def _refuse(request: Request, error: Exception) -> Response:
    """The answer of FastAPI's routes to a request that they refuse."""
    assert isinstance(error, Refusal)
    body = open_inference.infer_refusal_body(error) if _is_v2(request) else error.body()
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
