from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from app.api.main import create_app
from app.api.router import Deferred
from app.testing.model_api import SETOSA, absent_mlflow, settings


async def answers(app: Any, *paths: str) -> list[httpx.Response]:
    """What is answered to GETs that come at once."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        return await asyncio.gather(*(client.get(path) for path in paths))


def test_many_first_requests_at_once_are_all_answered_and_counted_once(full_cache: Path) -> None:
    app = create_app(settings(full_cache, default_model="iris"), absent_mlflow())
    predict = "/predict?" + "&".join(f"{name}={value}" for name, value in SETOSA.items())
    paths = ["/models", "/model", "/docs", "/openapi.json", "/v2", predict, "/livez", "/models/iris"]

    async def go() -> tuple[list[httpx.Response], str]:
        async with app.lifespan(app):
            responses = await answers(app, *paths)
            (metrics,) = await answers(app, "/metrics")
            return responses, metrics.text

    responses, metrics = asyncio.run(go())
    assert [response.status_code for response in responses] == [200] * len(paths)
    for handler in ("/models", "/model", "/v2", "/predict", "/livez", "/models/{name}"):
        assert f'http_requests_total{{handler="{handler}",method="GET",status="2xx"}} 1.0' in metrics


def test_an_application_that_cannot_be_made_is_tried_again_by_the_next_request() -> None:
    made: list[ASGIApp] = []

    def make() -> ASGIApp:
        if not made:
            made.append(PlainTextResponse("first"))
            raise MemoryError("no memory for it")
        return PlainTextResponse("here")

    async def go() -> list[list[httpx.Response]]:
        app = Deferred(make)
        return [await answers(app, "/docs"), await answers(app, "/docs", "/docs")]

    first, second = asyncio.run(go())
    assert [response.status_code for response in first] == [500]
    assert [response.text for response in second] == ["here", "here"]


@pytest.mark.parametrize("path", ["/livez", "/version", "/metrics"])
def test_probes_answer_head_and_refuse_other_methods(client: httpx.Client, path: str) -> None:
    assert (client.head(path).status_code, client.post(path).status_code) == (200, 405)
    assert client.post(path).headers["Allow"] == "GET, HEAD"
