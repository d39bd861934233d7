"""The contract of the model API: what it takes and what it answers.

The API's OpenAPI document is made of these shapes, and the pages and the command line read its answers with them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.vocabulary import ColumnReference, Dtype, Gate, Label, Serving, Task

MAX_ROWS = 10_000  # of one request
_REFERENCE: TypeAdapter[ColumnReference] = TypeAdapter(ColumnReference)


# -- refusals --------------------------------------------------------------------------------------------------------


class FieldError(BaseModel):
    """What is wrong with one place of a request: FastAPI's own shape."""

    loc: list[str | int]
    msg: str
    type: str


class InvalidRequest(BaseModel):
    """The body of a 422."""

    detail: list[FieldError]


class Refused(BaseModel):
    """The body of every other refusal; `detail` says why, and what to do."""

    detail: Any


# -- predictions -----------------------------------------------------------------------------------------------------


class Prediction(BaseModel):
    """The answer for one row, with the version that gave it.

    probabilities: by class, where the model has them.
    prediction_id: what /feedback takes.
    """

    prediction: Label
    probabilities: dict[str, float] | None = None
    model: str
    version: str
    run_id: str
    prediction_id: str


class Scores(BaseModel):
    """The answer of /invocations: MLflow's `predictions`, and which version they are of."""

    predictions: list[Label]
    model: str
    version: str
    run_id: str
    prediction_ids: list[str]


# -- feedback --------------------------------------------------------------------------------------------------------


class FeedbackItem(BaseModel):
    """The true label of a prediction."""

    model_config = ConfigDict(extra="forbid")

    prediction_id: str
    label: Label


class StoredFeedback(BaseModel):
    """A label that is stored.

    correct: of a classification; absolute_error: of a regression.
    """

    stored: Literal[True]
    model: str
    version: str
    prediction: Label
    label: Label
    correct: bool | None = None
    absolute_error: float | None = None


# -- models in service -----------------------------------------------------------------------------------------------


class MlflowStatus(BaseModel):
    """MLflow, as the API found it at its last look. checked_at: ISO 8601, "" before the first look."""

    ok: bool
    error: str
    checked_at: str


class LoadFailure(BaseModel):
    """The version in production that could not be loaded. at: ISO 8601."""

    version: str
    reason: str
    at: str


class FeatureInfo(BaseModel):
    """One input with its training values: numbers have min, max, median and edges, everything else has categories."""

    name: str
    dtype: Dtype
    min: float | None = None
    max: float | None = None
    median: float | None = None
    edges: list[float] | None = None
    categories: list[str] | None = None
    shares: list[float]

    def reference(self) -> ColumnReference:
        """The training values, as the bundle has them.

        Raises:
            pydantic.ValidationError: neither all of a numeric nor all of a categorical reference is there.
        """
        return _REFERENCE.validate_python(self.model_dump(exclude={"name"}, exclude_none=True))


class ModelInfo(BaseModel):
    """A version in service, and all that a form or a dashboard needs of it."""

    name: str
    version: str
    run_id: str
    task: Task
    target: str
    classes: list[Label]
    serving: Serving
    serving_reason: str
    bundle_sha256: str
    features: list[FeatureInfo]
    prediction_reference: dict[str, Any]
    example: dict[str, Any]
    gate: Gate
    loaded_at: str
    last_failure: LoadFailure | None
    registry: MlflowStatus


class ModelSummary(BaseModel):
    """A version in service, in the list of all."""

    name: str
    version: str
    run_id: str
    task: Task


class ModelList(BaseModel):
    """Every model in service. default: the one that /predict answers with, where there is one."""

    default: str | None
    models: list[ModelSummary]
    registry: MlflowStatus


# -- Open Inference Protocol, version 2 ------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class InputTensor(_Strict):
    """`data` is flat or nested, row by row."""

    name: str
    shape: list[int] = Field(min_length=1, max_length=3)
    datatype: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any]


class RequestedOutput(_Strict):
    """An output that the client wants; without any it gets all."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(_Strict):
    """A request of the Open Inference Protocol."""

    id: str | None = Field(None, max_length=1000)
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[InputTensor] = Field(min_length=1)
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
