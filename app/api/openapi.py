"""/openapi.json: made of the contract and of the signatures of the models in service, anew after each change.

FastAPI describes its own routes. The routes that are plain ASGI are described here: the shapes are those of
`app.contract`, and what only a model knows (its features, its classes, an example) is put in for each model.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.api.invocations import FORMATS
from app.api.row_schema import KINDS
from app.api.served_model import ServedModel
from app.api.served_models import ServedModels
from app.api.tensors import DATATYPES
from app.contract import MAX_ROWS
from app.contract.errors import InferInvalid, InferRefused, InvalidRequest, Refused
from app.contract.explanation import Explained
from app.contract.feedback import RowFeedback, StoredFeedback, TokenFeedback
from app.contract.health import Alive, Ready
from app.contract.open_inference import InferAnswer, InferRequest
from app.contract.predictions import DataframeSplit, Prediction, Scores
from app.runtime.api_keys import Scope
from app.vocabulary import Label

Json = dict[str, Any]
_KEY = "A key of this API: mlops_ and 43 characters. Whoever runs it makes one with `mlops keys create`."
_OPEN = ("/livez", "/readyz", "/ping", "/health", "/version", "/health/live", "/ready")  # ends of paths that need none
_REFERENCE = "#/components/schemas/{model}"
_TOKEN: Json = {
    "name": "Feedback-Token",
    "in": "header",
    "required": False,
    "description": "true: the answer has a feedback token for each row, which /feedback takes with the true label.",
    "schema": {"type": "string", "enum": ["true", "false"]},
}
_SCHEMAS: Json = models_json_schema(
    [
        *((shape, "validation") for shape in (TokenFeedback, RowFeedback, InferRequest)),
        *(
            (shape, "serialization")
            for shape in (
                DataframeSplit,
                Prediction,
                Scores,
                Explained,
                StoredFeedback,
                InferAnswer,
                InvalidRequest,
                Refused,
                Alive,
                Ready,
                InferInvalid,
                InferRefused,
            )
        ),
    ],
    ref_template=_REFERENCE,
)[1]["$defs"]


def install(app: FastAPI, models: ServedModels, keys_required: Collection[Scope] = ()) -> None:
    """Make the app answer /openapi.json and /docs for the models in service.

    Args:
        keys_required: the scopes that need a key.
    """
    built: tuple[int, Json] = (-1, {})

    def openapi() -> Json:
        nonlocal built
        generation = models.generation
        if built[0] != generation:
            built = (generation, with_keys(build(app, models), keys_required))
        return built[1]

    app.openapi = openapi  # type: ignore[method-assign]


def build(app: FastAPI, models: ServedModels) -> Json:
    """The OpenAPI document: paths with a schema are there for each model in service."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description="Predictions of the models in production, and feedback on them.",
        routes=app.routes,
    )
    paths: Json = {}
    own: Json = {}
    default = models.default
    if default:
        paths["/predict"] = _predict("/predict", default)
        paths["/invocations"] = {"post": _invocations(default)}
        paths["/explain"] = {"post": _explain("/explain", default)}
    for name, served in sorted(models.current.items()):
        path = f"/models/{name}/predict"
        paths[path] = _predict(path, served)
        paths[f"/v2/models/{name}/infer"] = {"post": _infer(served)}
        paths[f"/models/{name}/explain"] = {"post": _explain(f"/models/{name}/explain", served)}
        own |= {_name(served, "row"): served.schema.json_schema(), _name(served, "prediction"): _answer(served)}
    paths["/feedback"] = {"post": _feedback()}
    paths |= _health()
    document["paths"] = {**paths, **document["paths"]}
    components = document.setdefault("components", {})
    components["schemas"] = {**own, **_SCHEMAS, **components.get("schemas", {})}
    components["responses"] = {
        "Invalid": _json("What is wrong with the request, and where.", _shape(InvalidRequest)),
        "Refused": _json("Why the request is not answered.", _shape(Refused)),
        "InferInvalid": _json("What is wrong with the request, and where.", _shape(InferInvalid)),
        "InferRefused": _json("Why the request is not answered.", _shape(InferRefused)),
    }
    return document


