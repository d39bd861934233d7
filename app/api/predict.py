"""GET and POST /predict: one row or many, of the default model or a named one."""

from __future__ import annotations

from starlette.types import Scope

from app.api.endpoint import Asked, PredictedRows, PredictionEndpoint, Reply
from app.api.router import Route
from app.api.served_model import ServedModel


class Predict(PredictionEndpoint[bool]):
    """Answers a `contract.Prediction` for a row, and a list of them for a list (which is what the request is)."""

    def read(self, served: ServedModel, scope: Scope, body: bytes) -> Asked[bool]:
        """As `PredictionEndpoint.read`: a row in the query of a GET, one or many in the body of a POST."""
        if scope["method"] == "POST":
            return Asked(*served.schema.from_json(body))
        return Asked([served.schema.from_query(scope["query_string"])], False)

    def write(self, served: ServedModel, request: bool, predicted: PredictedRows) -> Reply:
        """As `PredictionEndpoint.write`."""
        return Reply(served.writer.write(predicted.predictions, predicted.ids, predicted.tokens, request))


def routes(endpoint: Predict) -> list[Route]:
    """The routes of /predict."""
    paths = ("/predict", "/predict/", "/models/{name}/predict")
    return [Route(path, endpoint, ("GET", "HEAD", "POST")) for path in paths]
