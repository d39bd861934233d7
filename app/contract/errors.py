"""What a refused request is answered."""

from __future__ import annotations

from pydantic import BaseModel


class FieldError(BaseModel):
    """What is wrong with one place of a request, in FastAPI's own shape.

    loc: the path to the place, such as ["body", 3, "petal_length"].
    msg: what to send instead, for people.
    type: the kind of error, for programs.
    """

    loc: list[str | int]
    msg: str
    type: str


class InvalidRequest(BaseModel):
    """The body of a 422: up to 20 errors, and one that counts the rest."""

    detail: list[FieldError]


class Refused(BaseModel):
    """The body of every other refusal; `detail` says why, and what to do."""

    detail: str


class InferInvalid(InvalidRequest):
    """The body of a 422 below /v2: the protocol's `error` besides."""

    error: str


class InferRefused(Refused):
    """The body of every other refusal below /v2: the protocol's `error` besides."""

    error: str
