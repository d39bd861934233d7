"""What a model file defines; `flows.catalog` finds the files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from prefect.schedules import Cron

from app.registry.gate_metrics import BY_TASK
from app.vocabulary import Definition, Gate, Task

__all__ = ["FeedbackRules", "Gate", "Model", "ModelFileError", "Resources"]


class ModelFileError(Exception):
    """A model file is missing or does not define a usable model."""


@dataclass(frozen=True)
class Resources:
    """What the Kubernetes Job that trains the model may use, in Kubernetes' own units.

    cpu, memory: "" for what the chart gives a Job (prefect-worker.jobs.cpu and .memory).
    gpus: how many, of what the chart calls prefect-worker.jobs.gpuResource.
    """

    cpu: str = ""
    memory: str = ""
    gpus: int = 0


@dataclass(frozen=True)
class FeedbackRules:
    """What the labels that were sent to the API's /feedback may do to a training.

    max_share: of the rows that are trained on; the newest are taken. A fifth is enough to learn a drift from, and
        leaves the model as good on its own rows as it was.
    max_disagreement: share of a client's labels that may contradict what the model answered; more stops the training.
    ignore: clients (names of API keys, "" for those without one) whose labels are not used.
    """

    max_share: float = 0.2
    max_disagreement: float = 0.8
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """Everything that is particular to one model.

    load: () -> DataFrame of the features and the target: the data to train on where no other source is named.
    estimator: (seed) -> an unfitted scikit-learn estimator, best a Pipeline.
    source: a CSV or Parquet path or URL with fresh data of the same columns, used instead of load() where it is set.
    nullable: features that a row may be without, besides those that lack values in load()'s own rows.
    categories: features of text that are asked for no other values than those trained on: others are refused.
    min_rows: fewer rows stop the run.
    holdout: share of the rows that are kept for the evaluation; split_seed: another seed keeps other rows.
    schedule: cron expression in UTC, or None.
    feedback: what feedback may do to a training.
    """

    task: Task
    target: str
    load: Callable[[], pd.DataFrame]
    estimator: Callable[[int], Any]
    gate: Gate
    source: str | None = None
    nullable: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    min_rows: int = 50
    holdout: float = 0.25
    split_seed: int = 0
    schedule: str | None = None
    resources: Resources = field(default_factory=Resources)
    feedback: FeedbackRules = field(default_factory=FeedbackRules)
    name: str = ""  # the file's name
    description: str = ""  # the file's docstring

    def __post_init__(self) -> None:
        if self.task not in BY_TASK:
            raise ModelFileError(f"task is {self.task!r}, known are: {', '.join(BY_TASK)}")
        if self.gate.metric not in BY_TASK[self.task]:
            raise ModelFileError(
                f"gate.metric is {self.gate.metric!r}, known for {self.task} are: {', '.join(BY_TASK[self.task])}"
            )
        for names, what in ((self.nullable, "nullable"), (self.categories, "categories")):
            if isinstance(names, str):
                raise ModelFileError(f"{what} is {names!r}, not a tuple of names: ({names!r},)")
        if not 0 < self.holdout < 1:
            raise ModelFileError(f"holdout is {self.holdout}, a share between 0 and 1 is needed")
        rules = self.feedback
        if not 0 <= rules.max_share < 1:
            raise ModelFileError(f"feedback.max_share is {rules.max_share}, not from 0 to below 1")
        if not 0 <= rules.max_disagreement <= 1:
            raise ModelFileError(f"feedback.max_disagreement is {rules.max_disagreement}, not from 0 to 1")
        if isinstance(rules.ignore, str):
            raise ModelFileError(f"feedback.ignore is {rules.ignore!r}, not a tuple of names: ({rules.ignore!r},)")
        if self.schedule:
            try:
                Cron(self.schedule)
            except ValueError as error:
                raise ModelFileError(f"schedule is {self.schedule!r}: {error}; such as '0 3 * * *'") from error

    @property
    def definition(self) -> Definition:
        """What its versions are judged by."""
        return Definition(self.task, self.target, self.gate)
