"""`mlops doctor`: every service, and the loop between them; what is wrong and what to do about it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from app.clients.mlflow import PRODUCTION, MlflowClient, MlflowError, RegisteredModel
from app.clients.prefect import PrefectClient
from app.registry.bundle import Bundle, BundleError, fetch_bundle
from app.registry.ledger import PROMOTIONS_EXPERIMENT, Ledger
from app.registry.predictor import example_difference, load_predictor
from app.runtime.settings import PlatformSettings


@dataclass(frozen=True)
class Finding:
    """What one check found; `cure` is what to do when it is not ok."""

    check: str
    ok: bool
    detail: str
    cure: str = ""


class CheckFailed(Exception):
    """Raised by a check: what is wrong, and the cure."""

    def __init__(self, detail: str, cure: str) -> None:
        super().__init__(detail)
        self.cure = cure


def examine(settings: PlatformSettings, model: str = "") -> Iterator[Finding]:
    """Run all checks, in the order of the loop; what depends on a service that is down is not tried.

    Args:
        model: only this model; by default all that are registered.
    """
    with (
        MlflowClient(timeout=settings.timeout) as registry,
        httpx.Client(timeout=settings.timeout) as http,
        PrefectClient(timeout=settings.timeout).http as prefect_http,
    ):
        mlflow = _finding("mlflow", lambda: _mlflow(registry))
        prefect = _finding("prefect", lambda: _prefect(prefect_http))
        api = _finding("api", lambda: _service(http, f"{settings.api_url}/livez", "the model API", "MLOPS_API_URL"))
        yield mlflow
        yield prefect
        yield api
        pages = f"{settings.ui_url}/_stcore/health"
        yield _finding("pages", lambda: _service(http, pages, "the page server", "MLOPS_UI_URL"))
        if not mlflow.ok:
            return
        yield _finding("artifact store", lambda: _artifact_store(registry))
        found: list[RegisteredModel] = []

        def models() -> str:
            found.extend(_models(registry, model))
            return ", ".join(item.name for item in found)

        yield _finding("models", models)
        for item in found:
            yield from _examine_model(registry, http, prefect_http if prefect.ok else None, settings, item, api.ok)


def _examine_model(
    registry: MlflowClient,
    http: httpx.Client,
    prefect: httpx.Client | None,
    settings: PlatformSettings,
    model: RegisteredModel,
    api: bool,
) -> Iterator[Finding]:
    name = model.name
    bundles: list[Bundle] = []

    def bundle() -> str:
        bundles.append(_bundle(registry, model))
        return f"version {model.aliases[PRODUCTION]}, served by {bundles[0].serving}"

    if prefect:
        yield _finding(f"{name}: deployment", lambda: _deployment(prefect, name))
        yield _finding(f"{name}: last training", lambda: _last_training(prefect, name))
    yield _finding(f"{name}: ledger", lambda: _ledger(registry, model))
    production = _finding(f"{name}: production", bundle)
    yield production
    if api and production.ok:
        serving = _finding(f"{name}: serving", lambda: _serving(http, settings, model))
        yield serving
        if serving.ok:
            yield _finding(f"{name}: prediction", lambda: _prediction(http, settings, name, bundles[0]))


def _finding(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, True, look())
    except CheckFailed as error:
        return Finding(check, False, str(error), error.cure)
    except MlflowError as error:
        return Finding(check, False, str(error), "see MLflow's log")
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        return Finding(check, False, f"{type(error).__name__}: {error}", "see the service's log")


def _mlflow(registry: MlflowClient) -> str:
    try:
        version = registry.server_version()
        registry.models()
    except MlflowError as error:
        raise CheckFailed(str(error), "start it with `make demo`, or set MLFLOW_TRACKING_URI to where it is") from error
    return f"MLflow {version} at {registry.uri}"


def _prefect(http: httpx.Client) -> str:
    url = str(http.base_url).rstrip("/")
    try:
        version = http.get("/admin/version").raise_for_status().json()
    except httpx.HTTPStatusError as error:
        raise CheckFailed(
            f"Prefect at {url} answers {error.response.status_code}", "set PREFECT_API_AUTH_STRING"
        ) from error
    except (httpx.HTTPError, ValueError) as error:
        raise CheckFailed(
            f"Prefect at {url} does not answer: {error}", "start it with `make demo`, or set PREFECT_API_URL"
        ) from error
    return f"Prefect {version} at {url}"


def _service(http: httpx.Client, url: str, label: str, variable: str) -> str:
    try:
        http.get(url).raise_for_status()
    except httpx.HTTPError as error:
        raise CheckFailed(
            f"{label} at {url} does not answer: {error}", f"start it with `make demo`, or set {variable}"
        ) from error
    return f"{label} answers at {url}"


def _artifact_store(registry: MlflowClient) -> str:
    """Writes and reads back one small file: what training and feedback need."""
    experiment = registry.ensure_experiment(PROMOTIONS_EXPERIMENT)
    path, content = f"{experiment}/doctor", secrets.token_bytes(16)
    cure = "see MLflow's log; is its disk full, or was it started without --serve-artifacts?"
    try:
        registry.write_artifact(path, content)
        back = registry.read_artifact(path)
    except MlflowError as error:
        raise CheckFailed(f"MLflow's artifact store cannot be written: {error}", cure) from error
    if back != content:
        raise CheckFailed("MLflow's artifact store gives back something else than was written", cure)
    return "can be written and read"


def _models(registry: MlflowClient, name: str) -> list[RegisteredModel]:
    found = [model for model in registry.models() if name in ("", model.name)]
    if not found:
        missing = f"the model {name!r}" if name else "no model"
        raise CheckFailed(f"{missing} is {'not ' if name else ''}registered", f"run `mlops train {name or 'MODEL'}`")
    return found


def _deployment(http: httpx.Client, name: str) -> str:
    answer = http.get(f"/deployments/name/train/{name}")
    if answer.status_code == 404:
        raise CheckFailed(
            f"Prefect has no deployment train/{name}",
            "is the model's file in flows/models? `python -m flows.serve` registers one for each",
        )
    deployment = answer.raise_for_status().json()
    if deployment.get("status") != "READY":
        raise CheckFailed(
            f"nothing runs what is scheduled for train/{name}",
            "start `make demo`, or `python -m flows.serve`; on Kubernetes look at the worker's pod",
        )
    if deployment.get("paused"):
        raise CheckFailed(
            f"the deployment train/{name} is paused", f"run `prefect deployment schedule resume train/{name}`"
        )
    return f"train/{name} is ready"


def _last_training(http: httpx.Client, name: str) -> str:
    body: dict[str, Any] = {
        "flows": {"name": {"any_": ["train"]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}},
        "sort": "END_TIME_DESC",
        "limit": 200,
    }
    runs = http.post("/flow_runs/filter", json=body).raise_for_status().json()
    mine = [run for run in runs if run.get("parameters", {}).get("model") == name]
    if not mine:
        return "none that Prefect knows of"
    last, ui = mine[0], str(http.base_url).rstrip("/").removesuffix("/api")
    if last["state"]["type"] != "COMPLETED":
        raise CheckFailed(
            f"the run {last['name']} {last['state']['type'].lower()}: {last['state'].get('message') or 'no message'}",
            f"see {ui}/runs/flow-run/{last['id']}",
        )
    return f"the run {last['name']} completed at {last['end_time'][:19]}"


def _ledger(registry: MlflowClient, model: RegisteredModel) -> str:
    moves = Ledger(registry, model.name).moves()
    alias, last = model.aliases.get(PRODUCTION), moves[-1].version if moves else None
    if alias != last or (moves and not moves[-1].applied):
        raise CheckFailed(
            f"the alias {PRODUCTION} is at version {alias or 'none'}, the promotion ledger says {last or 'none'}",
            f"the next `mlops promote {model.name}` or `mlops rollback {model.name}` settles it",
        )
    return f"{len(moves)} moves, the last to version {last}" if moves else "no promotion yet"


def _bundle(registry: MlflowClient, model: RegisteredModel) -> Bundle:
    version = model.aliases.get(PRODUCTION)
    if version is None:
        raise CheckFailed(
            "no version is in production",
            f"run `mlops promote {model.name}`; `mlops history {model.name}` says why none was promoted",
        )
    with TemporaryDirectory() as folder:  # not the cache: what MLflow holds is to be checked
        try:
            bundle = fetch_bundle(registry, registry.version(model.name, version), Path(folder))
            load_predictor(bundle)
        except (BundleError, MlflowError) as error:
            raise CheckFailed(
                f"version {version} cannot be loaded: {error}",
                f"run `mlops rollback {model.name}` or `mlops train {model.name}`",
            ) from error
    return bundle


def _serving(http: httpx.Client, settings: PlatformSettings, model: RegisteredModel) -> str:
    answer = http.get(f"{settings.api_url}/models/{model.name}")
    wanted = model.aliases[PRODUCTION]
    if not answer.is_success:
        raise CheckFailed(
            f"the API answers {answer.status_code}: {answer.text[:200]}", "wait for its next poll, or see its log"
        )
    info = answer.json()
    if info["version"] != wanted:
        failure = info.get("last_failure") or {}
        reason = failure.get("reason") or "it has not polled since"
        raise CheckFailed(
            f"the API serves version {info['version']}, in production is {wanted}: {reason}",
            "wait for its next poll, or see its log; MLFLOW_TRACKING_URI of the API must be this MLflow",
        )
    return f"the API serves version {wanted}"


def _prediction(http: httpx.Client, settings: PlatformSettings, name: str, bundle: Bundle) -> str:
    answer = http.post(f"{settings.api_url}/models/{name}/predict", json=bundle.example)
    if not answer.is_success:
        raise CheckFailed(
            f"the API answers {answer.status_code} to the model's example: {answer.text[:200]}", "see its log"
        )
    said = answer.json()["prediction"]
    difference = example_difference(bundle, said)
    if difference:
        raise CheckFailed(f"the API's answer is not the estimator's: {difference}", f"run `mlops rollback {name}`")
    return f"{said} for the model's example, as the estimator says"
