"""The words that all parts share: what a model version is made of, and what can be decided about it.

Plain types without a service behind them. Training writes them into the bundle, the gate and the API read them from
there, the pages show them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Task = Literal["classification", "regression"]
Serving = Literal["onnx", "skops"]  # what answers: onnxruntime, or scikit-learn where ONNX cannot express the estimator
# outside: the alias was moved by hand; challenge: a version begins or ends to predict in the shadow; canary: it begins
# or ends to answer a share of the requests
Action = Literal["promote", "rollback", "outside", "challenge", "canary"]
Outcome = Literal["promoted", "refused", "unchanged", "started", "ended"]  # the last two of a challenge or a canary
# What can refuse a version, see docs/architecture.md; history: there is no version to roll back to.
Check = Literal[
    "bundle",
    "golden",
    "definition",
    "signature",
    "threshold",
    "regression",
    "better",
    "shadow",
    "concurrent",
    "history",
]
Dtype = Literal["double", "float", "long", "integer", "boolean", "string", "datetime"]  # MLflow's names
Label = bool | int | float | str  # of a class, or the value of a regression

TRAIN_FLOW = "train"  # Prefect's flow with a deployment for each model, such as train/iris
RETRAINER = "retrainer"  # who asks for retrainings: a tag of its flow runs, `who` in the promotion ledger

# What a model gets as a number; a datetime is days since 1970-01-01 UTC (`app.dates`).
NUMERIC: frozenset[str] = frozenset({"double", "float", "long", "integer", "boolean", "datetime"})
INTEGER: frozenset[str] = frozenset({"long", "integer"})


@dataclass(frozen=True)
class Feature:
    """One input column of a model.

    nullable: whether a row may be without a value of it.
    categories: the only values that a row may have, for text; () for any.
    """

    name: str
    dtype: Dtype
    nullable: bool = False
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gate:
    """What a new version must reach on the held-out rows to be promoted.

    metric: a name of `app.registry.gate_metrics`.
    threshold: the worst acceptable value of the metric.
    max_regression: how much worse than production it may be, in the metric's own unit.
    min_shadow_rows: how many of production's rows it must have got as the challenger, in the shadow; 0 for none.
    max_disagreement: on which share of them it may have answered otherwise than production, or not at all.
    """

    metric: str
    threshold: float
    max_regression: float = 0.0
    min_shadow_rows: int = 0
    max_disagreement: float = 1.0


@dataclass(frozen=True)
class Definition:
    """What a model file, as it is deployed, says of its versions, whatever they say of themselves.

    target: the name of the predicted column.
    """

    task: Task
    target: str
    gate: Gate


@dataclass(frozen=True)
class NumericReference:
    """The training values of a numeric column.

    edges: inner edges of the buckets, ascending; bucket i holds edges[i-1] < x <= edges[i].
    shares: share of the training rows in each of the len(edges) + 1 buckets.
    missing: share of the training rows without a value; None for a column that must have one.
    """

    dtype: Dtype
    min: float
    max: float
    median: float
    edges: list[float]
    shares: list[float]
    missing: float | None = None


@dataclass(frozen=True)
class CategoricalReference:
    """The training values of a column of text or of true and false.

    categories: the commonest ones as text, then "(other)"; shares: share of the training rows of each.
    missing: share of the training rows without a value; None for a column that must have one.
    """

    dtype: Dtype
    categories: list[str]
    shares: list[float]
    missing: float | None = None


ColumnReference = NumericReference | CategoricalReference


@dataclass(frozen=True)
class Reference:
    """What the training data looked like: each feature by its name, and the predicted column."""

    features: dict[str, ColumnReference]
    prediction: ColumnReference


@dataclass(frozen=True)
class GoldenRows:
    """Rows and what the estimator itself answered, which whoever loads the model compares with.

    rows: values in the signature's order; outputs: one label or value per row; probabilities: rows x classes, or None.
    """

    rows: list[list[Any]]
    outputs: list[Label]
    probabilities: list[list[float]] | None
