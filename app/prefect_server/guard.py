"""Stands before Prefect's server, in its process: keeps the accounts of runs to their rules."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from app.prefect_server.rules import Refused, Rules
from app.prefect_server.run_token import PREFIX, run_of

log = logging.getLogger("mlops.prefect")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API = "/api"
MAX_BODY = 8 * 2**20  # bytes; Prefect's own limits for logs and results are below it
EVENTS_IN, EVENTS_OUT = f"{API}/events/in", f"{API}/events/out"


class Guard:
    """An ASGI application: Prefect's, but with accounts of runs beside Prefect's own.

    Args:
        app: Prefect's.
        password: Prefect's auth string, such as admin:<password>.
    """

    def __init__(self, app: App, password: str) -> None:
        self._app, self._password = app, password
        self._authorization = b"Basic " + base64.b64encode(password.encode())
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        user, _, secret = password.partition(":")
        self._inside = httpx.AsyncClient(transport=transport, base_url=f"http://prefect{API}", auth=(user, secret))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what the rules refuse; hand on what they allow, and what comes with another account."""
        if scope["type"] == "http" and (account := _account(scope)).startswith(PREFIX):
            await self._http(scope, receive, send, run_of(self._password, account))
        elif scope["type"] == "websocket":
            await self._app(scope, self._of_websocket(scope, receive), send)
        else:
            await self._app(scope, receive, send)

    def _rules(self, run: str) -> Rules:
        return Rules(run, self._read)

    async def _read(self, path: str) -> dict[str, Any] | None:
        """What Prefect answers to a GET of a path below /api; None where there is nothing.

        Raises:
            httpx.HTTPError: it answers with an error, three times.
        """
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(httpx.HTTPError),
            stop=stop_after_attempt(3),
            wait=wait_fixed(0.2),
            reraise=True,
        ):
            with attempt:
                # in a task of its own: Prefect counts the tasks that it serves, and a websocket's is one already
                answer = await asyncio.create_task(self._inside.get(quote(path)))
                if answer.status_code not in (404, 422):
                    return dict(answer.raise_for_status().json())
        return None

    async def _http(self, scope: Scope, receive: Receive, send: Send, run: str | None) -> None:
        if run is None:
            await _answer(send, 401, "this is no account of a flow run of this Prefect server")
            return
        body = await _body(receive)
        if body is None:
            await _answer(send, 413, f"the body is larger than {MAX_BODY} bytes")
            return
        path = str(scope["path"])
        try:
            if not path.startswith(f"{API}/"):
                raise Refused(f"the account of a flow run is for {API}/ alone")
            await self._rules(run).check(scope["method"], path.removeprefix(API), body)
        except Refused as refusal:
            log.warning("%s %s: refused: %s", scope["method"], path, refusal)
            await _answer(send, 403, str(refusal))
            return
        except httpx.HTTPError as error:
            await _answer(send, 503, f"Prefect cannot be asked whether this is allowed: {error}")
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"authorization"]
        scope = {**scope, "headers": [*headers, (b"authorization", self._authorization)]}
        await self._app(scope, _replay(body, receive), send)

    def _of_websocket(self, scope: Scope, receive: Receive) -> Receive:
        """What Prefect hears of a websocket: first the account, then, of a run, what the rules allow."""
        path = scope["path"]
        is_first, rules = True, None

        async def checked() -> Message:
            nonlocal is_first, rules
            while True:
                message = await receive()
                if message["type"] != "websocket.receive":
                    return message
                if is_first:
                    is_first = False
                    message, run = self._authenticated(message)
                    rules = self._rules(run) if run else None
                    return message
                if rules is None:  # another's account, which Prefect itself judges
                    return message
                text = message.get("text")
                try:
                    if text is None or path not in (EVENTS_IN, EVENTS_OUT):
                        raise Refused(f"the account of a flow run has nothing to say at {path}")
                    if path == EVENTS_OUT:
                        return {**message, "text": rules.narrowed(text)}
                    await rules.check_event(text)
                except (Refused, httpx.HTTPError) as refusal:
                    log.warning("%s: left out: %s", path, refusal)
                    continue
                return message

        return checked

    def _authenticated(self, message: Message) -> tuple[Message, str | None]:
        """The message in which a client names its account, with Prefect's own in place of a run's; and the run."""
        try:
            content = json.loads(message.get("text") or message.get("bytes") or "null")
        except ValueError:
            return message, None
        run = run_of(self._password, str(content.get("token"))) if isinstance(content, dict) else None
        if run is None:
            return message, None
        return {"type": "websocket.receive", "text": json.dumps({**content, "token": self._password})}, run


def _account(scope: Scope) -> str:
    """User and password of an HTTP request, as user:password; "" where it has none."""
    header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(credentials.strip()).decode()
    except ValueError:
        return ""


async def _body(receive: Receive) -> bytes | None:
    """The body of a request; None where it is too large."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body, and then what comes."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _answer(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail, "exception_message": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
