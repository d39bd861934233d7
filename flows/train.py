"""The training flow: load, validate, split, fit, evaluate, register, promote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import mlflow
import pandas as pd
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.pandas_dataset import from_pandas
from mlflow.exceptions import MlflowException
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run
from requests import RequestException

from app.clients.mlflow import REQUEST_TAG, MlflowClient, MlflowUnavailable
from app.registry import feedback_store
from app.runtime.settings import MlflowSettings
from flows import dataset, provenance, sources
from flows.bundle_writer import FittedModel
from flows.catalog import load_model
from flows.decision import decision_about
from flows.evaluate import Evaluation, evaluate, measure, over_folds
from flows.feedback import Feedback, select
from flows.model import Model
from flows.register import register
from flows.report import Training, markdown
from flows.settings import FlowSettings

MAX_PARAM = 500


def _is_io(_task: Any, _run: Any, state: Any) -> bool:
    """Whether the failure may pass by itself: only such tasks are tried again."""
    try:
        state.result()
    except (sources.SourceUnavailable, MlflowUnavailable):
        return True
    except Exception:
        return False
    return False


_IO: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": [1, 5, 15],
    "retry_condition_fn": _is_io,
    "cache_policy": NO_CACHE,
}


@task(name="load", **_IO)
def load_data(model: Model, source: str | None) -> tuple[pd.DataFrame, str]:
    """The model's own rows, as they are, and where they came from."""
    frame, origin = dataset.load(model, source)
    get_run_logger().info("%d rows from %s", len(frame), origin)
    return frame, origin


@task(name="validate", cache_policy=NO_CACHE)
def validate(model: Model, frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows as the model needs them, and which features are dates; a DatasetError ends the run."""
    return dataset.validate_and_find_dates(model, frame)


@task(name="split", cache_policy=NO_CACHE)
def split(model: Model, frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows and held-out rows."""
    training, held_out = dataset.split(model, frame)
    for note in dataset.notes_on_split(model, training, held_out):
        get_run_logger().warning("%s: %s", model.name, note)
    return training, held_out


@task(name="cross-validate", cache_policy=NO_CACHE)
def cross_validate(model: Model, frame: pd.DataFrame, seed: int) -> dict[str, float]:
    """Mean and standard deviation of each metric over the folds of the model's own training rows.

    Args:
        frame: validated; feedback has neither times nor groups, and is not among it.
    """
    folds = dataset.folds(model, frame)
    summary = over_folds([measure(model, fit.fn(model, fitted, seed), tested) for fitted, tested in folds])
    metric = f"cv_{model.gate.metric}"
    values = summary[f"{metric}_mean"], summary[f"{metric}_std"]
    get_run_logger().info("over %d folds: %s %.4f, standard deviation %.4f", model.folds, model.gate.metric, *values)
    return summary


@task(name="feedback", **_IO)
def select_feedback(
    model: Model, training: pd.DataFrame, held_out: pd.DataFrame, trusted: bool, dates: tuple[str, ...]
) -> Feedback:
    """The labels that were sent, as far as they may be trained on; FeedbackRefused where a person has to look."""
    log = get_run_logger()
    with MlflowClient(retry_for=FlowSettings().retry_seconds) as registry:
        rows = feedback_store.read(registry, model.name)
    selected = select(model, training, held_out, rows, trusted, dates)
    log.info(
        "%d rows of feedback to train on, %d to compare with production on",
        *(len(selected.training), len(selected.comparison)),
    )
    for reason, count in sorted(selected.left_out.items()):
        log.warning("%d rows of feedback on %s were left out: %s", count, model.name, reason)
    return selected


@task(name="fit", cache_policy=NO_CACHE)
def fit(model: Model, train_rows: pd.DataFrame, seed: int) -> Any:
    """The model's estimator, fitted on the training rows.

    Raises:
        DatasetError: values are missing, and the estimator takes no rows without them.
    """
    features = train_rows.drop(columns=model.target)
    try:
        return model.estimator(seed).fit(features, train_rows[model.target])
    except ValueError as error:
        lacking = ", ".join(map(str, features.columns[features.isna().any()]))
        if not lacking or "NaN" not in str(error):
            raise
        raise dataset.DatasetError(
            f"values of {lacking} are missing, and the estimator of {model.name} takes no rows without them: put a "
            "SimpleImputer before it in its Pipeline, or take one that knows missing values, such as "
            "HistGradientBoostingClassifier"
        ) from error


@task(name="evaluate", cache_policy=NO_CACHE)
def assess(model: Model, estimator: Any, held_out: pd.DataFrame, seed: int) -> Evaluation:
    """Evaluate the estimator on the held-out rows and log its metrics."""
    evaluation = evaluate(model, estimator, held_out, seed)
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in evaluation.metrics.items())
    get_run_logger().info("on %d held-out rows: %s", len(held_out), metrics)
    return evaluation


@contextmanager
def _as_unavailable() -> Iterator[None]:
    """Raise MlflowUnavailable, which is tried again, for what the mlflow package raises of a server that fails."""
    try:
        yield
    except MlflowException as error:
        if error.get_http_status_code() < 500:
            raise
        raise MlflowUnavailable(str(error)) from error
    except RequestException as error:
        if error.response is not None and error.response.status_code < 500:
            raise
        raise MlflowUnavailable(str(error)) from error


