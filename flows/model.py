"""What a model file defines, and where model files are found."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from app.registry.gate_metrics import BY_TASK
from app.vocabulary import Gate, Task

__all__ = ["Gate", "Model", "ModelFileError", "Resources"]

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
MODELS = Path(__file__).parent / "models"


class ModelFileError(Exception):
    """A model file is missing or does not define a usable model."""


@dataclass(frozen=True)
class Resources:
    """Of the Kubernetes Job that trains the model, in Kubernetes' own units."""

    cpu: str = "100m"
    memory: str = "1Gi"


@dataclass(frozen=True)
class Model:
    """Everything that is particular to one model.

    load: () -> DataFrame of the features and the target, the data it trains on where no other source is named.
    estimator: (seed) -> an unfitted scikit-learn estimator, best a Pipeline.
    source: a CSV or Parquet path or URL with fresh data of the same columns, used instead of load() where it is set.
    min_rows: fewer rows stop the run.
    holdout: share of the rows that are kept for the evaluation; split_seed: another one keeps other rows.
    schedule: cron expression in UTC, or None.
    """

    task: Task
    target: str
    load: Callable[[], pd.DataFrame]
    estimator: Callable[[int], Any]
    gate: Gate
    source: str | None = None
    min_rows: int = 50
    holdout: float = 0.25
    split_seed: int = 0
    schedule: str | None = None
    resources: Resources = field(default_factory=Resources)
    name: str = ""  # the file's name
    description: str = ""  # the file's docstring

    def __post_init__(self) -> None:
        if self.task not in BY_TASK:
            raise ModelFileError(f"task is {self.task!r}, known are: {', '.join(BY_TASK)}")
        if self.gate.metric not in BY_TASK[self.task]:
            raise ModelFileError(
                f"gate.metric is {self.gate.metric!r}, known for {self.task} are: {', '.join(BY_TASK[self.task])}"
            )
        if not 0 < self.holdout < 1:
            raise ModelFileError(f"holdout is {self.holdout}, a share between 0 and 1 is needed")


def folders() -> list[Path]:
    """Where model files are looked for: flows/models, and the folders in MLOPS_MODELS_PATH (like PATH)."""
    more = os.environ.get("MLOPS_MODELS_PATH", "")
    return [MODELS, *(Path(part) for part in more.split(os.pathsep) if part)]


def names() -> list[str]:
    """The names of all model files."""
    found = {p.stem for folder in folders() for p in folder.glob("*.py") if not p.stem.startswith("_")}
    return sorted(found)


def get(name: str) -> Model:
    """The model of the file `name`.py.

    Raises:
        ModelFileError: there is no such file, it cannot be imported, or it defines no `model`.
    """
    path = next((p for folder in folders() if (p := folder / f"{name}.py").is_file()), None)
    if path is None or not NAME.fullmatch(name):
        looked = ", ".join(map(str, folders()))
        raise ModelFileError(f"there is no model {name!r}; known are: {', '.join(names())} (looked in {looked})")
    module_name = f"flows.models.{name}" if path.parent == MODELS else f"mlops_model_{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelFileError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    model = getattr(module, "model", None)
    if not isinstance(model, Model):
        raise ModelFileError(f"{path} defines no `model = Model(...)`")
    values = {**model.__dict__, "name": name, "description": (module.__doc__ or name).strip()}
    return Model(**values)
