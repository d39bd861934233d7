"""POST /feedback: the true label of a prediction. Acknowledged means stored."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections import OrderedDict
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.types import Receive, Scope

from app.api.asgi import read_body
from app.api.endpoint import Serving, in_plain_words, no_answer
from app.api.errors import Invalid, Location, Refusal, field_error, invalid
from app.api.feedback_committer import Committer
from app.api.feedback_token import InvalidFeedbackToken, PredictionRecord
from app.api.keys import KnownClient
from app.api.router import Answer, Route
from app.api.row_decoder import FLOAT32_MAX
from app.api.row_schema import read_json
from app.api.served_model import NoPrediction
from app.contract import MAX_ROWS
from app.contract.errors import FieldError
from app.contract.feedback import RowFeedback, TokenFeedback
from app.registry import feedback_store
from app.vocabulary import Label

log = logging.getLogger("mlops.feedback")

REMEMBERED = 20_000  # labels that were counted
_SEND = (
    "send the feedback_token of an answer (ask for it with the header Feedback-Token: true), "
    "or model, version and features"
)


class LabelledPrediction(NamedTuple):
    """One item of a request, with the true label.

    row_id: what its row is stored under; one that is sent again replaces the one before.
    predicted_by: the version that gave record.prediction, where it is not the item's own.
    """

    row_id: str
    record: PredictionRecord
    label: Label
    predicted_by: str = ""

    def row(self, at: float, client: str) -> feedback_store.Row:
        """As it is stored. at: seconds since the epoch; client: whose key was sent, "" where none was asked for."""
        row = {
            "id": self.row_id,
            "time": at,
            "model": self.record.model,
            "version": self.record.version,
            "features": self.record.features,
            "prediction": self.record.prediction,
            "label": self.label,
            "client": client,
        }
        return {**row, "predicted_by": self.predicted_by} if self.predicted_by else row


class Feedback:
    """The endpoint. Answers `contract.StoredFeedback` for an item, and a list of them for a list."""

    def __init__(self, serving: Serving, committer: Committer) -> None:
        self.models, self.tokens, self.workers = serving.models, serving.tokens, serving.workers
        self.keys, self.committer = serving.keys, committer
        self._counted: OrderedDict[str, Label] = OrderedDict()

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """The answer to one request; 201 once MLflow has stored all of its labels."""
        try:
            client = self.keys.admit(scope, "feedback")
            body = await read_body(scope, receive)
            items, many = await self.workers.run(len(body), self.read, body, client.name if client else "")
            await self._store(items, len(body), client)
            self._count(items, len(body))
            answers = [_answer(item) for item in items]
            return Answer(201, to_json(answers if many else answers[0]))
        except Refusal as refused:
            refusal = in_plain_words(refused, scope)
            return Answer(refusal.status, self.refusal_body(refusal), refusal.headers)
        except Exception as error:  # a row was predicted by a model that is broken, or out of memory
            log.exception("feedback failed")
            return Answer(500, Refusal(500, f"nothing was stored ({type(error).__name__}): see the API's log").body())

    def refusal_body(self, refusal: Refusal) -> bytes:
        """What a refused request is answered, as JSON."""
        return refusal.body()

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

    def read(self, body: bytes, client: str = "") -> tuple[list[LabelledPrediction], bool]:
        """The items of a body, and whether it was an array; nothing is taken unless all are right.

        Args:
            client: whose key was sent.

        Raises:
            Invalid: naming the item.
            Refusal: the model of a row is not in service.
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
                items.append(self._read_item(value, ("body", i) if many else ("body",), client))
            except Invalid as error:
                errors += error.errors
        if errors:
            raise Invalid(errors)
        return items, many

    def _read_item(self, value: Any, location: Location, client: str) -> LabelledPrediction:
        with_token = not isinstance(value, dict) or not value.keys() & {"model", "version", "features"}
        try:
            if with_token:
                return self._read_token(TokenFeedback.model_validate(value), location)
            return self._read_row(RowFeedback.model_validate(value), location, client)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            raise Invalid([_item_error(item, location, with_token) for item in errors]) from None

    def _read_token(self, item: TokenFeedback, location: Location) -> LabelledPrediction:
        try:
            record = self.tokens.open(item.feedback_token)
        except InvalidFeedbackToken as error:
            raise invalid((*location, "feedback_token"), f"{error}; {_SEND}", "feedback_token") from None
        label = self._label(record, item.label, (*location, "label"))
        return LabelledPrediction(record.prediction_id, record, label)

    def _read_row(self, item: RowFeedback, location: Location, client: str) -> LabelledPrediction:
        """A row without a token: what it is compared with is what its version says of it, or else production."""
        served = self.models.version(item.model, item.version) or self.models.get(item.model)
        row = served.schema.from_object(item.features, (*location, "features"))
        try:
            (prediction,) = served.predict([row]).labels
        except NoPrediction as error:
            raise no_answer(error, (*location, "features")) from error
        features = dict(zip(served.schema.features, row, strict=True))
        record = PredictionRecord(
            item.prediction_id, item.model, item.version, served.bundle.task, time.time(), features, prediction
        )
        label = self._label(record, item.label, (*location, "label"))
        # below the client's own name, so that nobody replaces what another has sent
        row_id = f"{client}:{item.prediction_id or secrets.token_hex(8)}"
        return LabelledPrediction(row_id, record, label, "" if item.version == served.version else served.version)

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

    def _count(self, items: list[LabelledPrediction], size: int) -> None:
        """Count stored labels, of the challengers too; the same label for the same prediction is counted once."""
        counted: dict[str, list[LabelledPrediction]] = {}
        for item in items:
            # what another version predicted says nothing of how right the item's was
            if not item.predicted_by and self._is_new(item):
                record = item.record
                meter = self.models.metrics.meter(record.model, record.version)
                meter.feedback(record.prediction, item.label, record.task)
                counted.setdefault(record.model, []).append(item)
        for model, of_model in counted.items():
            self._grade_challenger(model, of_model, size * len(of_model) // len(items))

    def _is_new(self, item: LabelledPrediction) -> bool:
        is_new = self._counted.get(item.row_id, self) != item.label
        self._counted[item.row_id] = item.label
        self._counted.move_to_end(item.row_id)
        if len(self._counted) > REMEMBERED:
            self._counted.popitem(last=False)
        return is_new

    def _grade_challenger(self, model: str, items: list[LabelledPrediction], size: int) -> None:
        """Give the challenger the rows that the version in service predicted, with their true labels."""
        served = self.models.current.get(model)
        if served is None or served.shadow is None:
            return
        names = served.schema.features
        # a model that was deleted and made anew may have another version of the same number
        own = [i for i in items if i.record.version == served.version and i.record.features.keys() == {*names}]
        if own:
            rows = [tuple(item.record.features[name] for name in names) for item in own]
            served.shadow.offer_truths(rows, [i.record.prediction for i in own], [i.label for i in own], size)


def _answer(item: LabelledPrediction) -> dict[str, Any]:
    """The answer for a stored label."""
    record, label = item.record, item.label
    answer = {"stored": True, "model": record.model, "version": record.version}
    if item.predicted_by:
        return {**answer, "label": label}
    answer |= {"prediction": record.prediction, "label": label}
    if record.task == "classification":
        return {**answer, "correct": record.prediction == label}
    return {**answer, "absolute_error": abs(record.prediction - label)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def routes(endpoint: Feedback) -> list[Route]:
    """The routes of /feedback."""
    return [Route("/feedback", endpoint), Route("/feedback/", endpoint)]


def _item_error(error: Any, location: Location, with_token: bool) -> FieldError:
    """An error of pydantic about an item, in words that say what to send."""
    kind, field = error["type"], error["loc"][-1] if error["loc"] else ""
    if kind == "missing":
        message = f"{field} is missing" + (f"; {_SEND}" if field == "feedback_token" else "")
    elif kind == "extra_forbidden" and with_token:
        alone = "a prediction_id alone does not tell the row"
        message = f"{alone if field == 'prediction_id' else f'{field} is not known here'}; {_SEND}, and label"
    elif kind == "extra_forbidden":
        message = f"{field} is not known here; send model, version, features and label, or feedback_token and label"
    elif kind == "string_type" and field == "feedback_token":
        message, kind = f"feedback_token should be text; {_SEND}", "feedback_token"
    elif kind == "string_type":
        message = f"{field} should be text, as the answer has it"
    elif kind == "string_pattern_mismatch":
        message = f'{field} should be the number of a version as text, such as "3"'
    elif kind == "string_too_long":
        message = f"{field} should be that of an answer: at most 40 characters"
    elif kind == "dict_type" and field == "features":
        message = "features should be an object: the row, as it was sent for the prediction"
    else:
        message, kind = f"send an object with label; {_SEND}", "dict_type"
    return field_error((*location, *error["loc"]), message, kind)
