"""/v2: the Open Inference Protocol, version 2, in JSON."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from app.api.endpoint import PredictionEndpoint, Reply, answer
from app.api.errors import Invalid, Location, Refusal, field_error, invalid
from app.api.schema import MAX_ROWS, json_message
from app.api.served_models import ServedModel, ServedModels
from app.api.state import NOT_THERE, Shared
from app.vocabulary import INTEGER, NUMERIC

router = APIRouter(prefix="/v2", tags=["v2"])
DATATYPES = {
    "double": "FP64",
    "float": "FP32",
    "long": "INT64",
    "integer": "INT32",
    "boolean": "BOOL",
    "string": "BYTES",
}
FLOATS = frozenset({"FP16", "FP32", "FP64"})
INTS = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
MATRIX = ("features", "predict")  # names of the one tensor that holds all features


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class InputTensor(_Part):
    """`data` is flat or nested, row by row."""

    name: str
    shape: list[int] = Field(min_length=1, max_length=3)
    datatype: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any]


class RequestedOutput(_Part):
    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(_Part):
    """A request of the Open Inference Protocol."""

    id: str | None = Field(None, max_length=1000)
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[RequestedOutput] = Field(default_factory=list)


_REQUEST: TypeAdapter[InferRequest] = TypeAdapter(InferRequest)


def _flat(data: list[Any], where: Location) -> list[Any]:
    """The values of a flat list, or of one nested once."""
    if data and isinstance(data[0], list):
        if not all(isinstance(part, list) for part in data):
            raise invalid(where, "data should be either flat or nested, not both", "data_shape")
        data = [value for part in data for value in part]
    if any(isinstance(value, list | dict) for value in data):
        raise invalid(where, "data should be a flat list, or a list of rows", "data_shape")
    return data


def _check_datatype(tensor: InputTensor, dtypes: set[str], where: Location) -> None:
    if tensor.datatype in FLOATS | INTS:
        fits = dtypes <= NUMERIC - {"boolean"}
    else:
        fits = dtypes == {{"BOOL": "boolean", "BYTES": "string"}.get(tensor.datatype, "")}
    if not fits:
        wanted = " or ".join(sorted({DATATYPES[dtype] for dtype in dtypes}))
        message = f"{tensor.name} has the datatype {tensor.datatype}: send {wanted}"
        raise invalid((*where, "datatype"), message, "datatype")


def read_rows(served: ServedModel, request: InferRequest) -> list[dict[str, Any]]:
    """The rows of a request's tensors.

    Raises:
        Invalid: naming the tensor.
    """
    features = served.schema.features
    by_name = {tensor.name: (i, tensor) for i, tensor in enumerate(request.inputs)}
    if len(by_name) < len(request.inputs):
        raise invalid(("body", "inputs"), "two inputs have the same name", "duplicate")
    if len(by_name) == 1 and next(iter(by_name)) in MATRIX and next(iter(by_name)) not in features:
        return _matrix(served, request.inputs[0])
    extra = [name for name in by_name if name not in features]
    if extra:
        known = f"either one input {MATRIX[0]!r}, or one for each of: {', '.join(features)}"
        raise invalid(("body", "inputs", by_name[extra[0]][0]), f"{extra[0]} is no input; send {known}", "input_name")
    missing = [name for name in features if name not in by_name]
    if missing:
        raise Invalid([field_error(("body", "inputs"), f"the input {name} is missing", "missing") for name in missing])
    columns: dict[str, list[Any]] = {}
    for name, feature in features.items():
        i, tensor = by_name[name]
        where: Location = ("body", "inputs", i)
        _check_datatype(tensor, {feature.dtype}, where)
        columns[name] = _flat(tensor.data, (*where, "data"))
        n = tensor.shape[0]
        if tensor.shape not in ([n], [n, 1]) or n != len(columns[name]):
            message = f"{name} has the shape {tensor.shape} and {len(columns[name])} values: send [n] and n values"
            raise invalid((*where, "shape"), message, "shape")
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise invalid(("body", "inputs"), f"inputs have different lengths: {sorted(lengths)}", "shape")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    try:
        return served.schema.from_python(rows, ())
    except Invalid as error:
        for item in error.detail:
            loc = item["loc"]
            if len(loc) > 1 and loc[1] in by_name:
                item["loc"] = ["body", "inputs", by_name[loc[1]][0], "data", loc[0]]
            else:
                item["loc"] = ["body", "inputs", *loc]
        raise


def _matrix(served: ServedModel, tensor: InputTensor) -> list[dict[str, Any]]:
    features = served.schema.features
    where: Location = ("body", "inputs", 0)
    _check_datatype(tensor, {feature.dtype for feature in features.values()}, where)
    data, width = _flat(tensor.data, (*where, "data")), len(features)
    n = tensor.shape[0]
    if tensor.shape != [n, width] or math.prod(tensor.shape) != len(data):
        message = (
            f"{tensor.name} has the shape {tensor.shape} and {len(data)} values: send [n, {width}] and n * {width} "
            f"values, row by row in the order {', '.join(features)}"
        )
        raise invalid((*where, "shape"), message, "shape")
    rows = [dict(zip(features, data[i : i + width], strict=True)) for i in range(0, len(data), width)]
    return served.schema.from_python(rows, (*where, "data"))


class Infer(PredictionEndpoint):
    def find(self, scope: Scope) -> ServedModel:
        return find(self.models, **scope["path_params"])

    def refuse(self, refusal: Refusal) -> bytes:
        return refused(refusal)

    def reply(self, served: ServedModel, scope: Scope, body: bytes) -> Reply:
        try:
            request = _REQUEST.validate_json(body)
        except ValidationError as error:
            items = error.errors(include_url=False, include_input=False)
            raise Invalid(
                [
                    field_error(
                        ("body", *item["loc"]),
                        json_message(item["ctx"]["error"]) if item["type"] == "json_invalid" else item["msg"],
                        item["type"],
                    )
                    for item in items
                ]
            ) from None
        answered = answer(served, self.signer, read_rows(served, request))
        said, ids, _ = answered
        n = len(ids)
        outputs = [_tensor("value", "FP64", [n], said.labels)]
        if served.is_classifier:
            outputs = [_tensor("label", label_datatype(served), [n], said.labels)]
            if said.probabilities is not None:
                flat = [p for row in said.probabilities for p in row]
                outputs.append(_tensor("probabilities", "FP64", [n, len(served.bundle.classes)], flat))
        outputs.append(_tensor("prediction_id", "BYTES", [n], ids))
        if request.outputs:
            made = {output["name"]: output for output in outputs}
            for i, output in enumerate(request.outputs):
                if output.name not in made:
                    message = f"there is no output {output.name!r}; the outputs are: {', '.join(made)}"
                    raise invalid(("body", "outputs", i, "name"), message, "output_name")
            outputs = [made[output.name] for output in request.outputs]
        sent = {
            "model_name": served.name,
            "model_version": served.version,
            "id": request.id if request.id is not None else str(uuid.uuid4()),
            "parameters": {"run_id": served.run_id},
            "outputs": outputs,
        }
        return Reply(to_json(sent), answered)


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def label_datatype(served: ServedModel) -> str:
    """The protocol's type of the class labels."""
    first = served.bundle.classes[0] if served.bundle.classes else ""
    kinds = {bool: "BOOL", int: "INT64", float: "FP64"}
    return kinds.get(type(first), "BYTES")