def with_keys(document: Json, required: Collection[Scope]) -> Json:
    """The document, in which every operation says whether it needs a key, and how it is refused for it."""
    if not required:
        return document
    components = document["components"]
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": _KEY}}
    for path, item in document["paths"].items():
        scope: Scope = "feedback" if path.startswith("/feedback") else "predict"
        if scope in required and not path.endswith(_OPEN):
            for operation in item.values():
                operation["security"] = [{"key": []}]
                refused = _failures(401, 403, 429, prefix="Infer" if f"{path}/".startswith("/v2/") else "")
                operation["responses"] = {**operation["responses"], **refused}
    return document


def _explain(path: str, served: ServedModel) -> Json:
    return {
        "tags": ["predict"],
        "summary": f"What each feature contributed to a prediction of {served.name}",
        "description": "Shapley values against rows of the training data: base and contributions add up to the value.",
        "operationId": f"post_{path.strip('/').replace('/', '_')}",
        "requestBody": _body(_own(served, "row"), served.bundle.example),
        "responses": {
            "200": _json("The contributions.", _shape(Explained)),
            **_failures(400, 413, 422, 500, 503),
        },
    }


def _predict(path: str, served: ServedModel) -> Json:
    fields, example = served.schema.json_schema()["properties"], served.bundle.example
    row, answer = _own(served, "row"), _own(served, "prediction")
    name = path.strip("/").replace("/", "_")
    common = {"tags": ["predict"], "description": f"Version {served.version} of {served.name}: {served.bundle.target}."}
    return {
        "get": {
            **common,
            "summary": f"Predict one row with {served.name}",
            "operationId": f"get_{name}",
            "parameters": [
                {
                    "name": feature.name,
                    "in": "query",
                    "required": not feature.nullable,
                    "description": KINDS[feature.dtype],
                    "schema": fields[feature.name],
                    "example": example.get(feature.name),
                }
                for feature in served.bundle.features
            ]
            + [_TOKEN],
            "responses": {"200": _json("The prediction.", answer), **_failures(400, 422, 500, 503)},
        },
        "post": {
            **common,
            "summary": f"Predict one row or many with {served.name}",
            "operationId": f"post_{name}",
            "parameters": [_TOKEN],
            "requestBody": _body(_one_or_many(row), example),
            "responses": {
                "200": _json("One answer, or one per row.", {"anyOf": [answer, {"type": "array", "items": answer}]}),
                **_failures(400, 413, 422, 500, 503),
            },
        },
    }


def _answer(served: ServedModel) -> Json:
    """`Prediction` with what this model can predict."""
    schema = _SCHEMAS["Prediction"]
    properties = dict(schema["properties"])
    if served.is_classifier:
        properties["prediction"] = _labels(list(served.bundle.classes))
    else:
        properties["prediction"] = {"type": "number"}
        del properties["probabilities"]
    return {**schema, "title": f"{served.name} prediction", "properties": properties}


def _labels(classes: list[Label]) -> Json:
    """What a class may be: generators of clients know enumerations of text and of whole numbers alone."""
    kinds = {type(label) for label in classes}
    if kinds == {bool}:
        return {"type": "boolean"}
    return {"type": "number"} if kinds == {float} else {"enum": classes}


def _invocations(served: ServedModel) -> Json:
    columns = list(served.schema.features)
    rows = _many(_own(served, "row"))
    split = _SCHEMAS["DataframeSplit"]
    named = {"type": "array", "items": {"enum": columns}}
    formats = dict.fromkeys(FORMATS, rows)
    formats["dataframe_split"] = {**split, "properties": {**split["properties"], "columns": named}}
    content = _body(
        {
            "oneOf": [
                {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}
                for name, schema in formats.items()
            ]
        },
        {"dataframe_split": {"columns": columns, "data": [list(served.bundle.example.values())]}},
    )
    content["content"]["text/csv"] = {"schema": {"type": "string"}}
    return {
        "tags": ["mlflow"],
        "summary": f"Predict with {served.name}: MLflow's scoring protocol",
        "operationId": "post_invocations",
        "parameters": [_TOKEN],
        "requestBody": content,
        "responses": {
            "200": _json("The predictions.", _shape(Scores)),
            **_failures(400, 413, 415, 422, 500, 503),
        },
    }


