"""ModelInfer of the Open Inference Protocol's gRPC: its messages to tensors and back; all else is as over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message
from starlette.types import Receive, Scope

from app.api.binary_tensors import DTYPES, as_texts, check_is_known, encode_values, tensor_values
from app.api.endpoint import Asked, PredictedRows, Reply, Serving
from app.api.errors import Location, Refusal, invalid
from app.api.inference_proto import open_inference_grpc_pb2 as messages
from app.api.open_inference import Infer, InferAsked, infer_answer, request_of
from app.api.served_model import ServedModel
from app.api.tensors import rows_of_tensors
from app.contract.open_inference import InferRequest, InputTensor

# Where a message has the values of a datatype, unless it has them as raw bytes; FP16 comes in no other way.
FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# As wide as those fields: an INT8 comes as an int32, which may be more than an INT8.
FIELD_DTYPES = {
    **{datatype: np.dtype(dtype) for datatype, dtype in DTYPES.items()},
    **dict.fromkeys(("INT8", "INT16"), np.dtype("i4")),
    **dict.fromkeys(("UINT8", "UINT16"), np.dtype("u4")),
}


def read_message(kind: type[Message], content: bytes) -> Any:
    """A message of this kind.

    Raises:
        Refusal: 400 it is none.
    """
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise Refusal(400, f"the message is no {kind.DESCRIPTOR.name} of the protocol: {error}") from None


class GrpcInfer(Infer):
    """Answers ModelInfer. The scope has the message under `message`; that a key admits it was seen before."""

    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        self.needs_key = False

    def refusal_body(self, refusal: Refusal) -> bytes:
        """What the status of a refused call says, as text."""
        return refusal.message.encode()

    async def receive_body(self, scope: Scope, receive: Receive) -> bytes:
        """The message as it came; the server has bounded its size."""
        content: bytes = (await receive())["body"]
        return content

    def read(self, served: ServedModel, scope: Scope, body: bytes) -> Asked[InferAsked]:
        """As `PredictionEndpoint.read`, of the message that was read from the body."""
        message = scope["message"]
        request = _request(message)
        raw = list(message.raw_input_contents)
        rows = rows_of_tensors(served, request, _raw(message, request, raw) if raw else _typed(message, request))
        if isinstance(rows, np.ndarray) and len(rows) <= served.inline_rows:
            rows = [tuple(row) for row in rows.tolist()]  # few enough to be predicted with those of other requests
        return Asked(rows, InferAsked(request.id, request.outputs, request.parameters, bool(raw)))

    def write(self, served: ServedModel, request: InferAsked, predicted: PredictedRows) -> Reply:
        """As `PredictionEndpoint.write`: a ModelInferResponse, with raw contents if the request had them."""
        answer = infer_answer(served, request, predicted)
        message = messages.ModelInferResponse(
            model_name=answer["model_name"], model_version=answer["model_version"], id=answer["id"]
        )
        for name, value in answer["parameters"].items():
            message.parameters[name].string_param = value
        for output in answer["outputs"]:
            datatype, data = output["datatype"], output["data"]
            tensor = message.outputs.add(name=output["name"], datatype=datatype, shape=output["shape"])
            if request.raw:
                message.raw_output_contents.append(encode_values(datatype, data))
            else:
                values = [str(value).encode() for value in data] if datatype == "BYTES" else data
                getattr(tensor.contents, FIELDS[datatype]).extend(values)
        return Reply(message.SerializeToString())


def _request(message: Any) -> InferRequest:
    """The request, but for the values of its tensors; Invalid as in `read_request`."""
    return request_of(
        {
            "id": message.id or None,
            "parameters": _parameters(message.parameters),
            "inputs": [
                {
                    "name": tensor.name,
                    "shape": list(tensor.shape),
                    "datatype": tensor.datatype,
                    "parameters": _parameters(tensor.parameters),
                    "data": [],
                }
                for tensor in message.inputs
            ],
            "outputs": [
                {"name": output.name, "parameters": _parameters(output.parameters)} for output in message.outputs
            ],
        }
    )


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Their values, None where one has none."""
    return {
        name: getattr(value, which) if (which := value.WhichOneof("parameter_choice")) else None
        for name, value in parameters.items()
    }


def _raw(message: Any, request: InferRequest, raw: list[bytes]) -> dict[int, np.ndarray]:
    """The values of all tensors, of raw_input_contents."""
    if len(raw) != len(request.inputs):
        sent = f"{len(raw)} raw_input_contents were sent for {len(request.inputs)} inputs: send one for each"
        raise invalid(("body", "raw_input_contents"), sent, "binary")
    arrays = {}
    for i, (tensor, part, sent_tensor) in enumerate(zip(request.inputs, raw, message.inputs, strict=True)):
        location: Location = ("body", "inputs", i, "contents")
        if sent_tensor.contents.ByteSize():
            raise invalid(location, f"{tensor.name} has contents and raw_input_contents: send one", "binary")
        arrays[i] = tensor_values(tensor, part, location)
    return arrays


def _typed(message: Any, request: InferRequest) -> dict[int, np.ndarray]:
    """The values of all tensors, of their contents."""
    return {
        i: _contents(tensor, sent.contents, ("body", "inputs", i, "contents"))
        for i, (tensor, sent) in enumerate(zip(request.inputs, message.inputs, strict=True))
    }


def _contents(tensor: InputTensor, contents: Any, location: Location) -> np.ndarray:
    check_is_known(tensor, location)
    field = FIELDS.get(tensor.datatype, "raw_input_contents")
    fields: Iterable[str] = [descriptor.name for descriptor, _ in contents.ListFields()]
    if not fields:
        raise invalid(location, f"{tensor.name} has no values: send {field}", "missing")
    if fields != [field]:
        message = f"{tensor.name} has the datatype {tensor.datatype} and {', '.join(fields)}: send {field}"
        raise invalid(location, message, "datatype")
    values = getattr(contents, field)
    if tensor.datatype == "BYTES":
        return as_texts(values, location)
    return np.fromiter(values, FIELD_DTYPES[tensor.datatype], len(values))
