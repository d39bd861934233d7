"""True labels of predictions: what /feedback takes and answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SkipValidation
from pydantic.json_schema import SkipJsonSchema

from app.contract import without_default
from app.vocabulary import Label


class TokenFeedback(BaseModel):
    """The true label of a prediction whose answer came with a feedback token (header `Feedback-Token: true`).

    label: any value is read; the API compares it with the classes of the model, which only the token tells.
    """

    model_config = ConfigDict(extra="forbid")

    feedback_token: str
    label: SkipValidation[Label]


class RowFeedback(BaseModel):
    """The true label of a row, for whoever has kept the row and the answer's version, but no token.

    features: the row, as it was sent for the prediction.
    prediction_id: of the answer; with it a label that is sent again replaces the one before.
    """

    # Python's own regular expressions, as pydantic's take 0.3 MB; in those, $ is before a last newline, too
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), regex_engine="python-re")

    model: str
    version: str = Field(pattern=r"^[0-9]{1,10}(?!\n)$")
    features: dict[str, Any]
    label: SkipValidation[Label]
    prediction_id: str = Field("", max_length=40, json_schema_extra=without_default)


class StoredFeedback(BaseModel):
    """A label that is stored.

    prediction: what the label was compared with; it is left out where the version of a `RowFeedback` is not the one in
        service, as are the next two.
    correct: whether the predicted class was the true one.
    absolute_error: how far a regression's prediction was from the true value, in the target's unit.
    """

    stored: Literal[True]
    model: str
    version: str
    prediction: Label | SkipJsonSchema[None] = Field(None, json_schema_extra=without_default)
    label: Label
    correct: bool | SkipJsonSchema[None] = Field(None, json_schema_extra=without_default)
    absolute_error: float | SkipJsonSchema[None] = Field(None, json_schema_extra=without_default)