def _begun_run(experiment: str, request: str) -> str | None:
    """The id of the run that an earlier try of this task began, or None."""
    where = f"tags.`{REQUEST_TAG}` = '{request}'"
    runs = mlflow.search_runs([experiment], where, max_results=1, output_format="list")
    return runs[0].info.run_id if runs else None


@task(name="track", **_IO)
@_as_unavailable()
def track(
    model: Model,
    estimator: Any,
    frame: pd.DataFrame,
    origin: str,
    seed: int,
    evaluation: Evaluation,
    more: Mapping[str, float],
    tags: dict[str, str],
) -> tuple[str, str]:
    """Log the run to MLflow: data, parameters, metrics and pictures; returns the ids of run and experiment.

    A task that is tried again goes on with the run that it began.

    Args:
        more: metrics besides those of the evaluation: of the folds, and counts of feedback.
    """
    mlflow.set_tracking_uri(MlflowSettings().mlflow_tracking_uri)
    experiment, request = mlflow.set_experiment(model.name).experiment_id, str(task_run.id)
    with mlflow.start_run(_begun_run(experiment, request), tags={**tags, REQUEST_TAG: request}) as run:
        source = CodeDatasetSource({"mlflow.source.name": origin})
        data = from_pandas(frame, source=source, targets=model.target, name=model.name)
        mlflow.log_input(data, context="training")
        params = {name: str(value) for name, value in estimator.get_params().items() if _is_plain(value)}
        how = {"split": str(model.split or "content"), "holdout": model.holdout, "folds": model.folds}
        mlflow.log_params({**params, "seed": seed, **how, "rows": len(frame)})
        mlflow.log_metrics({**evaluation.metrics, **more})
        mlflow.log_dict(evaluation.importances, "evaluation/feature_importances.json")
        for name, figure in evaluation.figures.items():
            mlflow.log_figure(figure, f"evaluation/{name}")
    return run.info.run_id, run.info.experiment_id


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | None) and len(str(value)) < MAX_PARAM


@task(name="register", **_IO)
def register_version(
    model: Model,
    fitted: FittedModel,
    held_out: pd.DataFrame,
    feedback: pd.DataFrame | None,
    run_id: str,
    tags: dict[str, str],
) -> str:
    """Write the bundle, upload and register it; returns the version's number."""
    with MlflowClient(retry_for=FlowSettings().retry_seconds) as registry:
        version = register(registry, model.name, run_id, fitted, held_out, tags, feedback)
    get_run_logger().info(
        "registered version %s of %s, served by %s", version.version, model.name, version.tags["serving"]
    )
    return version.version


@flow(name="train")
def train(
    model: str,
    source: str | None = None,
    seed: int = 42,
    feedback: bool = False,
    trust_feedback: bool = False,
    promote: bool = True,
    only_if_better: bool = False,
    who: str = "prefect",
    cause: str = "",
) -> dict[str, Any]:
    """Train a model of flows/models and promote the new version if it is good enough.

    Args:
        model: the name of its file.
        source: path or URL of a file or a folder, as `flows.sources.read` takes it, to be read instead of the model's
            own data.
        seed: of the estimator; the same seed and data give the same metrics.
        feedback: train on the stored feedback too, as far as the model file allows.
        trust_feedback: you have looked at the feedback, and it is right though it contradicts what the model answered.
        promote: try the gate after registering.
        only_if_better: promote only what is better than production: a retraining that gains nothing changes nothing.
        who, cause: for the promotion ledger.
    """
    definition = load_model(model)
    frame, origin = load_data(definition, source)
    frame, dates = validate(definition, frame)
    train_rows, held_out = split(definition, frame)
    notes = dataset.notes_on_split(definition, train_rows, held_out)
    folds = cross_validate(definition, frame, seed) if definition.folds else {}
    counts, comparison = {}, None
    if feedback:
        selected = select_feedback(definition, train_rows, held_out, trust_feedback, dates)
        train_rows = pd.concat([train_rows, selected.training], ignore_index=True)
        frame = pd.concat([frame, selected.training], ignore_index=True)
        counts, comparison = selected.counts, selected.comparison
        origin += f" and {len(selected.training)} rows of feedback"
    estimator = fit(definition, train_rows, seed)
    evaluation = assess(definition, estimator, held_out, seed)
    tags = {**provenance.tags(), "dataset_sha256": dataset.fingerprint(frame), "seed": str(seed), "cause": cause}
    run_id, experiment = track(definition, estimator, frame, origin, seed, evaluation, {**folds, **counts}, tags)
    learned = dataset.features_and_target(definition, frame)
    fitted = FittedModel.of(definition, estimator, train_rows, example=learned.head(1).drop(columns=definition.target))
    fitted = replace(fitted, nullable=dataset.nullable_features(definition, learned), dates=dates)
    version = register_version(definition, fitted, held_out, comparison, run_id, tags)
    decision = None
    if promote:
        decision = decision_about(
            model,
            version,
            run_id,
            who=who,
            why=cause or f"trained on {len(train_rows)} rows from {origin}",
            cause=cause or f"flow run {tags['flow_run_id']}",
            only_if_better=only_if_better,
        )
    create_markdown_artifact(
        key=f"train-{model.replace('_', '-')}",
        markdown=markdown(
            Training(
                *(definition, len(frame), origin, evaluation, run_id, experiment, version, decision, promote),
                folds=folds,
                notes=notes,
            )
        ),
        description=f"{model} version {version}",
    )
    return {
        "model": model,
        "version": version,
        "run_id": run_id,
        "metrics": evaluation.metrics,
        "decision": asdict(decision) if decision else None,
    }