def find(models: ServedModels, name: str, version: str | None = None) -> ServedModel:
    """The served model, if it has this version.

    Raises:
        Refusal: 404 another version, or as `ServedModels.get`.
    """
    served = models.get(name)
    if version is not None and version != served.version:
        raise Refusal(404, f"version {version} of {name} is not served; version {served.version} is")
    return served


def refused(refusal: Refusal) -> bytes:
    """The protocol wants `error`; `detail` is what all other endpoints answer."""
    detail = refusal.detail
    if isinstance(detail, list):
        text = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in detail)
    else:
        text = str(detail)
    return json.dumps({"error": text, "detail": detail}).encode()


def _json(status: int, content: Any) -> Response:
    return Response(to_json(content), status, media_type="application/json")


@router.get("")
async def server() -> dict[str, Any]:
    """The server's metadata."""
    return {"name": "mlops-model-api", "version": "1", "extensions": []}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """200 while the process turns."""
    return {"live": True}


@router.get("/health/ready", responses={503: NOT_THERE[503]})
async def ready(shared: Shared) -> Response:
    """200 when the default model (any, where there is no default) is loaded."""
    ok = shared.models.ready
    return _json(200 if ok else 503, {"ready": ok})


@router.get("/models/{name}", responses=NOT_THERE)
@router.get("/models/{name}/versions/{version}", responses=NOT_THERE)
async def metadata(shared: Shared, name: str, version: str | None = None) -> Response:
    """Inputs and outputs of a model."""
    try:
        served = find(shared.models, name, version)
    except Refusal as refusal:
        return Response(refused(refusal), refusal.status, refusal.headers, "application/json")
    features = served.bundle.features
    kinds = {"INT64" if f.dtype in INTEGER else "FP64" if f.dtype in NUMERIC else "" for f in features}
    if all(f.dtype in NUMERIC - {"boolean"} for f in features):
        kind = kinds.pop() if len(kinds) == 1 else "FP64"
        inputs = [{"name": MATRIX[0], "datatype": kind, "shape": [-1, len(features)]}]
    else:
        inputs = [{"name": f.name, "datatype": DATATYPES[f.dtype], "shape": [-1]} for f in features]
    outputs = [{"name": "value", "datatype": "FP64", "shape": [-1]}]
    if served.is_classifier:
        k = len(served.bundle.classes)
        outputs = [
            {"name": "label", "datatype": label_datatype(served), "shape": [-1]},
            {"name": "probabilities", "datatype": "FP64", "shape": [-1, k]},
        ]
    outputs.append({"name": "prediction_id", "datatype": "BYTES", "shape": [-1]})
    return _json(
        200,
        {
            "name": served.name,
            "versions": [served.version],
            "platform": "onnx_onnxv1" if served.bundle.serving == "onnx" else "sklearn_skops",
            "inputs": inputs,
            "outputs": outputs,
            "parameters": {"features": [f.name for f in features], "run_id": served.run_id},
        },
    )


