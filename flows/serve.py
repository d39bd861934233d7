"""The deployments of all flows, one training deployment per model: `train/iris`.

As a program, `python -m flows.serve`, it registers them with Prefect and runs what is scheduled, each run in a
subprocess: what `make demo` uses in place of a Kubernetes worker.
"""

from __future__ import annotations

from typing import Any, cast

from prefect import Flow, serve
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron

from flows.catalog import load_model, model_names
from flows.model import Model
from flows.promote import promote
from flows.rollback import rollback
from flows.train import train


def deployments() -> list[RunnerDeployment]:
    """One training deployment per model file, and one each for promotion and rollback."""
    trainings = [_training(load_model(name)) for name in model_names()]
    return [*trainings, _deployment(promote, "promote"), _deployment(rollback, "rollback")]


def _training(model: Model) -> RunnerDeployment:
    return _deployment(
        train,
        model.name,
        parameters={"model": model.name},
        description=model.description,
        schedule=Cron(model.schedule, timezone="UTC") if model.schedule else None,
    )


def _deployment(flow: Flow[..., Any], name: str, **settings: Any) -> RunnerDeployment:
    return cast(RunnerDeployment, flow.to_deployment(name=name, **settings))


if __name__ == "__main__":
    serve(*deployments())
