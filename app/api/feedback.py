"""POST /feedback: the true label of a prediction. Acknowledged means stored."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.api.asgi import read_body, send_json
from app.api.errors import FieldError, Invalid, Location, Refusal, field_error
from app.api.prediction_id import ForeignId, PredictionRecord, Signer
from app.api.schema import FLOAT32_MAX, MAX_ROWS, json_message
from app.api.served_models import ServedModels
from app.clients.mlflow import MlflowClient, MlflowError
from app.registry import feedback_store

MAX_PENDING = 20_000  # rows waiting to be stored
REMEMBERED = 20_000  # labels that were counted
RETRY_AFTER = {"Retry-After": "5"}
INLINE_BYTES = 8192

log = logging.getLogger("mlops.feedback")
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


class Committer:
    """Group commit: what comes in while one upload is under way goes with the next one, one file per model.

    Runs on the event loop; the upload itself is in a thread of its own.
    """

    def __init__(self, registry: MlflowClient) -> None:
        self.registry = registry
        self._pending: list[tuple[str, list[feedback_store.Row], asyncio.Future[None]]] = []
        self._rows = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feedback")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Store what is pending, then stop."""
        self._closing = True
        self._wake.set()
        if self._task:
            await self._task
        self._thread.shutdown()

    async def put(self, rows: dict[str, list[feedback_store.Row]]) -> None:
        """Store rows by model; returns once MLflow has all of them.

        Raises:
            Refusal: 503, and any of them may not be stored.
        """
        count = sum(map(len, rows.values()))
        if self._closing or self._rows + count > MAX_PENDING:
            why = "the API is shutting down" if self._closing else "too much feedback waits to be stored"
            raise Refusal(503, f"{why}: nothing of this request was stored, send it again", RETRY_AFTER)
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in rows]
        self._pending += [(model, some, done) for (model, some), done in zip(rows.items(), futures, strict=True)]
        self._rows += count
        self._wake.set()
        said = await asyncio.gather(*futures, return_exceptions=True)
        failed = [error for error in said if error is not None]
        if failed:
            detail = f"the feedback could not be stored, send it again: {failed[0]}"
            raise Refusal(503, detail, RETRY_AFTER) from failed[0]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending or not self._closing:
            if not self._pending:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch, self._pending = self._pending, []
            by_model: dict[str, list[tuple[list[feedback_store.Row], asyncio.Future[None]]]] = {}
            for model, rows, done in batch:
                by_model.setdefault(model, []).append((rows, done))
            for model, parts in by_model.items():
                rows = [row for part, _ in parts for row in part]
                error: Exception | None = None
                try:
                    await loop.run_in_executor(self._thread, feedback_store.store, self.registry, model, rows)
                except Exception as failure:  # the waiters must hear of whatever it is
                    error = failure
                    expected = isinstance(failure, MlflowError)
                    log.error("%d labels for %s were not stored: %s", len(rows), model, error, exc_info=not expected)
                self._rows -= len(rows)
                for _, done in parts:
                    if not done.done():  # done when the client went away
                        done.set_exception(error) if error else done.set_result(None)