@router.get("/models/{name}/ready", responses=NOT_THERE)
@router.get("/models/{name}/versions/{version}/ready", responses=NOT_THERE)
async def model_ready(shared: Shared, name: str, version: str | None = None) -> Response:
    """200 when the model is loaded."""
    try:
        served = find(shared.models, name, version)
    except Refusal as refusal:
        return Response(refused(refusal), refusal.status, refusal.headers, "application/json")
    return _json(200, {"name": served.name, "ready": True})


def routes(endpoint: Infer) -> list[Route]:
    paths = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")
    return [Route(path, endpoint, methods=["POST"]) for path in paths]


def describe(served: ServedModel) -> dict[str, Any]:
    """OpenAPI of /v2/models/NAME/infer."""
    example = served.bundle.example
    inputs = [
        {"name": f.name, "shape": [1], "datatype": DATATYPES[f.dtype], "data": [example.get(f.name)]}
        for f in served.bundle.features
    ]
    tensor = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array", "items": {}},
        },
        "required": ["name", "datatype", "shape", "data"],
    }
    request = {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": MAX_ROWS},
            "outputs": {
                "type": "array",
                "items": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            },
        },
        "required": ["inputs"],
    }
    reply = {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "outputs": {"type": "array", "items": tensor},
        },
        "required": ["model_name", "model_version", "id", "outputs"],
    }
    return {
        "post": {
            "tags": ["v2"],
            "summary": f"Predict with {served.name}: Open Inference Protocol",
            "operationId": f"infer_{served.name}",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": request, "example": {"inputs": inputs}}},
            },
            "responses": {
                "200": {"description": "The outputs.", "content": {"application/json": {"schema": reply}}},
                "404": {"$ref": "#/components/responses/Refused"},
                "413": {"$ref": "#/components/responses/Refused"},
                "422": {"$ref": "#/components/responses/Invalid"},
                "503": {"$ref": "#/components/responses/Refused"},
            },
        }
    }
