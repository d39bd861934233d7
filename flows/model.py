"""What a model file defines; `flows.catalog` finds the files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from prefect.schedules import Cron

from app.registry.gate_metrics import BY_TASK
from app.vocabulary import Definition, Gate, Task

__all__ = ["FeedbackRules", "Gate", "GroupSplit", "Model", "ModelFileError", "Resources", "Sql", "TimeSplit"]

MAX_ROWS = 5_000_000  # of a source, where the model file says nothing else
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_FOLDS = 20


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
class TimeSplit:
    """The newest rows are held out; rows of the same time are on one side.

    column: of times (ISO 8601 where they are text) or of numbers that grow with time; load() gives it.
    is_feature: whether the estimator sees the column; else it serves to split and nothing more.
    """

    column: str
    is_feature: bool = False

    def __str__(self) -> str:
        return f"time ({self.column})"


@dataclass(frozen=True)
class GroupSplit:
    """Whole groups are held out, such as all rows of a customer; no group is on both sides.

    column: what is equal for the rows of a group; load() gives it.
    is_feature: whether the estimator sees the column; else it serves to split and nothing more.
    """

    column: str
    is_feature: bool = False

    def __str__(self) -> str:
        return f"group ({self.column})"


@dataclass(frozen=True)
class Sql:
    """A query whose rows are the data.

    query: sent to the database as it is.
    url_env: the environment variable that has the database's SQLAlchemy URL, with the password: the file has neither.

    Raises:
        ModelFileError: the query is empty, or url_env is no name of a variable.
    """

    query: str
    url_env: str = "MLOPS_DATA_URL"

    def __post_init__(self) -> None:
        if not isinstance(self.query, str) or not self.query.strip():
            raise ModelFileError(f"the query of Sql is {self.query!r}, not the text of a select")
        if not isinstance(self.url_env, str) or not VARIABLE.fullmatch(self.url_env):
            # not shown: somebody may have written the URL, with its password
            raise ModelFileError(
                "url_env of Sql is no name of an environment variable: give the name, such as MLOPS_DATA_URL, and put "
                "the database's URL into the variable"
            )


@dataclass(frozen=True)
class Model:
    """Everything that is particular to one model.

    load: () -> DataFrame of the features, the target and, where one splits the rows, that column: the data to train on
        where no other source is named.
    estimator: (seed) -> an unfitted scikit-learn estimator, best a Pipeline.
    source: fresh data of the same columns, used instead of load() where it is set: as `flows.sources.read` takes it.
    max_rows: more rows in a source stop the run, before they are all read.
    nullable: features that a row may be without, besides those that lack values in load()'s own rows.
    categories: features of text that are asked for no other values than those trained on: others are refused.
    dates: the features that are dates; None for those whose values in load()'s own rows are all dates or ISO 8601 text,
        () for none.
    min_rows: fewer rows stop the run.
    split: which rows are kept for the evaluation: TimeSplit, GroupSplit, or None for some of each class, by a hash of
        their content.
    holdout: the share of the rows that are kept, or of the groups; split_seed: another seed keeps others.
    folds: of a cross-validation on the training rows, 2 to 20, whose metrics are told beside those that count; 0 for
        none.
    schedule: cron expression in UTC, or None.
    feedback: what feedback may do to a training.
    """

    task: Task
    target: str
    load: Callable[[], pd.DataFrame]
    estimator: Callable[[int], Any]
    gate: Gate
    source: str | Sql | None = None
    max_rows: int = MAX_ROWS
    nullable: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    dates: tuple[str, ...] | None = None
    min_rows: int = 50
    split: TimeSplit | GroupSplit | None = None
    holdout: float = 0.25
    split_seed: int = 0
    folds: int = 0
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
        self._check_shadow()
        for names, what in ((self.nullable, "nullable"), (self.categories, "categories"), (self.dates, "dates")):
            if isinstance(names, str):
                raise ModelFileError(f"{what} is {names!r}, not a tuple of names: ({names!r},)")
        if both := sorted({*(self.dates or ())} & {*self.categories}):
            raise ModelFileError(f"{both[0]!r} is in dates and in categories: leave it out of one")
        if self.source is not None and not isinstance(self.source, str | Sql):
            raise ModelFileError(f"source is {self.source!r}, not a path, a URL or Sql(...)")
        if not _is_whole(self.max_rows) or self.max_rows < 1:
            raise ModelFileError(f"max_rows is {self.max_rows!r}, a whole number from 1 is needed")
        if not 0 < self.holdout < 1:
            raise ModelFileError(f"holdout is {self.holdout}, a share between 0 and 1 is needed")
        self._check_split()
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

    def _check_shadow(self) -> None:
        """Raises ModelFileError for what the gate cannot ask of a challenger."""
        rows, disagreement = self.gate.min_shadow_rows, self.gate.max_disagreement
        if not _is_whole(rows) or rows < 0:
            raise ModelFileError(f"gate.min_shadow_rows is {rows!r}, not a whole number from 0")
        if isinstance(disagreement, bool) or not isinstance(disagreement, int | float) or not 0 <= disagreement <= 1:
            raise ModelFileError(f"gate.max_disagreement is {disagreement!r}, not a share from 0 to 1")
        if disagreement < 1 and not rows:
            raise ModelFileError(
                f"gate.max_disagreement is {disagreement!r} and counts from gate.min_shadow_rows on: set that, too"
            )

    def _check_split(self) -> None:
        """Raises ModelFileError for a split or folds that cannot be."""
        if self.split is not None:
            if not isinstance(self.split, TimeSplit | GroupSplit):
                raise ModelFileError(f'split is {self.split!r}, not TimeSplit("column"), GroupSplit("column") or None')
            if not isinstance(self.split.column, str) or not self.split.column:
                raise ModelFileError(f"split.column is {self.split.column!r}, not the name of a column")
            if self.split.column == self.target:
                raise ModelFileError(f"split.column is {self.target!r}, which is the target")
        if not _is_whole(self.folds) or not (self.folds == 0 or 2 <= self.folds <= MAX_FOLDS):
            raise ModelFileError(f"folds is {self.folds!r}, not a whole number from 2 to {MAX_FOLDS}, or 0 for none")

    @property
    def column_apart(self) -> str | None:
        """The column that splits the rows and is no feature, or None."""
        return self.split.column if self.split and not self.split.is_feature else None

    @property
    def definition(self) -> Definition:
        """What its versions are judged by."""
        return Definition(self.task, self.target, self.gate)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
