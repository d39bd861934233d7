"""The contract of the model API: what it takes and what it answers.

The API's OpenAPI document is made of these shapes, and the pages and the command line read its answers with them. What
depends on a model (its features, its classes) is added to the document for each model in service.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, TypeAdapter
from pydantic.json_schema import SkipJsonSchema

from app.vocabulary import ColumnReference, Dtype, Gate, Label, Serving, Task

MAX_ROWS = 10_000  # of one request
MAX_ID = 1000  # characters of a request's id
_REFERENCE: TypeAdapter[ColumnReference] = TypeAdapter(ColumnReference)


def _without_default(schema: dict[str, Any]) -> None:
    """In JSON the field is left out, never null."""
    schema.pop("default", None)


# -- refusals --------------------------------------------------------------------------------------------------------


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


# -- health ----------------------------------------------------------------------------------------------------------


class Alive(BaseModel):
    """The answer of /livez."""

    status: Literal["alive"]


class Ready(BaseModel):
    """The answer of /readyz. models: the version in service, by the model's name."""

    status: Literal["ready"]
    models: dict[str, str]


# -- predictions -----------------------------------------------------------------------------------------------------


class Prediction(BaseModel):
    """The answer for one row, with the version that gave it.

    probabilities: by class, where the model has them; a class that is no text is written as in JSON.
    prediction_id: names the answer; it is made of the model, the version, the replica and the time.
    feedback_token: what /feedback takes, where the request's header Feedback-Token is true.
    """

    prediction: Label
    probabilities: dict[str, float] | SkipJsonSchema[None] = Field(None, json_schema_extra=_without_default)
    model: str
    version: str
    run_id: str
    prediction_id: str
    feedback_token: str | SkipJsonSchema[None] = Field(None, json_schema_extra=_without_default)


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
    feedback_tokens: list[str] | SkipJsonSchema[None] = Field(None, json_schema_extra=_without_default)


# -- feedback --------------------------------------------------------------------------------------------------------


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

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    version: str = Field(pattern=r"^[0-9]{1,10}$")
    features: dict[str, Any]
    label: SkipValidation[Label]
    prediction_id: str = Field("", max_length=40, json_schema_extra=_without_default)


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
    prediction: Label | SkipJsonSchema[None] = Field(None, json_schema_extra=_without_default)
    label: Label
    correct: bool | SkipJsonSchema[None] = Field(None, json_schema_extra=_without_default)
    absolute_error: float | SkipJsonSchema[None] = Field(None, json_schema_extra=_without_default)


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
    """One input with its training values: numbers have min, max, median and edges, everything else has categories.
    Numbers of a datetime are days since 1970-01-01 UTC.

    missing: share of the training rows without a value; left out for a feature that must have one.
    only: the only values that it may have, where others are refused.
    """

    name: str
    dtype: Dtype
    min: float | None = None
    max: float | None = None
    median: float | None = None
    edges: list[float] | None = None
    categories: list[str] | None = None
    shares: list[float]
    missing: float | None = None
    only: list[str] | None = None

    def reference(self) -> ColumnReference:
        """The training values, as the bundle has them.

        Raises:
            pydantic.ValidationError: neither all of a numeric nor all of a categorical reference is there.
        """
        return _REFERENCE.validate_python(self.model_dump(exclude={"name", "only"}, exclude_none=True))


class RightOnFeedback(BaseModel):
    """Rows whose true label came, by who had predicted it: both versions, one of them alone, or neither."""

    both: int
    challenger: int
    production: int
    neither: int


class ErrorOnFeedback(BaseModel):
    """Mean absolute errors of both versions on the same rows whose true value came. labels: how many rows."""

    labels: int
    challenger: float
    production: float


class ChallengerInfo(BaseModel):
    """A challenger in the shadow, and what this process counted of it since it is beside the version in production.

    share: of production's rows that it gets a copy of; agree, disagree, failed, dropped: rows.
    right_on_feedback: of a classification; error_on_feedback: of a regression, once a true value came.
    """

    version: str
    share: float
    agree: int
    disagree: int
    failed: int
    dropped: int
    right_on_feedback: RightOnFeedback | None = None
    error_on_feedback: ErrorOnFeedback | None = None


class CanaryInfo(BaseModel):
    """A version that answers a share of the requests, and what this process counted of it since it is loaded.

    requests: those that fell to it; failures: those of them that it did not answer, and production did.
    returned: why production answers all requests again, where it does.
    """

    version: str
    share: float
    requests: int
    failures: int
    returned: str | None


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
    prediction_reference: ColumnReference
    example: dict[str, Any]
    gate: Gate
    loaded_at: str
    last_failure: LoadFailure | None
    challenger: ChallengerInfo | None = None
    challenger_failure: LoadFailure | None = None
    canary: CanaryInfo | None = None
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


class RepositoryQuery(_Strict):
    """The request of /v2/repository/index. ready: whether to leave out what is not in service."""

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
