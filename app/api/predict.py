"""GET and POST /predict: one row or many, of the default model or a named one."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import to_json
from starlette.routing import Route
from starlette.types import Scope

from app.api.endpoint import PredictionEndpoint, Reply, predict_rows
from app.api.served_model import ServedModel
from app.vocabulary import Label


class Predict(PredictionEndpoint):
    """Answers a `contract.Prediction` for a row, and a list of them for a list; dicts, because they are faster."""

    def reply(self, served: ServedModel, scope: Scope, body: bytes) -> Reply:
        """As `PredictionEndpoint.reply`: a row in the query of a GET, one or many in the body of a POST."""
        if scope["method"] == "POST":
            rows, many = served.schema.from_json(body)
        else:
            rows, many = [served.schema.from_query(scope["query_string"])], False
        predicted = predict_rows(served, self.signer, rows)
        _, predictions, ids = predicted
        names = [class_name(label) for label in served.bundle.classes]
        origin = {"model": served.name, "version": served.version, "run_id": served.run_id}
        answers: list[dict[str, Any]] = []
        for i, (label, prediction_id) in enumerate(zip(predictions.labels, ids, strict=True)):
            answer: dict[str, Any] = {"prediction": label}
            if predictions.probabilities is not None:
                answer["probabilities"] = dict(zip(names, predictions.probabilities[i], strict=True))
            answers.append({**answer, **origin, "prediction_id": prediction_id})
        return Reply(to_json(answers if many else answers[0]), predicted)


def class_name(label: Label) -> str:
    """A class label as a key of a JSON object."""
    return label if isinstance(label, str) else json.dumps(label)


def routes(endpoint: Predict) -> list[Route]:
    """The routes of /predict."""
    paths = ("/predict", "/predict/", "/models/{name}/predict")
    return [Route(path, endpoint, methods=["GET", "POST"]) for path in paths]
