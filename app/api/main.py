"""Puts the API together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.responses import RedirectResponse

from app.api import feedback, health, invocations, model_info, open_inference, openapi, predict
from app.api.direct_routes import DirectRoutes
from app.api.feedback import Committer, Feedback
from app.api.invocations import Invocations
from app.api.metrics import Metrics
from app.api.open_inference import Infer
from app.api.predict import Predict
from app.api.prediction_id import Signer
from app.api.served_models import ServedModels
from app.api.settings import ApiSettings
from app.api.state import State
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
    models = ServedModels(registry, metrics, settings.cache_dir, settings.default_model, settings.poll_seconds)
    signer = Signer(settings.signing_key())
    committer = Committer(registry)
    pool = ThreadPoolExecutor(4, thread_name_prefix="predict")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        committer.start()
        models.start()
        yield
        models.stop()
        await committer.close()
        pool.shutdown(wait=False, cancel_futures=True)

    # FastAPI's own telemetry is off: Prometheus' is what this platform reads, and it is on the path of each request
    telemetry: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
    app = FastAPIOffline(redoc_url=None, title="Model API", version="1", lifespan=lifespan, telemetry=telemetry)
    app.state.shared = State(models, metrics)
    fast = [
        *predict.routes(Predict(models, signer, pool)),
        *open_inference.routes(Infer(models, signer, pool)),
        *invocations.routes(Invocations(models, signer, pool)),
        *feedback.routes(Feedback(models, signer, committer)),
    ]
    # Here too, for what the shortcut leaves to FastAPI. Flat: the instrumentator unfolds included routers each time.
    app.router.routes[:0] = fast
    for router in (model_info.router, open_inference.router, health.router):
        app.router.routes.extend(router.routes)
    app.add_route("/", lambda _: RedirectResponse("docs"), include_in_schema=False)
    app.add_middleware(DirectRoutes, routes=fast, count=metrics.instrument(app))
    openapi.install(app, models)
    return app
