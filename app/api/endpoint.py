"""What all prediction endpoints have in common: find the model, read the body, predict, answer."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from starlette.types import Receive, Scope

from app.api.asgi import header, read_body
from app.api.canary import Canary
from app.api.errors import Invalid, Location, Refusal, invalid
from app.api.feedback_token import FeedbackTokens
from app.api.keys import Keys
from app.api.prediction_id import PredictionIds
from app.api.router import Answer
from app.api.row_decoder import Rows
from app.api.served_model import NoPrediction, ServedModel
from app.api.served_models import ServedModels
from app.api.workers import Workers
from app.registry.predictor import Predictions

# A body of this many bytes (some 400 rows) or more is worked on in a thread, so that the event loop turns meanwhile.
INLINE_BYTES = 32 * 1024
INLINE_TOKENS = 50  # rows; making a token takes 20 microseconds
TOKEN_HEADER = b"feedback-token"

log = logging.getLogger("mlops.predict")
Request = TypeVar("Request")


class Asked(NamedTuple, Generic[Request]):
    """What a body asks for. request: what an endpoint has read of it besides the rows."""

    rows: Rows
    request: Request


class Reply(NamedTuple):
    """The body of an answer, and headers where it is no JSON."""

    body: bytes
    headers: dict[str, str] | None = None


class PredictedRows(NamedTuple):
    """The predictions of one request, an id for each row, and a feedback token where these were asked for."""

    predictions: Predictions
    ids: list[str]
    tokens: list[str] | None


@dataclass(frozen=True)
class Serving:
    """What prediction endpoints share."""

    models: ServedModels
    ids: PredictionIds
    tokens: FeedbackTokens
    workers: Workers
    keys: Keys


class PredictionEndpoint(Generic[Request]):
    """Answers predictions. Subclasses turn a body into rows, and predictions into a body.

    asks_canary: whether a canary answers its share of the requests.
    """

    asks_canary = True

    def __init__(self, serving: Serving) -> None:
        self.models, self.ids, self.tokens = serving.models, serving.ids, serving.tokens
        self.workers, self.keys = serving.workers, serving.keys
        self.needs_key = "predict" in serving.keys.required

    def served_model(self, scope: Scope) -> ServedModel:
        """The model that the path names, or the default one.

        Raises:
            Refusal: it is not served.
        """
        return self.models.get(scope["path_params"].get("name"))

    async def receive_body(self, scope: Scope, receive: Receive) -> bytes:
        """The request's body; b"" where its method has none. Raises Refusal as `read_body`."""
        return await read_body(scope, receive) if scope["method"] == "POST" else b""

    def read(self, served: ServedModel, scope: Scope, body: bytes) -> Asked[Request]:
        """What a request asks for; in a thread where its body is large.

        Raises:
            Refusal: what is wrong with it.
        """
        raise NotImplementedError

    def write(self, served: ServedModel, request: Request, predicted: PredictedRows) -> Reply:
        """The answer; in a thread where the request's is large.

        Raises:
            Refusal: what is wrong with the request.
        """
        raise NotImplementedError

    def refusal_body(self, refusal: Refusal) -> bytes:
        """What a refused request is answered, as JSON."""
        return refusal.body()

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """The answer to one request."""
        name = version = ""
        try:
            if self.needs_key:
                self.keys.admit(scope, "predict")
            served = self.served_model(scope)
            name, version = served.name, served.version
            content = await self.receive_body(scope, receive)
            if served.canary is not None:
                return await self._answer_with_canary(served, served.canary, scope, content)
            body, headers = await self._reply(served, scope, content)
            return Answer(200, body, headers, name, version)
        except Refusal as refused:
            refusal = in_plain_words(refused, scope)
            return Answer(refusal.status, self.refusal_body(refusal), refusal.headers, name, version)
        except Exception as error:  # out of memory, a model that is broken: no fault of the request
            log.exception("a prediction at %s failed", scope["path"])
            failure = Refusal(500, f"the prediction failed ({type(error).__name__}): see the API's log")
            return Answer(500, self.refusal_body(failure), None, name, version)

    async def _answer_with_canary(self, served: ServedModel, canary: Canary, scope: Scope, content: bytes) -> Answer:
        """The canary's answer where the request falls to it, names no version and gets one; otherwise production's."""
        failure: Exception | None = None
        if self.asks_canary and scope["path_params"].get("version") is None and (other := canary.next()):
            try:
                body, headers = await self._reply(other, scope, content)
                return Answer(200, body, headers, other.name, other.version)
            except Exception as error:
                if isinstance(error, Refusal) and error.status == 503:  # too much waits, whoever would answer
                    raise
                failure = error
        body, headers = await self._reply(served, scope, content)
        if failure:  # it was no fault of the request, as production answers it
            canary.fail(failure)
        return Answer(200, body, headers, served.name, served.version)

    async def _reply(self, served: ServedModel, scope: Scope, content: bytes) -> Reply:
        size = len(content)
        with_tokens = wants_tokens(scope)
        if size >= INLINE_BYTES:
            return await self.workers.run(size, self._work, served, scope, content, with_tokens)
        asked = self.read(served, scope, content)
        rows = asked.rows
        if isinstance(rows, np.ndarray) or len(rows) > (INLINE_TOKENS if with_tokens else served.inline_rows):
            return await self.workers.run(size, self._predict, served, asked, size, with_tokens)
        try:
            predictions = await served.batcher.predict(rows, size, self.workers)
        except NoPrediction as error:
            raise no_answer(error) from error
        return self._write(served, asked, predictions, with_tokens)

    def _work(self, served: ServedModel, scope: Scope, content: bytes, with_tokens: bool) -> Reply:
        return self._predict(served, self.read(served, scope, content), len(content), with_tokens)

    def _predict(self, served: ServedModel, asked: Asked[Request], size: int, with_tokens: bool) -> Reply:
        try:
            predictions = served.predict_and_count(asked.rows, size)
        except NoPrediction as error:
            raise no_answer(error) from error
        return self._write(served, asked, predictions, with_tokens)

    def _write(self, served: ServedModel, asked: Asked[Request], predictions: Predictions, with_tokens: bool) -> Reply:
        rows = asked.rows
        ids = self.ids.make(served.digest, served.version, len(rows))
        tokens = None
        if with_tokens:
            names, task = served.schema.features, served.bundle.task
            plain = rows.tolist() if isinstance(rows, np.ndarray) else rows
            tokens = [
                self.tokens.make(name, served.name, served.version, task, dict(zip(names, row, strict=True)), label)
                for name, row, label in zip(ids, plain, predictions.labels, strict=True)
            ]
        return self.write(served, asked.request, PredictedRows(predictions, ids, tokens))


def in_plain_words(refused: Refusal, scope: Scope) -> Refusal:
    """The refusal, or that of a compressed body, if that is why it could not be read; others are spared the look."""
    coding = header(scope, b"content-encoding").lower() if refused.status in (400, 422) else b""
    if coding in (b"", b"identity"):
        return refused
    shown = coding.decode("latin-1")[:20]
    return Refusal(400, f"the header Content-Encoding is {shown!r}: send the body uncompressed, and leave it out")


def wants_tokens(scope: Scope) -> bool:
    """Whether the request asks for feedback tokens.

    Raises:
        Refusal: 400 its header Feedback-Token is neither true nor false.
    """
    value = header(scope, TOKEN_HEADER)
    if value in (b"", b"false"):
        return False
    if value != b"true":
        raise Refusal(400, f"the header Feedback-Token is {value.decode('latin-1')[:20]!r}: send true, or leave it out")
    return True


def no_answer(error: NoPrediction, location: Location = ("body",)) -> Invalid:
    """The refusal of values that the model has no prediction for."""
    return invalid(location, f"the model cannot answer these values: {error}", "no_answer")
