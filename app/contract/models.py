"""The models in service: what /models answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, TypeAdapter

from app.contract.status import LoadFailure, MlflowStatus
from app.vocabulary import ColumnReference, Dtype, Gate, Label, Serving, Task

_REFERENCE: TypeAdapter[ColumnReference] = TypeAdapter(ColumnReference)


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
