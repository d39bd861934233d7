"""POST /feedback: the true label of a prediction. Acknowledged means stored."""

from __future__ import annotations

import contextlib
import json
import time
from collections import OrderedDict
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.api.asgi import read_body, send_json
from app.api.errors import Invalid, Location, Refusal, field_error, invalid
from app.api.feedback_committer import Committer
from app.api.keys import Keys, KnownClient
from app.api.prediction_id import InvalidPredictionId, PredictionRecord, Signer
from app.api.row_schema import FLOAT32_MAX, read_json
from app.api.served_models import ServedModels
from app.api.workers import Workers
from app.contract import MAX_ROWS, FeedbackItem, FieldError
from app.registry import feedback_store
from app.vocabulary import Label

REMEMBERED = 20_000  # labels that were counted
INLINE_BYTES = 8192
_SEND_AN_ID = "send the prediction_id of an answer, as it was given"


class LabelledPrediction(NamedTuple):
    """One item of a request: the id, what it holds, and the true label."""

    prediction_id: str
    record: PredictionRecord
    label: Label

    def row(self, at: float, client: str) -> feedback_store.Row:
        """As it is stored. at: seconds since the epoch; client: whose key was sent, "" where none was asked for."""
        return {
            "id": self.prediction_id,
            "time": at,
            "model": self.record.model,
            "version": self.record.version,
            "features": self.record.features,
            "prediction": self.record.prediction,
            "label": self.label,
            "client": client,
        }


class Feedback:
    """The endpoint, as plain ASGI. Answers `contract.StoredFeedback` for an item, and a list of them for a list."""

    def __init__(
        self, models: ServedModels, signer: Signer, committer: Committer, workers: Workers, keys: Keys
    ) -> None:
        self.models, self.signer, self.committer, self.workers, self.keys = models, signer, committer, workers, keys
        self._counted: OrderedDict[bytes, Label] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; 201 once MLflow has stored all of its labels."""
        headers: dict[str, str] = {}
        try:
            client = self.keys.admit(scope, "feedback")
            body = await read_body(scope, receive)
            if len(body) < INLINE_BYTES:
                items, many = self.read(body)
            else:
                items, many = await self.workers.run(len(body), self.read, body)
            await self._store(items, len(body), client)
            answers = [self._count(item.record, item.label) for item in items]
            status, content = 201, to_json(answers if many else answers[0])
        except Refusal as refusal:
            status, content, headers = refusal.status, refusal.body(), refusal.headers
        await send_json(send, status, content, headers)

    async def _store(self, items: list[LabelledPrediction], size: int, client: KnownClient | None) -> None:
        """Store what was read, if the client may send so much; Refusal otherwise."""
        self.keys.take_labels(client, len(items))
        now, name = time.time(), client.name if client else ""
        rows: dict[str, list[feedback_store.Row]] = {}
        for item in items:
            rows.setdefault(item.record.model, []).append(item.row(now, name))
        try:
            await self.committer.put(rows, size)
        except Refusal:
            self.keys.give_back_labels(client, len(items))
            raise

    def read(self, body: bytes) -> tuple[list[LabelledPrediction], bool]:
        """The items of a body, and whether it was an array; nothing is taken unless all are right.

        Raises:
            Invalid: naming the item.
        """
        content = read_json(body)
        many = isinstance(content, list)
        values = content if many else [content]
        if not values or len(values) > MAX_ROWS:
            raise invalid(("body",), f"send 1 to {MAX_ROWS} labels, not {len(values)}", "length")
        errors: list[FieldError] = []
        items: list[LabelledPrediction] = []
        for i, value in enumerate(values):
            try:
                items.append(self._read_item(value, ("body", i) if many else ("body",)))
            except Invalid as error:
                errors += error.errors
        if errors:
            raise Invalid(errors)
        return items, many

    def _read_item(self, value: Any, location: Location) -> LabelledPrediction:
        try:
            item = FeedbackItem.model_validate(value)
        except ValidationError as error:
            raise Invalid([_item_error(item, location) for item in error.errors(include_url=False)]) from None
        try:
            record = self.signer.open(item.prediction_id)
        except InvalidPredictionId as error:
            raise invalid((*location, "prediction_id"), f"{error}; {_SEND_AN_ID}", "prediction_id") from None
        return LabelledPrediction(item.prediction_id, record, self._label(record, item.label, (*location, "label")))

    def _label(self, record: PredictionRecord, label: Any, location: Location) -> Label:
        """The label in the type of the model's own.

        Raises:
            Invalid: it is no class of the model, or no number where the model predicts one.
        """
        if record.task == "regression":
            if isinstance(label, bool) or not isinstance(label, int | float):
                raise invalid(location, f"label should be a number, as {record.model} predicts", "label_type")
            with contextlib.suppress(OverflowError):
                number = float(label)
                if abs(number) <= FLOAT32_MAX:
                    return number
            raise invalid(location, f"label should be a number up to {FLOAT32_MAX}", "out_of_range")
        classes = self.models.classes(record.model, record.version)
        if not classes:  # nothing of this model is loaded here: what was predicted tells the type at least
            classes = (record.prediction,) if isinstance(record.prediction, bool) else ()
            if type(label) is type(record.prediction) and not classes:
                return label
        for class_label in classes:
            same_type = type(class_label) is type(label) or (_is_number(class_label) and _is_number(label))
            if same_type and class_label == label:
                return class_label
        shown = ", ".join(map(json.dumps, classes[:20])) or f"like {json.dumps(record.prediction)}"
        raise invalid(location, f"label should be one of the classes of {record.model}: {shown}", "label_class")

    def _count(self, record: PredictionRecord, label: Label) -> dict[str, Any]:
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
    """The routes of /feedback."""
    return [Route("/feedback", endpoint, methods=["POST"]), Route("/feedback/", endpoint, methods=["POST"])]


def _item_error(error: Any, location: Location) -> FieldError:
    """An error of pydantic about a FeedbackItem, in words that say what to send."""
    kind, field = error["type"], error["loc"][-1] if error["loc"] else ""
    if kind == "missing":
        message = f"{field} is missing"
    elif kind == "extra_forbidden":
        message = f"{field} is not known here; send prediction_id and label"
    elif kind == "string_type":
        message = f"prediction_id should be text: the prediction_id of an answer of /predict; {_SEND_AN_ID}"
        kind = "prediction_id"
    else:
        message, kind = 'send an object {"prediction_id": ..., "label": ...}', "dict_type"
    return field_error((*location, *error["loc"]), message, kind)
