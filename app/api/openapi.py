"""/openapi.json: built from the signatures of the models in service, anew after each swap."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api import feedback, invocations, open_inference, predict
from app.api.served_models import ServedModels

_PROBLEM = {
    "type": "object",
    "properties": {
        "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
        "msg": {"type": "string"},
        "type": {"type": "string"},
    },
    "required": ["loc", "msg", "type"],
}


def _response(description: str, detail: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"detail": detail}, "required": ["detail"]}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def install(app: FastAPI, models: ServedModels) -> None:
    """Make the app answer /openapi.json and /docs for the models in service."""
    built: tuple[int, dict[str, Any]] = (-1, {})

    def openapi() -> dict[str, Any]:
        nonlocal built
        generation = models.generation
        if built[0] != generation:
            built = (generation, build(app, models))
        return built[1]

    app.openapi = openapi  # type: ignore[method-assign]


def build(app: FastAPI, models: ServedModels) -> dict[str, Any]:
    """The OpenAPI document: paths with a schema are there for each model in service."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description="Predictions of the models in production, and feedback on them.",
        routes=app.routes,
    )
    paths: dict[str, Any] = {}
    default = models.default
    if default:
        paths["/predict"] = predict.describe("/predict", default)
        paths["/invocations"] = invocations.describe(default)
    for name, served in sorted(models.current.items()):
        path = f"/models/{name}/predict"
        paths[path] = predict.describe(path, served)
        paths[f"/v2/models/{name}/infer"] = open_inference.describe(served)
    paths["/feedback"] = feedback.describe()
    document["paths"] = {**paths, **document["paths"]}
    document.setdefault("components", {})["responses"] = {
        "Invalid": _response("What is wrong with the request, and where.", {"type": "array", "items": _PROBLEM}),
        "Refused": _response("Why the request is not answered.", {}),
    }
    return document