class Feedback:
    """The endpoint, as plain ASGI."""

    def __init__(self, models: ServedModels, signer: Signer, committer: Committer) -> None:
        self.models, self.signer, self.committer = models, signer, committer
        self._counted: OrderedDict[bytes, Any] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[str, str] = {}
        try:
            body = await read_body(scope, receive)
            if len(body) < INLINE_BYTES:
                read, many = self.read(body)
            else:
                read, many = await asyncio.to_thread(self.read, body)
            now = time.time()
            rows: dict[str, list[feedback_store.Row]] = {}
            for token, record, label in read:
                rows.setdefault(record.model, []).append(
                    {
                        "id": token,
                        "time": now,
                        "model": record.model,
                        "version": record.version,
                        "features": record.features,
                        "prediction": record.prediction,
                        "label": label,
                    }
                )
            await self.committer.put(rows)
            answers = [self._count(record, label) for _, record, label in read]
            status, sent = 201, to_json(answers if many else answers[0])
        except Refusal as refusal:
            status, sent, headers = refusal.status, refusal.body(), refusal.headers
        await send_json(send, status, sent, headers)

    def read(self, body: bytes) -> tuple[list[tuple[str, PredictionRecord, Any]], bool]:
        """Id, prediction and label of each item, and whether it was an array; nothing is taken unless all are right.

        Raises:
            Invalid: naming the item.
        """
        try:
            content = _ANY.validate_json(body)
        except ValidationError as error:
            message = json_message(error.errors(include_url=False)[0]["ctx"]["error"])
            raise Invalid([field_error(("body",), message, "json_invalid")]) from None
        many = isinstance(content, list)
        items = content if many else [content]
        if not items or len(items) > MAX_ROWS:
            message = f"send 1 to {MAX_ROWS} labels, not {len(items)}"
            raise Invalid([field_error(("body",), message, "length")])
        problems: list[FieldError] = []
        read: list[tuple[str, PredictionRecord, Any]] = []
        for i, item in enumerate(items):
            where: Location = ("body", i) if many else ("body",)
            try:
                read.append(self._read_one(item, where))
            except Invalid as error:
                problems += error.detail
        if problems:
            raise Invalid(problems)
        return read, many

    def _read_one(self, item: Any, where: Location) -> tuple[str, PredictionRecord, Any]:
        if not isinstance(item, dict):
            message = 'send an object {"prediction_id": ..., "label": ...}'
            raise Invalid([field_error(where, message, "dict_type")])
        problems = [
            field_error((*where, field), f"{field} is missing", "missing")
            for field in ("prediction_id", "label")
            if field not in item
        ]
        problems += [
            field_error((*where, field), f"{field} is not known here; send prediction_id and label", "extra_forbidden")
            for field in item
            if field not in ("prediction_id", "label")
        ]
        if problems:
            raise Invalid(problems)
        token = item["prediction_id"]
        try:
            if not isinstance(token, str):
                raise ForeignId("prediction_id should be text: the prediction_id of an answer of /predict")
            record = self.signer.open(token)
        except ForeignId as error:
            message = f"{error}; send the prediction_id of an answer, as it was given"
            raise Invalid([field_error((*where, "prediction_id"), message, "prediction_id")]) from None
        return token, record, self._label(record, item["label"], (*where, "label"))

    def _label(self, record: PredictionRecord, label: Any, where: Location) -> Any:
        if record.task == "regression":
            if isinstance(label, bool) or not isinstance(label, int | float):
                raise Invalid(
                    [field_error(where, f"label should be a number, as {record.model} predicts", "label_type")]
                )
            with contextlib.suppress(OverflowError):
                number = float(label)
                if abs(number) <= FLOAT32_MAX:
                    return number
            raise Invalid([field_error(where, f"label should be a number up to {FLOAT32_MAX}", "out_of_range")])
        classes = self.models.classes(record.model, record.version)
        if not classes:  # nothing of this model is loaded here: what was predicted tells the type at least
            classes = (record.prediction,) if isinstance(record.prediction, bool) else ()
            if type(label) is type(record.prediction) and not classes:
                return label
        for known in classes:
            same_type = type(known) is type(label) or (_is_number(known) and _is_number(label))
            if same_type and known == label:
                return known
        shown = ", ".join(json.dumps(c) for c in classes[:20]) or f"like {json.dumps(record.prediction)}"
        raise Invalid(
            [field_error(where, f"label should be one of the classes of {record.model}: {shown}", "label_class")]
        )

    def _count(self, record: PredictionRecord, label: Any) -> dict[str, Any]:
        """The answer for a stored label; the same label for the same prediction is counted once."""
        if self._counted.get(record.key, self) != label:
            self.models.metrics.meter(record.model, record.version).feedback(record.prediction, label, record.task)
        self._counted[record.key] = label
        self._counted.move_to_end(record.key)
        if len(self._counted) > REMEMBERED:
            self._counted.popitem(last=False)
        answer = {
            "stored": True,
            "model": record.model,
            "version": record.version,
            "prediction": record.prediction,
            "label": label,
        }
        if record.task == "classification":
            return {**answer, "correct": record.prediction == label}
        return {**answer, "absolute_error": abs(record.prediction - label)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def routes(endpoint: Feedback) -> list[Route]:
    return [Route("/feedback", endpoint, methods=["POST"]), Route("/feedback/", endpoint, methods=["POST"])]


def describe() -> dict[str, Any]:
    """OpenAPI of /feedback."""
    label = {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]}
    item = {
        "type": "object",
        "properties": {"prediction_id": {"type": "string"}, "label": label},
        "required": ["prediction_id", "label"],
        "additionalProperties": False,
    }
    answer = {
        "type": "object",
        "properties": {
            "stored": {"const": True},
            "model": {"type": "string"},
            "version": {"type": "string"},
            "prediction": label,
            "label": label,
            "correct": {"type": "boolean"},
            "absolute_error": {"type": "number"},
        },
        "required": ["stored", "model", "version", "prediction", "label"],
    }
    several = [item, {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_ROWS}]
    return {
        "post": {
            "tags": ["feedback"],
            "summary": "The true label of a prediction, or of many",
            "description": "201 means that MLflow has stored all of them.",
            "operationId": "post_feedback",
            "requestBody": {"required": True, "content": {"application/json": {"schema": {"anyOf": several}}}},
            "responses": {
                "201": {
                    "description": "Stored.",
                    "content": {
                        "application/json": {"schema": {"anyOf": [answer, {"type": "array", "items": answer}]}}
                    },
                },
                "413": {"$ref": "#/components/responses/Refused"},
                "422": {"$ref": "#/components/responses/Invalid"},
                "503": {"$ref": "#/components/responses/Refused"},
            },
        }
    }
