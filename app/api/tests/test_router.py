from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from app.api.main import create_app
from app.api.request_counts import RequestCounts
from app.api.router import Answer, Deferred, Get, Router
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


# -- the lifespan ----------------------------------------------------------------------------------------------------


async def nothing(*_: Any) -> Any:
    """An ASGI application that answers nothing."""


def lived(begins: bool, ends: bool) -> list[str]:
    """What a server is told of a lifespan, whose beginning or end fails where it does not do; and what it raised."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        if not begins:
            raise OSError("the disk is full")
        yield
        if not ends:
            raise OSError("the disk is full")

    told: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        told.append(message["type"])
        if "message" in message:
            told.append(message["message"].strip().splitlines()[-1])

    app = Router([], nothing, RequestCounts(), lifespan, None)
    try:
        asyncio.run(app({"type": "lifespan"}, receive, send))
    except OSError as error:
        told.append(f"raised: {error}")
    return told


def test_the_server_is_told_how_beginning_and_end_went() -> None:
    why = ["OSError: the disk is full", "raised: the disk is full"]
    assert lived(True, True) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert lived(False, True) == ["lifespan.startup.failed", *why]
    assert lived(True, False) == ["lifespan.startup.complete", "lifespan.shutdown.failed", *why]


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/models/iris/predict", "iris"),
        ("/models/a.b c/predict", "a.b c"),
        ("/models/iris/predict/", None),
        ("/models/iris/predict\n", None),
        ("/v1/models/iris/predict", None),
        ("/models//predict", None),
        ("/models/a/b/predict", None),
    ],
)
def test_a_parameter_of_a_path_is_a_text_without_a_slash(path: str, model: str | None) -> None:
    asked: list[str] = []

    async def answer_to(scope: Any) -> Answer:
        asked.append(scope["path_params"]["name"])
        return Answer(200, b"{}")

    async def go() -> None:
        app = Router([Get.route("/models/{name}/predict", answer_to)], nothing, RequestCounts(), nothing, None)  # type: ignore[arg-type]
        await app({"type": "http", "path": path, "method": "GET", "headers": []}, nothing, nothing)

    asyncio.run(go())
    assert asked == ([] if model is None else [model])
