"""Puts the API together.

Two kinds of routes: those of predictions, feedback, probes and metrics are answered by `Router` itself, because
FastAPI's own request handling costs more than a prediction; all others are FastAPI's, which is the router's default.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp

from app.api import explain, feedback, health, invocations, open_inference, predict
from app.api.bundle_cache import BundleCache
from app.api.endpoint import Serving
from app.api.explain import Explain
from app.api.feedback import Feedback
from app.api.feedback_committer import Committer
from app.api.feedback_token import FeedbackTokens
from app.api.following import Follower
from app.api.invocations import Invocations
from app.api.keys import Keys
from app.api.metrics import Metrics, metrics_route
from app.api.open_inference import Infer
from app.api.predict import Predict
from app.api.prediction_id import PredictionIds
from app.api.router import Deferred, Router
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
    async def lifespan(_: Any) -> AsyncIterator[None]:
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

    state = State(models, follower, metrics, keys)

    def others() -> ASGIApp:
        from app.api.fastapi_app import fastapi_app

        return fastapi_app(state)

    predictions = [
        *predict.routes(Predict(serving)),
        *open_inference.routes(Infer(serving)),
        *invocations.routes(Invocations(serving)),
    ]
    metrics.requests.predicting |= {route.path for route in predictions}
    routes = [
        *predictions,
        *explain.routes(Explain(serving)),
        *feedback.routes(Feedback(serving, committer)),
        *health.routes(models),
        metrics_route(metrics),
    ]
    return Router(routes, Deferred(others), metrics.requests, lifespan, state)
