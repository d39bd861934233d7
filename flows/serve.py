"""The deployments of all flows, one training deployment per model: `train/iris`.

As a program, `python -m flows.serve`, it registers them with Prefect and runs what is scheduled, each run in a
subprocess: what `make demo` uses in place of a Kubernetes worker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, cast

from prefect import Flow, serve
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron

from flows.catalog import load_models
from flows.model import Model
from flows.promote import promote
from flows.rollback import rollback
from flows.train import train

log = logging.getLogger("mlops.deploy")


def usable_models() -> tuple[list[Model], dict[str, str]]:
    """As `flows.catalog.load_models`; what is wrong with the broken files is logged."""
    models, broken = load_models()
    for name, reason in broken.items():
        log.error("the model %s cannot be trained, because its file is broken: %s", name, reason)
    return models, broken


def deployments(models: Iterable[Model]) -> list[RunnerDeployment]:
    """One training deployment per model, and one each for promotion and rollback."""
    return [*map(_training, models), _deployment(promote, "promote"), _deployment(rollback, "rollback")]


def _training(model: Model) -> RunnerDeployment:
    return _deployment(
        train,
        model.name,
        parameters={"model": model.name},
        description=model.description,
        schedule=Cron(model.schedule, timezone="UTC") if model.schedule else None,
    )


def broken_training(name: str, reason: str) -> RunnerDeployment:
    """The training of a model whose file cannot be used: it fails with the reason, which its description has, too."""
    return _deployment(train, name, parameters={"model": name}, description=f"Its file cannot be used: {reason}")


def _deployment(flow: Flow[..., Any], name: str, **settings: Any) -> RunnerDeployment:
    return cast(RunnerDeployment, flow.to_deployment(name=name, **settings))


if __name__ == "__main__":
    serve(*deployments(usable_models()[0]))
