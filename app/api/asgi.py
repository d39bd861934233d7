"""Reading bodies and sending answers for the endpoints that are plain ASGI.

FastAPI's own request handling costs more than a prediction does; these endpoints read bytes and send bytes.
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

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
    if not headers:
        server = getattr(send, "__self__", None)
        if isinstance(server, RequestResponseCycle) and _write_json(server, status, body):
            return
        headers = {}
    fields = [(key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]
    if "Content-Type" not in headers:
        fields.append(JSON)
    fields.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def _write_json(cycle: RequestResponseCycle, status: int, body: bytes) -> bool:
    """Have uvicorn write a whole answer at once.

    By ASGI's two messages it makes two writes, mostly two packets, so that whoever reads them, such as an ingress
    controller, wakes up twice; and it looks at each header.

    Returns:
        Whether that was done. It is not for a HEAD, and where the client reads more slowly than it asks.
    """
    if cycle.flow.write_paused or cycle.response_started or cycle.scope["method"] == "HEAD":
        return False
    if cycle.disconnected:
        return True  # nobody is there to read it
    cycle.transport.write(
        b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
        % (
            STATUS_LINE[status],
            b"".join([b"%b: %b\r\n" % field for field in cycle.default_headers]),
            len(body),
            b"" if cycle.keep_alive else b"connection: close\r\n",
            body,
        )
    )
    cycle.waiting_for_100_continue = False
    cycle.response_started = cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
