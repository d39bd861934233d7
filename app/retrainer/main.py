"""The retrainer's HTTP service: alerts in, metrics out."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from pydantic import ValidationError

from app.clients.mlflow import MlflowClient
from app.clients.prefect import PrefectClient
from app.retrainer.alerts import Notification, models_to_retrain
from app.retrainer.exporter import Exporter
from app.retrainer.retrainer import Retrainer, UndecidedError
from app.retrainer.settings import RetrainerSettings
from app.runtime.settings import PlatformSettings

MAX_BODY = 1024 * 1024
EXPORT_SECONDS = 15.0


def create_app(settings: RetrainerSettings | None = None) -> FastAPI:
    """The retrainer; its exporter reads Prefect while it runs.

    Args:
        settings: default from the environment, as are Prefect's and MLflow's addresses.
    """
    settings = settings or RetrainerSettings()  # type: ignore[call-arg]  # the token comes from the environment
    metrics = CollectorRegistry()
    ProcessCollector(registry=metrics)
    prefect, registry = PrefectClient(timeout=PlatformSettings().timeout), MlflowClient()
    retrainer = Retrainer(prefect, registry, settings.policy, metrics)
    exporter = Exporter(prefect, metrics, EXPORT_SECONDS)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        exporter.start()
        yield
        await run_in_threadpool(exporter.stop)

    telemetry: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
    app = FastAPI(
        title="Retrainer", version="1", docs_url=None, redoc_url=None, openapi_url=None,
        lifespan=lifespan, telemetry=telemetry,
    )  # fmt: skip
    app.state.retrainer = retrainer
    app.include_router(_alert_routes(retrainer, settings.token))
    app.include_router(_process_routes(metrics))
    return app


def _alert_routes(retrainer: Retrainer, token: str) -> APIRouter:
    routes = APIRouter()
    expected = f"Bearer {token}".encode()

    @routes.post("/alerts")
    async def alerts(request: Request) -> dict[str, object]:
        """Alertmanager's webhook. The token is checked before the body is read.

        200: Prefect has accepted each run, or there is a reason to start none. 503: send it again.
        """
        authorization = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(authorization, expected):
            message = "send the token of MLOPS_RETRAINER_TOKEN: Authorization: Bearer <token>"
            raise HTTPException(401, message, {"WWW-Authenticate": "Bearer"})
        answers, failures = [], []
        for model, cause in models_to_retrain(await _notification(request)).items():
            try:
                answers.append(asdict(await run_in_threadpool(retrainer.consider, model, cause)))
            except UndecidedError as error:  # the other models are not kept waiting for it
                failures.append(str(error))
        if failures:
            raise HTTPException(503, " ".join(failures), {"Retry-After": "5"})
        return {"decisions": answers}

    return routes


def _process_routes(metrics: CollectorRegistry) -> APIRouter:
    routes = APIRouter()

    @routes.get("/livez")
    async def livez() -> dict[str, str]:
        """200 while the process runs; no other service is asked."""
        return {"status": "alive"}

    @routes.get("/readyz")
    async def readyz() -> dict[str, str]:
        """200 once it can take alerts. Prefect is asked with each alert: while it is away the answer is a 503."""
        return {"status": "ready"}

    @routes.get("/metrics")
    async def prometheus() -> Response:
        """The metrics in Prometheus' text format."""
        return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)

    return routes


async def _notification(request: Request) -> Notification:
    """The body, checked. Raises RequestValidationError: a 422 that names each wrong field."""
    body = await _body(request)
    try:
        return Notification.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**problem, "loc": ("body", *problem["loc"])} for problem in problems]) from None


async def _body(request: Request) -> bytes:
    """The whole body. Raises HTTPException: 413 as soon as it is over 1 MiB, or its header says so."""
    too_large = HTTPException(413, "the body is over 1 MiB: set max_alerts of Alertmanager's receiver")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise too_large
    return bytes(body)
