"""What all prediction endpoints have in common: find the model, read the body, predict, answer, count."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, NamedTuple

from starlette.types import Receive, Scope, Send

from app.api.asgi import read_body, send_json
from app.api.errors import Invalid, Refusal, field_error
from app.api.metrics import Tally
from app.api.prediction_id import Signer
from app.api.served_models import NoAnswer, ServedModel, ServedModels
from app.registry.predictor import Predictions

# A body of this many bytes (some 64 rows) or more is worked on in a thread, so that the event loop turns meanwhile.
INLINE_BYTES = 4096


class Answered(NamedTuple):
    """What the model says of the rows of one request, with an id for each."""

    said: Predictions
    ids: list[str]
    values: list[list[Any]]


class Reply(NamedTuple):
    body: bytes
    answered: Answered


def answer(served: ServedModel, signer: Signer, rows: list[dict[str, Any]]) -> Answered:
    """Predict rows of the model's schema.

    Raises:
        Invalid: the model has no answer for these values.
    """
    values = [list(row.values()) for row in rows]
    try:
        said = served.predict(values)
    except NoAnswer as error:
        where = field_error(("body",), f"the model cannot answer these values: {error}", "no_answer")
        raise Invalid([where]) from error
    name, version, task = served.name, served.version, served.bundle.task
    ids = [signer.make(name, version, task, row, label) for row, label in zip(rows, said.labels, strict=True)]
    return Answered(said, ids, values)


class PredictionEndpoint:
    """An ASGI endpoint. Subclasses turn a body into rows, and predictions into a body."""

    def __init__(self, models: ServedModels, signer: Signer, pool: ThreadPoolExecutor) -> None:
        self.models, self.signer, self.pool = models, signer, pool

    def find(self, scope: Scope) -> ServedModel:
        return self.models.get(scope["path_params"].get("name"))

    def reply(self, served: ServedModel, scope: Scope, body: bytes) -> Reply:
        """The answer to one request; in a thread for large bodies and slow models.

        Raises:
            Refusal: what is wrong with the request.
        """
        raise NotImplementedError

    def refuse(self, refusal: Refusal) -> bytes:
        return refusal.body()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        requests = self.models.metrics.unserved
        status, headers = 500, None
        try:
            try:
                served = self.find(scope)
                requests = served.meter.requests
                sent = b"" if scope["method"] != "POST" else await read_body(scope, receive)
                if len(sent) < INLINE_BYTES and not served.in_thread:
                    body, answered = self.reply(served, scope, sent)
                    served.meter.count(answered.values, answered.said.labels)
                else:
                    loop = asyncio.get_running_loop()
                    body, tally = await loop.run_in_executor(self.pool, self._work, served, scope, sent)
                    served.meter.add(tally)
                status = 200
            except Refusal as refusal:
                status, body, headers = refusal.status, self.refuse(refusal), refusal.headers
            await send_json(send, status, body, headers)
        finally:
            requests.add(status, perf_counter() - started)

    def _work(self, served: ServedModel, scope: Scope, sent: bytes) -> tuple[bytes, Tally]:
        body, answered = self.reply(served, scope, sent)
        return body, served.meter.tally(answered.values, answered.said.labels)
