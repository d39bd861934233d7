"""/v2: predictions by the Open Inference Protocol, version 2, in JSON.

`app.api.open_inference_info` has its other routes, `app.api.grpc_server` its gRPC.
"""

from __future__ import annotations

import json
import uuid
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.types import Scope

from app.api.asgi import BINARY, LENGTH_HEADER, header
from app.api.binary_tensors import encode_answer, read_tensors, split_body, without_data
from app.api.endpoint import Asked, PredictedRows, PredictionEndpoint, Reply
from app.api.errors import Invalid, Refusal, field_error, invalid
from app.api.router import Route
from app.api.row_schema import json_message, read_json
from app.api.served_model import ServedModel
from app.api.served_models import ServedModels
from app.api.tensors import decode_request, rows_of_tensors
from app.contract.open_inference import InferRequest, RequestedOutput

SERVER = "mlops-model-api"  # what its metadata calls it
# Parameters of outputs, of Triton's extensions: what they ask for is not what would be answered.
NOT_SPOKEN = frozenset({"classification", "shared_memory_region"})


class InferAsked(NamedTuple):
    """What an answer needs of its request. raw: whether its values came as raw contents, over gRPC."""

    id: str | None
    outputs: list[RequestedOutput]
    parameters: dict[str, Any]
    raw: bool = False

    def binary_outputs(self, names: list[str]) -> set[str]:
        """Which of the outputs to answer in binary."""
        by_default = self.parameters.get("binary_data_output") is True
        wanted = {output.name: output.parameters.get("binary_data", by_default) is True for output in self.outputs}
        return {name for name in names if wanted.get(name, by_default)}


class Infer(PredictionEndpoint[InferAsked]):
    """Answers `contract.InferAnswer`."""

    def served_model(self, scope: Scope) -> ServedModel:
        """The model and version that the path names.

        Raises:
            Refusal: it is not served.
        """
        return find_version(self.models, **scope["path_params"])

    def refusal_body(self, refusal: Refusal) -> bytes:
        """As `contract.InferRefused` or `InferInvalid`."""
        return infer_refusal_body(refusal)

    def read(self, served: ServedModel, scope: Scope, body: bytes) -> Asked[InferAsked]:
        """As `PredictionEndpoint.read`: the body is an `InferRequest`."""
        length = header(scope, BINARY)
        if length:
            content, values = split_body(body, length)
            request = request_of(without_data(read_json(content)))
            rows = rows_of_tensors(served, request, read_tensors(request, values))
            return Asked(rows, InferAsked(request.id, request.outputs, request.parameters))
        decoded = decode_request(served, body)
        if decoded is not None:
            return Asked(decoded[0], InferAsked(decoded[1], [], decoded[2]))
        request = read_request(body)
        return Asked(rows_of_tensors(served, request), InferAsked(request.id, request.outputs, request.parameters))

    def write(self, served: ServedModel, request: InferAsked, predicted: PredictedRows) -> Reply:
        """As `PredictionEndpoint.write`."""
        answer = infer_answer(served, request, predicted)
        binary = request.binary_outputs([output["name"] for output in answer["outputs"]])
        return Reply(*encode_answer(answer, binary)) if binary else Reply(to_json(answer))


def read_request(body: bytes) -> InferRequest:
    """The request of a body.

    Raises:
        Invalid: naming the field.
    """
    try:
        return InferRequest.model_validate_json(body)
    except ValidationError as error:
        raise invalid_request(error) from None


def request_of(content: Any) -> InferRequest:
    """The request that was read already, into dicts and lists; Invalid as in `read_request`."""
    try:
        return InferRequest.model_validate(content)
    except ValidationError as error:
        raise invalid_request(error) from None


def invalid_request(error: ValidationError) -> Invalid:
    """The refusal of a body that pydantic refuses."""
    return Invalid(
        [
            field_error(
                ("body", *item["loc"]),
                _message(item),
                item["type"],
            )
            for item in error.errors(include_url=False, include_input=False)
        ]
    )


def _message(item: Any) -> str:
    """What to tell the sender, of one of pydantic's errors."""
    if item["type"] == "json_invalid":
        return json_message(item["ctx"]["error"])
    if item["type"] == "missing" and item["loc"][-1] == "data":
        return f"the tensor has no values: send data, or binary_data_size and the header {LENGTH_HEADER}"
    return item["msg"]


def infer_answer(served: ServedModel, request: InferAsked, predicted: PredictedRows) -> dict[str, Any]:
    """What a request is answered, as `contract.InferAnswer` has it.

    Raises:
        Invalid: it asks for an output that there is not.
    """
    outputs = _outputs(served, predicted)
    return {
        "model_name": served.name,
        "model_version": served.version,
        "id": request.id if request.id is not None else str(uuid.uuid4()),
        "parameters": {"run_id": served.run_id},
        "outputs": requested_outputs(outputs, request.outputs) if request.outputs else outputs,
    }


def _outputs(served: ServedModel, predicted: PredictedRows) -> list[dict[str, Any]]:
    predictions, ids = predicted.predictions, predicted.ids
    n = len(ids)
    outputs = [_tensor("value", "FP64", [n], predictions.labels)]
    if served.is_classifier:
        outputs = [_tensor("label", label_datatype(served), [n], predictions.labels)]
        if predictions.probabilities is not None:
            flat = [probability for row in predictions.probabilities for probability in row]
            outputs.append(_tensor("probabilities", "FP64", [n, len(served.bundle.classes)], flat))
    outputs.append(_tensor("prediction_id", "BYTES", [n], ids))
    if predicted.tokens:
        outputs.append(_tensor("feedback_token", "BYTES", [n], predicted.tokens))
    return outputs


def requested_outputs(outputs: list[dict[str, Any]], requested: list[RequestedOutput]) -> list[dict[str, Any]]:
    """The outputs that a request names, in its order.

    Raises:
        Invalid: there is none of a name, or it is asked for in a way that is not spoken here.
    """
    by_name = {output["name"]: output for output in outputs}
    for i, output in enumerate(requested):
        if output.name not in by_name:
            message = f"there is no output {output.name!r}; the outputs are: {', '.join(by_name)}"
            raise invalid(("body", "outputs", i, "name"), message, "output_name")
        for extension in NOT_SPOKEN & output.parameters.keys():
            message = f"{extension} is not spoken here: leave it out, and {output.name} is answered as it is"
            raise invalid(("body", "outputs", i, "parameters", extension), message, "extension")
    return [by_name[output.name] for output in requested]


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def label_datatype(served: ServedModel) -> str:
    """The protocol's type of the class labels."""
    first = served.bundle.classes[0] if served.bundle.classes else ""
    datatypes = {bool: "BOOL", int: "INT64", float: "FP64"}
    return datatypes.get(type(first), "BYTES")


def find_version(models: ServedModels, name: str, version: str | None = None) -> ServedModel:
    """The served model, or its canary where that is the version.

    Raises:
        Refusal: 404 another version, or as `ServedModels.get`.
    """
    served = models.get(name) if version is None else models.version(name, version)
    if served is None:
        raise Refusal(404, f"version {version} of {name} is not served; version {models.get(name).version} is")
    return served


def infer_refusal_body(refusal: Refusal) -> bytes:
    """What a refused request below /v2 is answered, as JSON."""
    return json.dumps({"error": refusal.message, "detail": refusal.detail}).encode()


def routes(endpoint: Infer) -> list[Route]:
    """The routes of /v2/models/NAME/infer."""
    paths = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")
    return [Route(path, endpoint) for path in paths]
