"""The Open Inference Protocol's gRPC, on a port of its own: inference.GRPCInferenceService.

It runs on the API's event loop and shares models, batches, keys and counts with /v2. Only messages and statuses are its
own. Imported where MLOPS_GRPC_PORT is set: grpcio takes time and memory.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf.message import Message
from starlette.types import Scope

from app.api.asgi import MAX_BINARY_BODY
from app.api.endpoint import INLINE_BYTES, Serving
from app.api.errors import Refusal
from app.api.grpc_infer import GrpcInfer, read_message
from app.api.inference_proto import open_inference_grpc_pb2 as messages
from app.api.open_inference import SERVER, find_version
from app.api.open_inference_metadata import model_metadata
from app.api.request_counts import RequestCounts
from app.api.router import Answer
from app.api.served_model import ServedModel

SERVICE = "inference.GRPCInferenceService"
# Of what is under way when the server stops. HTTP had its 20 seconds before; a pod has 40, 8 of them before the signal.
GRACE_SECONDS = 10
MAX_DETAILS = 2000  # bytes: clients take 8 KiB of a call's trailers, where each byte may take three
GONE = 499  # what a call is counted as whose client went away or did not wait, as nginx does

CODES = {
    **dict.fromkeys((400, 422), grpc.StatusCode.INVALID_ARGUMENT),
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    **dict.fromkeys((413, 429), grpc.StatusCode.RESOURCE_EXHAUSTED),
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_BINARY_BODY),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # two servers on one port would each answer some calls
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: 16 MiB may be 16 GiB when they are unpacked
)

log = logging.getLogger("mlops.grpc")
Work = Callable[[Scope, bytes], Awaitable[Answer]]


class _Method(NamedTuple):
    """One method of the service. needs_key: whether it asks for the scope predict, where a key is needed for that."""

    work: Work
    needs_key: bool


class GrpcServer:
    """The gRPC server of one API.

    Args:
        serving: what HTTP answers with.
        counts: each call is counted in it, once, with "/inference.GRPCInferenceService/<method>" as its handler.
        host, port: where to listen.

    Raises:
        OSError: the address cannot be had.
    """

    def __init__(self, serving: Serving, counts: RequestCounts, host: str, port: int) -> None:
        self.models, self.keys, self.workers, self.counts = serving.models, serving.keys, serving.workers, counts
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        _check_free(host, port, self.address)
        self._infer = GrpcInfer(serving)
        self._server: Any = None
        self._methods = {
            "ServerLive": _Method(self._server_live, False),
            "ServerReady": _Method(self._server_ready, False),
            "ModelReady": _Method(self._model_ready, False),
            "ServerMetadata": _Method(self._server_metadata, True),
            "ModelMetadata": _Method(self._model_metadata, True),
            "ModelInfer": _Method(self._model_infer, True),
        }
        counts.predicting.add(f"/{SERVICE}/ModelInfer")

    async def start(self) -> None:
        """Listen, on the running event loop.

        Raises:
            OSError: the port is used by now.
        """
        self._server = grpc.aio.server(options=OPTIONS)
        handlers = {name: self._handler(name, method) for name, method in self._methods.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            self._server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise OSError(f"MLOPS_GRPC_PORT: {self.address} cannot be listened on: {error}") from error
        await self._server.start()
        log.info("gRPC is answered on %s", self.address)

    async def stop(self) -> None:
        """Take no more calls, and end those that are under way, within GRACE_SECONDS."""
        if self._server:
            await self._server.stop(GRACE_SECONDS)

    def _handler(self, name: str, method: _Method) -> grpc.RpcMethodHandler:
        """What grpcio calls: with bytes, so that what they are is read and answered as over HTTP."""
        path = f"/{SERVICE}/{name}"

        async def handle(content: bytes, context: grpc.aio.ServicerContext) -> bytes:
            started = perf_counter()
            answer = Answer(GONE, b"")
            try:
                answer = await self._answer(path, method, content, context)
            finally:
                key = ("POST", path, answer.model, answer.version)
                self.counts.add(key, answer.status, perf_counter() - started)
            if answer.status == 200:
                return answer.body
            await context.abort(
                CODES.get(answer.status, grpc.StatusCode.UNKNOWN),
                _shortened(answer.body),
                tuple((name.lower(), value) for name, value in (answer.headers or {}).items()),
            )
            raise AssertionError("abort returns")

        return grpc.unary_unary_rpc_method_handler(handle)

    async def _answer(self, path: str, method: _Method, content: bytes, context: grpc.aio.ServicerContext) -> Answer:
        metadata = context.invocation_metadata() or ()
        headers = [
            (name.encode(), value if isinstance(value, bytes) else value.encode("utf-8")) for name, value in metadata
        ]
        scope: Scope = {"type": "grpc", "method": "POST", "path": path, "headers": headers}
        try:
            if method.needs_key:
                self.keys.admit(scope, "predict")
            return await method.work(scope, content)
        except Refusal as refusal:
            return Answer(refusal.status, refusal.message.encode(), refusal.headers)
        except Exception as error:
            log.exception("a call of %s failed", path)
            return Answer(500, f"the call failed ({type(error).__name__}): see the API's log".encode())

    async def _read(self, kind: type[Message], content: bytes) -> Any:
        """The call's message; in a thread where it is large. Raises Refusal as `read_message`."""
        if len(content) < INLINE_BYTES:
            return read_message(kind, content)
        return await self.workers.run(len(content), read_message, kind, content)

    def _find(self, message: Any) -> ServedModel:
        """The model that a message is about; Refusal as `find_version`."""
        return find_version(self.models, message.name, message.version or None)

    # -- the methods ---------------------------------------------------------------------------------------------

    async def _server_live(self, scope: Scope, content: bytes) -> Answer:
        return _written(messages.ServerLiveResponse(live=True))

    async def _server_ready(self, scope: Scope, content: bytes) -> Answer:
        return _written(messages.ServerReadyResponse(ready=self.models.ready))

    async def _model_ready(self, scope: Scope, content: bytes) -> Answer:
        message = await self._read(messages.ModelReadyRequest, content)
        try:
            self._find(message)
        except Refusal:
            return _written(messages.ModelReadyResponse(ready=False))
        return _written(messages.ModelReadyResponse(ready=True))

    async def _server_metadata(self, scope: Scope, content: bytes) -> Answer:
        # no extensions: those of /v2 are of HTTP
        return _written(messages.ServerMetadataResponse(name=SERVER, version="1"))

    async def _model_metadata(self, scope: Scope, content: bytes) -> Answer:
        metadata = model_metadata(self._find(await self._read(messages.ModelMetadataRequest, content)))
        answer = messages.ModelMetadataResponse(
            name=metadata.name, versions=metadata.versions, platform=metadata.platform
        )
        for tensors, described in ((answer.inputs, metadata.inputs), (answer.outputs, metadata.outputs)):
            for tensor in described:
                tensors.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        for name, value in metadata.parameters.items():
            answer.properties[name] = value if isinstance(value, str) else json.dumps(value)
        return _written(answer)

    async def _model_infer(self, scope: Scope, content: bytes) -> Answer:
        message = await self._read(messages.ModelInferRequest, content)
        scope["message"] = message
        scope["path_params"] = {"name": message.model_name, "version": message.model_version or None}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content}

        return await self._infer.answer(scope, receive)


def _written(message: Message) -> Answer:
    return Answer(200, message.SerializeToString())


def _shortened(details: bytes) -> str:
    """What a status says, as long as every client takes it."""
    if len(details) > MAX_DETAILS:
        details = details[:MAX_DETAILS] + b" ..."
    return details.decode(errors="ignore")


def _check_free(host: str, port: int, address: str) -> None:
    """Raise OSError, in words, where the address cannot be listened on; grpcio would say it late and in a log."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as grpcio does: the last server's waits go
            probe.bind(where)
    except OSError as error:
        raise OSError(f"MLOPS_GRPC_PORT: {address} cannot be listened on: {error.strerror}") from error
