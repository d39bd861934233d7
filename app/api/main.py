"""Puts the API together.

Two kinds of routes: those that take predictions and feedback are plain ASGI (`PredictionEndpoint`, `Feedback`), because
FastAPI's own request handling costs more than a prediction; all others are FastAPI's. `DirectRoutes` stands before
FastAPI and calls the first kind itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.responses import RedirectResponse, Response

from app.api import feedback, health, invocations, model_info, open_inference, openapi, predict
from app.api.bundle_cache import BundleCache
from app.api.direct_routes import DirectRoutes
from app.api.errors import Refusal
from app.api.feedback import Feedback
from app.api.feedback_committer import Committer
from app.api.following import Follower
from app.api.invocations import Invocations
from app.api.keys import Keys
from app.api.metrics import Metrics
from app.api.open_inference import Infer
from app.api.predict import Predict
from app.api.prediction_id import Signer
from app.api.served_models import ServedModels
from app.api.settings import ApiSettings
from app.api.state import State
from app.api.workers import Workers
from app.clients.mlflow import MlflowClient


def create_app(settings: ApiSettings | None = None, registry: MlflowClient | None = None) -> FastAPI:
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
    signer = Signer(settings.signing_key())
    committer = Committer(registry)
    workers = Workers()
    keys = Keys(settings.api_keys_dir, settings.api_keys_required, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        committer.start()
        keys.start()
        follower.start()
        yield
        follower.stop()
        keys.stop()
        await committer.close()
        workers.close()

    # FastAPI's own telemetry is off: the platform reads Prometheus' metrics, and telemetry would slow each request
    telemetry: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
    app = FastAPIOffline(redoc_url=None, title="Model API", version="1", lifespan=lifespan, telemetry=telemetry)
    app.add_exception_handler(Refusal, _refuse)
    app.state.shared = State(models, follower, metrics, keys)
    direct = [
        *predict.routes(Predict(models, signer, workers, keys)),
        *open_inference.routes(Infer(models, signer, workers, keys)),
        *invocations.routes(Invocations(models, signer, workers, keys)),
        *feedback.routes(Feedback(models, signer, committer, workers, keys)),
    ]
    # FastAPI has the direct routes too: it answers 405 for a method that they do not have. All routes stand in one flat
    # list, not in included routers, which the instrumentator would search anew for each request.
    app.router.routes[:0] = direct
    for router in (model_info.router, open_inference.router, health.router):
        app.router.routes.extend(router.routes)
    app.add_route("/", lambda _: RedirectResponse("docs"), include_in_schema=False)
    app.add_middleware(DirectRoutes, routes=direct, count=metrics.instrument(app))
    openapi.install(app, models, keys.required)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """The answer of FastAPI's routes to a request that they refuse."""
    assert isinstance(error, Refusal)
    body = open_inference.infer_refusal_body(error) if f"{request.url.path}/".startswith("/v2/") else error.body()
    return Response(body, error.status, error.headers, "application/json")
