"""Open Inference Protocol, version 2: what predictions take and answer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.contract import MAX_ID, MAX_ROWS


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class InputTensor(_Strict):
    """One input; `data` is flat or nested, row by row."""

    name: str
    shape: list[int] = Field(min_length=1, max_length=3)
    datatype: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any]


class RequestedOutput(_Strict):
    """An output that the client asks for; without any it gets all."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(_Strict):
    """A request of the Open Inference Protocol. Without an id, the answer has one that the API makes."""

    id: str | None = Field(None, max_length=MAX_ID)
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[InputTensor] = Field(min_length=1, max_length=MAX_ROWS)
    outputs: list[RequestedOutput] = Field(default_factory=list)


class OutputTensor(BaseModel):
    """One output; `data` is flat, row by row."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class InferAnswer(BaseModel):
    """An answer of the Open Inference Protocol."""

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    outputs: list[OutputTensor]
