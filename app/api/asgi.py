"""Reading bodies and sending answers for the endpoints that are plain ASGI.

FastAPI's own request handling costs more than a prediction does; these endpoints read bytes and send bytes.
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from app.api.errors import Refusal

MAX_BODY = 1024 * 1024
JSON = [(b"content-type", b"application/json")]


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a request header, or b"". name: in lower case, as ASGI has it."""
    for key, value in scope["headers"]:
        if key == name:
            return value
    return b""


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The request's body.

    Raises:
        Refusal: 413 as soon as it is, or says it is, over 1 MiB; 400 when the client goes away.
    """
    declared = header(scope, b"content-length")
    if declared and int(declared) > MAX_BODY:  # the server has checked that it is a number
        raise _too_large()
    message = await receive()
    body: bytes = message.get("body", b"")
    more = message.get("more_body", False)
    if not more and message["type"] == "http.request" and len(body) <= MAX_BODY:
        return body
    chunks, size = [body], len(body)
    while True:
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the client went away before the body was complete")
        if size > MAX_BODY:
            raise _too_large()
        if not more:
            return b"".join(chunks)
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)


def _too_large() -> Refusal:
    """What a body over 1 MiB is answered."""
    return Refusal(413, "the body is over 1 MiB: send fewer rows per request")


async def send_json(send: Send, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    """Send the whole answer: status, headers and a body that is JSON already."""
    fields = [*JSON, (b"content-length", b"%d" % len(body))]
    if headers:
        fields += [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
