"""What the platform's accounts may do in MLflow beyond reading.

`reader` (the API, the pages, the retrainer) writes feedback, `trainer` (training Jobs) registers, `gate` (promotion
Jobs) decides: only it moves an alias and writes the ledger. MLflow's own permissions cannot say so, as creating a
version and moving an alias are one right to them. Its setting authorization_function names `authenticate` below, so
this is asked about every request of every route, before MLflow's permissions. `admin`, and accounts of people, have no
rules here.

The image has none of the platform's own code; test_mlflow_accounts.py holds the names against it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flask import Response, jsonify, request
from mlflow.exceptions import MlflowException
from mlflow.protos import model_registry_pb2 as models
from mlflow.protos import service_pb2 as tracking
from mlflow.server.auth import authenticate_request_basic_auth
from mlflow.server.handlers import _get_model_registry_store, _get_request_message, _get_tracking_store
from werkzeug.datastructures import Authorization

FEEDBACK = "feedback"  # the experiment of app/registry/feedback_store.py
PROMOTIONS = "promotions"  # the experiment of app/registry/ledger.py
SEQUENCE_TAG = "mlops.promotion_sequence"  # of app/registry/ledger.py
REQUEST_TAG = "mlops.request"  # of app/clients/mlflow.py
OWNERS = {FEEDBACK: "the account `reader`", PROMOTIONS: "the account `gate`"}

ROUTE = re.compile(r"/(?:ajax-)?api/2\.0/mlflow/(.+)")
# Strict, as a path that reads otherwise once it is decoded again must not pass.
ARTIFACT = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts/(\d+)/([0-9a-f]{32})/artifacts/[^%]+")
READS = {("POST", "runs/search"), ("POST", "experiments/search"), ("POST", "registered-models/search")}

Check = Callable[[Any], str]  # takes MLflow's request message, gives why it is refused, or ""


def authenticate() -> Authorization | Response:
    """The account of the request, or an answer: 401 without one, 403 with a sentence where it may not do this."""
    account = authenticate_request_basic_auth()
    if isinstance(account, Response):
        return account
    reason = refusal(account.username or "", request.method, request.path)
    if not reason:
        return account
    answer = jsonify(
        error_code="PERMISSION_DENIED", message=f"the account `{account.username}` may not do this: {reason}"
    )
    answer.status_code = 403
    return answer


def refusal(account: str, method: str, path: str) -> str:
    """Why the account may not make the current request; "" where it may, as far as these rules go."""
    if account not in RULES:
        return ""
    if "graphql" in path:
        return "GraphQL is for MLflow's page; use the REST API"
    if method in ("GET", "HEAD", "OPTIONS"):
        return ""
    artifact = ARTIFACT.fullmatch(path)
    if artifact and method == "PUT" and ".." not in path:
        return ARTIFACT_RULES[account](artifact[1], artifact[2])
    route = ROUTE.fullmatch(path)
    key = (method, route[1] if route else path)
    if key in READS:
        return ""
    if key not in RULES[account]:
        return f"{method} {path} is not among what it is there for (images/mlflow/account_rules.py has the list)"
    message, check = RULES[account][key]
    return check(_get_request_message(message()))


# -- what requests are about ---------------------------------------------------------------------------------------


def _experiment_name(experiment_id: str) -> str:
    """The experiment's name; "" where there is none, which MLflow says itself."""
    try:
        return str(_get_tracking_store().get_experiment(experiment_id).name) if experiment_id.isdecimal() else ""
    except MlflowException:
        return ""


def _experiment_of(run_id: str) -> str:
    """The id of the run's experiment; "" where there is no such run."""
    try:
        return str(_get_tracking_store().get_run(run_id).info.experiment_id)
    except MlflowException:
        return ""


def _run_id(message: Any) -> str:
    """The run that a message is about. It has an older name, too, in most."""
    older = getattr(message, "run_uuid", "")
    if older and message.run_id and older != message.run_id:
        raise MlflowException.invalid_parameter_value("run_id and run_uuid name two runs")
    return str(message.run_id or older)


def _anything(_: Any) -> str:
    return ""


# -- trainer -------------------------------------------------------------------------------------------------------


def _open_run(run_id: str) -> str:
    """Why the trainer may not write a run: it is of the ledger or of feedback, or a version was made of it."""
    name = _experiment_name(_experiment_of(run_id))
    if name in OWNERS:
        return f"the experiment {name} is written by {OWNERS[name]}"
    versions = _get_model_registry_store().search_model_versions(f"run_id='{run_id}'", max_results=1) if name else []
    if versions:
        return f"version {versions[0].version} of {versions[0].name} was made of the run {run_id}, which stays as it is"
    return ""


