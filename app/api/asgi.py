"""Reading bodies and sending answers for the endpoints that are plain ASGI.

FastAPI's own request handling costs more than a prediction does; these endpoints read bytes and send bytes.
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from app.api.errors import Refusal

MAX_BODY = 2**20
MAX_BINARY_BODY = 2**24
LENGTH_HEADER = "Inference-Header-Content-Length"  # of requests and answers with tensors in binary
BINARY = LENGTH_HEADER.lower().encode()
JSON = (b"content-type", b"application/json")


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a request header, or b"". name: in lower case, as ASGI has it."""
    for key, value in scope["headers"]:
        if key == name:
            return value
    return b""


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The request's body.

    Raises:
        Refusal: 413 as soon as it is, or says it is, over 1 MiB (16 MiB where it has binary tensors); 400 when the
            client goes away.
    """
    limit, declared = MAX_BODY, 0
    for key, value in scope["headers"]:
        if key == b"content-length":
            declared = int(value)  # the server has checked that it is a number
        elif key == BINARY:
            limit = MAX_BINARY_BODY
    if declared > limit:
        raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    more = message.get("more_body", False)
    if not more and message["type"] == "http.request" and len(body) <= limit:
        return body
    chunks, size = [body], len(body)
    while True:
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the client went away before the body was complete")
        if size > limit:
            raise _too_large(limit)
        if not more:
            return b"".join(chunks)
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)


def _too_large(limit: int) -> Refusal:
    """What a body over the limit is answered."""
    return Refusal(413, f"the body is over {limit // 2**20} MiB: send fewer rows per request")


async def send_answer(send: Send, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    """Send the whole answer: status, headers, and a body that is JSON unless the headers have another content type."""
    length = (b"content-length", b"%d" % len(body))
    if not headers:
        fields = [JSON, length]
    else:
        fields = [(key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]
        fields += [length] if "Content-Type" in headers else [JSON, length]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
