"""Open Inference Protocol, version 2: what tells of the server and of its models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class RepositoryQuery(BaseModel):
    """The request of /v2/repository/index. ready: whether to leave out what is not in service."""

    model_config = ConfigDict(strict=True)

    ready: bool = False


class RepositoryEntry(BaseModel):
    """A version in the answer of /v2/repository/index. reason: why it is unavailable, else empty."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class ServerMetadata(BaseModel):
    """The answer of /v2."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """The answer of /v2/health/live."""

    live: bool


class ServerReady(BaseModel):
    """The answer of /v2/health/ready."""

    ready: bool


class TensorMetadata(BaseModel):
    """An input or output of a model; -1 in its shape is the number of rows."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a model takes and answers in the Open Inference Protocol. parameters: features (names) and run_id."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any]


class ModelReady(BaseModel):
    """The answer of /v2/models/NAME/ready."""

    name: str
    ready: bool