def _open_artifacts(experiment_id: str, run_id: str) -> str:
    if experiment_id != _experiment_of(run_id):
        return f"the run {run_id} is not in the experiment {experiment_id}"
    return _open_run(run_id)


def _of_open_run(message: Any) -> str:
    return _open_run(_run_id(message))


def _new_experiment(message: Any) -> str:
    if message.name in OWNERS:
        return f"the experiment {message.name} is the platform's"
    return "an experiment of its own place for artifacts" if message.artifact_location else ""


def _new_run(message: Any) -> str:
    """A run of a model's experiment, or the sequence, empty, with which a new model's ledger begins."""
    name = _experiment_name(message.experiment_id)
    tags = {tag.key: tag.value for tag in message.tags if tag.key != REQUEST_TAG}
    begins_ledger = (
        name == PROMOTIONS and tags.keys() == {"mlops.kind", "mlops.model"} and tags["mlops.kind"] == "sequence"
    )
    if name in OWNERS and not begins_ledger:
        return f"the experiment {name} is written by {OWNERS[name]}"
    return ""


def _new_model(message: Any) -> str:
    others = [tag.key for tag in message.tags if tag.key != SEQUENCE_TAG]
    return f"a new model has no tag but {SEQUENCE_TAG}, not {others[0]}" if others else ""


# -- gate and reader -----------------------------------------------------------------------------------------------


def _only_in(experiment: str) -> tuple[Check, Check, Callable[[str, str], str]]:
    """The rules of an account that writes one experiment: for its runs, for new ones, and for their artifacts."""

    def of_run(message: Any) -> str:
        return of_experiment(_experiment_of(_run_id(message)))

    def new_run(message: Any) -> str:
        return of_experiment(message.experiment_id)

    def artifacts(experiment_id: str, run_id: str) -> str:
        if experiment_id != _experiment_of(run_id):
            return f"the run {run_id} is not in the experiment {experiment_id}"
        return of_experiment(experiment_id)

    def of_experiment(experiment_id: str) -> str:
        return "" if _experiment_name(experiment_id) == experiment else f"it writes the experiment {experiment} alone"

    return of_run, new_run, artifacts


_of_ledger, _new_entry, _ledger_artifacts = _only_in(PROMOTIONS)
_of_feedback, _new_feedback, _feedback_artifacts = _only_in(FEEDBACK)

# Account -> (method, route) -> MLflow's message of the route, and the check of it. What is not here is refused.
RULES: dict[str, dict[tuple[str, str], tuple[Any, Check]]] = {
    "trainer": {
        ("POST", "experiments/create"): (tracking.CreateExperiment, _new_experiment),
        ("POST", "runs/create"): (tracking.CreateRun, _new_run),
        ("POST", "runs/update"): (tracking.UpdateRun, _of_open_run),
        ("POST", "runs/log-batch"): (tracking.LogBatch, _of_open_run),
        ("POST", "runs/log-metric"): (tracking.LogMetric, _of_open_run),
        ("POST", "runs/log-parameter"): (tracking.LogParam, _of_open_run),
        ("POST", "runs/log-inputs"): (tracking.LogInputs, _of_open_run),
        ("POST", "runs/set-tag"): (tracking.SetTag, _of_open_run),
        ("POST", "registered-models/create"): (models.CreateRegisteredModel, _new_model),
        ("POST", "model-versions/create"): (models.CreateModelVersion, _anything),
    },
    "gate": {
        ("POST", "runs/create"): (tracking.CreateRun, _new_entry),
        ("POST", "runs/update"): (tracking.UpdateRun, _of_ledger),
        ("POST", "runs/log-batch"): (tracking.LogBatch, _of_ledger),
        ("POST", "runs/log-parameter"): (tracking.LogParam, _of_ledger),
        ("POST", "registered-models/set-tag"): (models.SetRegisteredModelTag, _anything),
        ("POST", "registered-models/alias"): (models.SetRegisteredModelAlias, _anything),
        ("DELETE", "registered-models/alias"): (models.DeleteRegisteredModelAlias, _anything),
    },
    "reader": {
        ("POST", "runs/create"): (tracking.CreateRun, _new_feedback),
        ("POST", "runs/log-batch"): (tracking.LogBatch, _of_feedback),
    },
}
ARTIFACT_RULES = {"trainer": _open_artifacts, "gate": _ledger_artifacts, "reader": _feedback_artifacts}
