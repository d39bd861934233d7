"""What /explain answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from app.vocabulary import Label


class Contribution(BaseModel):
    """What one feature, with the row's value of it, contributed to what is explained."""

    feature: str
    value: Any
    contribution: float


class Explained(BaseModel):
    """Why a row is predicted as it is: `base` and all contributions add up to `value`.

    value: the regression's value, or the probability of the predicted class; of a classifier without probabilities 1.
    base: the mean of that over rows of the training data.
    method: exact, or sampled where there are many features; the same row is always answered the same.
    """

    prediction: Label
    base: float
    value: float
    contributions: list[Contribution]
    method: Literal["exact", "sampled"]
    model: str
    version: str
    run_id: str