def _infer(served: ServedModel) -> Json:
    example = served.bundle.example
    inputs = [
        {"name": f.name, "shape": [1], "datatype": DATATYPES[f.dtype], "data": [example.get(f.name)]}
        for f in served.bundle.features
    ]
    return {
        "tags": ["v2"],
        "summary": f"Predict with {served.name}: Open Inference Protocol",
        "operationId": f"infer_{served.name}",
        "parameters": [_TOKEN],
        "requestBody": _body(_shape(InferRequest), {"inputs": inputs}),
        "responses": {
            "200": _json("The outputs.", _shape(InferAnswer)),
            **_failures(400, 404, 413, 422, 500, 503, prefix="Infer"),
        },
    }


def _feedback() -> Json:
    stored = _shape(StoredFeedback)
    return {
        "tags": ["feedback"],
        "summary": "The true label of a prediction, or of many",
        "description": "201 means that MLflow has stored all of them.",
        "operationId": "post_feedback",
        "requestBody": _body(_one_or_many({"oneOf": [_shape(TokenFeedback), _shape(RowFeedback)]})),
        "responses": {
            "201": _json("Stored.", {"anyOf": [stored, {"type": "array", "items": stored}]}),
            **_failures(404, 413, 422, 500, 503),
        },
    }


def _health() -> Json:
    alive = _json("It is alive.", _shape(Alive))
    ready = {"200": _json("It is ready.", _shape(Ready)), **_failures(503)}
    text = {"description": "The version.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    when = "200 when the default model (any, where there is no default) is loaded."
    return {
        "/livez": _get("livez", ["health"], "200 while the process turns; it asks nobody else.", {"200": alive}),
        "/readyz": _get("readyz", ["health"], when, ready),
        "/ping": _get("readyz", ["health", "mlflow"], when, ready, "ping"),
        "/health": _get("readyz", ["health", "mlflow"], when, ready, "health"),
        "/version": _get(
            "version",
            ["health", "mlflow"],
            "The version of MLflow whose scoring protocol is spoken here.",
            {"200": text},
        ),
    }


def _get(name: str, tags: list[str], description: str, responses: Json, path: str = "") -> Json:
    """A route of its own; its operationId is as FastAPI makes it."""
    operation = f"{name}_{path or name}_get"
    summary = name.capitalize()
    described = {"tags": tags, "summary": summary, "description": description, "operationId": operation}
    return {"get": {**described, "responses": responses}}


def _shape(shape: type) -> Json:
    return {"$ref": _REFERENCE.format(model=shape.__name__)}


def _name(served: ServedModel, kind: str) -> str:
    """What the document calls a shape of a model's own. It has a name, because generators of clients want one."""
    name = re.sub(r"[^A-Za-z0-9_.-]", lambda other: f"_{ord(other[0]):x}_", served.name)
    return f"{name}_{kind}"


def _own(served: ServedModel, kind: str) -> Json:
    return {"$ref": _REFERENCE.format(model=_name(served, kind))}


def _many(schema: Json) -> Json:
    return {"type": "array", "items": schema, "minItems": 1, "maxItems": MAX_ROWS}


def _one_or_many(schema: Json) -> Json:
    return {"anyOf": [schema, _many(schema)]}


def _body(schema: Json, example: Any = None) -> Json:
    content = {"schema": schema} if example is None else {"schema": schema, "example": example}
    return {"required": True, "content": {"application/json": content}}


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _failures(*statuses: int, prefix: str = "") -> Json:
    names = {status: prefix + ("Invalid" if status == 422 else "Refused") for status in statuses}
    return {str(status): {"$ref": f"#/components/responses/{name}"} for status, name in names.items()}
