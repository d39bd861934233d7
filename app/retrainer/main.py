"""Puts the retrainer together."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from pydantic import ValidationError

from app.clients.mlflow import MlflowClient
from app.clients.prefect import PrefectClient
from app.retrainer.alerts import Notification, wanted
from app.retrainer.exporter import Exporter
from app.retrainer.retrainer import Retrainer, Unavailable
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
    authorization = f"Bearer {settings.token}".encode()

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

    @app.post("/alerts")
    async def alerts(request: Request) -> dict[str, object]:
        """Alertmanager's webhook. The token is checked before the body is read.

        200: Prefect has accepted each run, or there is a reason to start none. 503: send it again.
        """
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, authorization):
            message = "send the token of MLOPS_RETRAINER_TOKEN: Authorization: Bearer <token>"
            raise HTTPException(401, message, {"WWW-Authenticate": "Bearer"})
        body = await _body(request)
        try:
            notification = Notification.model_validate_json(body)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found]) from None
        answers, failures = [], []
        for model, cause in wanted(notification).items():
            try:
                answers.append(asdict(await run_in_threadpool(retrainer.consider, model, cause)))
            except Unavailable as error:  # the other models are not kept waiting for it
                failures.append(str(error))
        if failures:
            raise HTTPException(503, "; ".join(failures), {"Retry-After": "5"})
        return {"decisions": answers}

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        """200 while the process turns; it asks nobody else."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """200 once it can take alerts. Prefect is asked with each alert: while it is away the answer is a 503."""
        return {"status": "ready"}

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)

    return app


async def _body(request: Request) -> bytes:
    """Raises HTTPException: 413 as soon as it is, or says it is, over 1 MiB."""
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
