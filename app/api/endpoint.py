"""What all prediction endpoints have in common: find the model, read the body, predict, answer, count."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any, NamedTuple

from starlette.types import Receive, Scope, Send

from app.api.asgi import read_body, send_json
from app.api.errors import Refusal, invalid
from app.api.keys import Keys
from app.api.meter import Tally
from app.api.prediction_id import Signer
from app.api.served_model import NoPrediction, ServedModel
from app.api.served_models import ServedModels
from app.api.workers import Workers
from app.registry.predictor import Predictions

# A body of this many bytes (some 64 rows) or more is worked on in a thread, so that the event loop turns meanwhile.
INLINE_BYTES = 4096

log = logging.getLogger("mlops.predict")


class PredictedRows(NamedTuple):
    """The rows of one request (values in the signature's order), with a prediction and an id for each."""

    values: list[list[Any]]
    predictions: Predictions
    ids: list[str]


class Reply(NamedTuple):
    """The body of an answer, and the rows that it is about."""

    body: bytes
    rows: PredictedRows


def predict_rows(served: ServedModel, signer: Signer, rows: list[dict[str, Any]]) -> PredictedRows:
    """Predict rows that the model's schema has read.

    Raises:
        Invalid: the model has no prediction for these values.
    """
    values = [list(row.values()) for row in rows]
    try:
        predictions = served.predict(values)
    except NoPrediction as error:
        raise invalid(("body",), f"the model cannot answer these values: {error}", "no_answer") from error
    name, version, task = served.name, served.version, served.bundle.task
    ids = [signer.make(name, version, task, row, label) for row, label in zip(rows, predictions.labels, strict=True)]
    return PredictedRows(values, predictions, ids)


class PredictionEndpoint:
    """An ASGI endpoint. Subclasses turn a body into rows, and predictions into a body."""

    def __init__(self, models: ServedModels, signer: Signer, workers: Workers, keys: Keys) -> None:
        self.models, self.signer, self.workers, self.keys = models, signer, workers, keys
        self.needs_key = "predict" in keys.required

    def served_model(self, scope: Scope) -> ServedModel:
        """The model that the path names, or the default one.

        Raises:
            Refusal: it is not served.
        """
        return self.models.get(scope["path_params"].get("name"))

    def reply(self, served: ServedModel, scope: Scope, body: bytes) -> Reply:
        """The answer to one request; in a thread for large bodies and slow models.

        Raises:
            Refusal: what is wrong with the request.
        """
        raise NotImplementedError

    def refusal_body(self, refusal: Refusal) -> bytes:
        """What a refused request is answered, as JSON."""
        return refusal.body()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and count it, with its status and duration."""
        started = perf_counter()
        requests = self.models.metrics.unserved
        status, headers = 500, None
        try:
            try:
                if self.needs_key:
                    self.keys.admit(scope, "predict")
                served = self.served_model(scope)
                requests = served.meter.requests
                content = b"" if scope["method"] != "POST" else await read_body(scope, receive)
                if len(content) < INLINE_BYTES and not served.in_thread:
                    body, rows = self.reply(served, scope, content)
                    served.meter.count(rows.values, rows.predictions.labels)
                else:
                    body, tally = await self.workers.run(len(content), self._work, served, scope, content)
                    served.meter.add(tally)
                status = 200
            except Refusal as refusal:
                status, body, headers = refusal.status, self.refusal_body(refusal), refusal.headers
            except Exception as error:  # out of memory, a model that is broken: no fault of the request
                log.exception("a prediction at %s failed", scope["path"])
                body = self.refusal_body(
                    Refusal(500, f"the prediction failed ({type(error).__name__}): see the API's log")
                )
            await send_json(send, status, body, headers)
        finally:
            requests.add(status, perf_counter() - started)

    def _work(self, served: ServedModel, scope: Scope, content: bytes) -> tuple[bytes, Tally]:
        body, rows = self.reply(served, scope, content)
        return body, served.meter.tally(rows.values, rows.predictions.labels)
