"""GET and POST /predict: one row or many, of the default model or a named one."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import to_json
from starlette.routing import Route
from starlette.types import Scope

from app.api.endpoint import PredictionEndpoint, Reply, answer
from app.api.schema import KINDS
from app.api.served_models import ServedModel


class Predict(PredictionEndpoint):
    def reply(self, served: ServedModel, scope: Scope, body: bytes) -> Reply:
        if scope["method"] == "POST":
            rows, many = served.schema.from_json(body)
        else:
            rows, many = [served.schema.from_query(scope["query_string"])], False
        answered = answer(served, self.signer, rows)
        said, ids, _ = answered
        names = [key(label) for label in served.bundle.classes]
        rest = {"model": served.name, "version": served.version, "run_id": served.run_id}
        answers: list[dict[str, Any]] = []
        for i, (label, token) in enumerate(zip(said.labels, ids, strict=True)):
            one: dict[str, Any] = {"prediction": label}
            if said.probabilities is not None:
                one["probabilities"] = dict(zip(names, said.probabilities[i], strict=True))
            answers.append({**one, **rest, "prediction_id": token})
        return Reply(to_json(answers if many else answers[0]), answered)


def key(label: Any) -> str:
    """A class label as a key of a JSON object."""
    return label if isinstance(label, str) else json.dumps(label)


def routes(endpoint: Predict) -> list[Route]:
    paths = ("/predict", "/predict/", "/models/{name}/predict")
    return [Route(path, endpoint, methods=["GET", "POST"]) for path in paths]


def answer_schema(served: ServedModel) -> dict[str, Any]:
    """JSON schema of one answer."""
    properties: dict[str, Any] = {"prediction": {"type": "number"}}
    if served.is_classifier:
        properties["prediction"] = {"enum": list(served.bundle.classes)}
        properties["probabilities"] = {"type": "object", "additionalProperties": {"type": "number"}}
    for name in ("model", "version", "run_id", "prediction_id"):
        properties[name] = {"type": "string"}
    required = [name for name in properties if name != "probabilities"]
    return {"type": "object", "properties": properties, "required": required}


def describe(path: str, served: ServedModel) -> dict[str, Any]:
    """OpenAPI of one path of this endpoint, with the model's own fields."""
    row, one = served.schema.json_schema(), answer_schema(served)
    example = served.bundle.example
    parameters = [
        {
            "name": feature.name,
            "in": "query",
            "required": True,
            "description": KINDS[feature.dtype],
            "schema": row["properties"][feature.name],
            "example": example.get(feature.name),
        }
        for feature in served.bundle.features
    ]
    failures = {"422": {"$ref": "#/components/responses/Invalid"}, "503": {"$ref": "#/components/responses/Refused"}}
    about = {"tags": ["predict"], "description": f"Version {served.version} of {served.name}: {served.bundle.target}."}
    named = path.strip("/").replace("/", "_")
    return {
        "get": {
            **about,
            "summary": f"Predict one row with {served.name}",
            "operationId": f"get_{named}",
            "parameters": parameters,
            "responses": {"200": _json("The prediction.", one), **failures},
        },
        "post": {
            **about,
            "summary": f"Predict one row or many with {served.name}",
            "operationId": f"post_{named}",
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"anyOf": [row, {"type": "array", "items": row, "minItems": 1, "maxItems": 10000}]},
                        "example": example,
                    }
                },
            },
            "responses": {
                "200": _json("One answer, or one per row.", {"anyOf": [one, {"type": "array", "items": one}]}),
                "413": {"$ref": "#/components/responses/Refused"},
                **failures,
            },
        },
    }


def _json(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
