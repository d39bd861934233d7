"""Predictions: what /predict and /invocations take and answer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from app.contract import without_default
from app.vocabulary import Label


class Prediction(BaseModel):
    """The answer for one row, with the version that gave it.

    probabilities: by class, where the model has them; a class that is no text is written as in JSON.
    prediction_id: names the answer; it is made of the model, the version, the replica and the time.
    feedback_token: what /feedback takes, where the request's header Feedback-Token is true.
    """

    prediction: Label
    probabilities: dict[str, float] | SkipJsonSchema[None] = Field(None, json_schema_extra=without_default)
    model: str
    version: str
    run_id: str
    prediction_id: str
    feedback_token: str | SkipJsonSchema[None] = Field(None, json_schema_extra=without_default)


class DataframeSplit(BaseModel):
    """A data frame as pandas writes it with orient="split"; data: one array of values per row."""

    columns: list[str]
    data: list[list[Any]]


class Scores(BaseModel):
    """The answer of /invocations: MLflow's `predictions`, and which version they are of."""

    predictions: list[Label]
    model: str
    version: str
    run_id: str
    prediction_ids: list[str]
    feedback_tokens: list[str] | SkipJsonSchema[None] = Field(None, json_schema_extra=without_default)
