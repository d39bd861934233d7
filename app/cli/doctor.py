"""`mlops doctor`: every service, and the loop between them; what is wrong and what to do about it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from app.cli.errors import CommandError
from app.clients.errors import ServiceError, sentence
from app.clients.kubernetes import KubernetesClient, StuckContainer
from app.clients.mlflow import PRODUCTION, MlflowClient, MlflowError, RegisteredModel
from app.clients.model_api import ModelApiClient
from app.clients.prefect import PrefectClient
from app.registry.bundle import Bundle, BundleError, fetch_bundle
from app.registry.ledger import PROMOTIONS_EXPERIMENT, Ledger
from app.registry.predictor import example_difference, load_predictor
from app.runtime.settings import PlatformSettings
from app.vocabulary import TRAIN_FLOW
from flows.catalog import load_models


@dataclass(frozen=True)
class Finding:
    """The result of one check; `cure` is what to do when it is not ok."""

    check: str
    ok: bool
    detail: str
    cure: str = ""


def examine(settings: PlatformSettings, model: str = "") -> Iterator[Finding]:
    """Run all checks, in the order of the loop; what depends on a service that is down is not tried.

    Args:
        model: only this model; by default all that are registered.
    """
    with (
        MlflowClient(timeout=settings.timeout) as registry,
        PrefectClient(timeout=settings.timeout) as prefect,
        ModelApiClient(settings.api_url, settings.timeout, key=settings.api_key) as api,
    ):
        mlflow_finding = _run("mlflow", lambda: _mlflow(registry))
        prefect_finding = _run("prefect", lambda: f"Prefect {prefect.version()} at {prefect.url}")
        api_finding = _run("api", lambda: _api(api))
        yield from (mlflow_finding, prefect_finding, api_finding)
        yield _run("pages", lambda: _pages(settings))
        yield _run("model files", _model_files)
        if not mlflow_finding.ok:
            return
        yield _run("artifact store", lambda: _artifact_store(registry))
        models: list[RegisteredModel] = []

        def registered() -> str:
            models.extend(_models(registry, model))
            return ", ".join(item.name for item in models)

        yield _run("models", registered)
        for item in models:
            if prefect_finding.ok:
                yield from _trainings(prefect, item.name)
            yield from _versions(registry, item, api if api_finding.ok else None)


def examine_pods(kubernetes: KubernetesClient) -> Iterator[Finding]:
    """Look for containers of an installation that cannot start: one finding for each, or one that there is none."""

    async def stuck() -> list[StuckContainer]:
        async with kubernetes:
            return await kubernetes.stuck_containers()

    try:
        found = asyncio.run(stuck())
    except ServiceError as error:
        yield Finding("pods", False, sentence(error.what), sentence(error.cure or "see `kubectl get pods`"))
        return
    if not found:
        yield Finding("pods", True, f"all containers in the namespace {kubernetes.namespace} have started")
    for container in found:
        detail = f"{container.pod}, container {container.name}: {container.reason}. {container.last_words}"
        cure = f"`kubectl -n {kubernetes.namespace} describe pod {container.pod}` says more"
        yield Finding("pods", False, detail.strip(), sentence(cure))


def _trainings(prefect: PrefectClient, model: str) -> Iterator[Finding]:
    yield _run(f"{model}: deployment", lambda: _deployment(prefect, model))
    yield _run(f"{model}: last training", lambda: _last_training(prefect, model))


def _versions(registry: MlflowClient, model: RegisteredModel, api: ModelApiClient | None) -> Iterator[Finding]:
    bundles: list[Bundle] = []

    def loaded() -> str:
        bundles.append(_bundle(registry, model))
        return f"version {model.aliases[PRODUCTION]}, served by {bundles[0].serving}"

    yield _run(f"{model.name}: ledger", lambda: _ledger(registry, model))
    production = _run(f"{model.name}: production", loaded)
    yield production
    if api and production.ok:
        serving = _run(f"{model.name}: serving", lambda: _serving(api, model))
        yield serving
        if serving.ok:
            yield _run(f"{model.name}: prediction", lambda: _prediction(api, model.name, bundles[0]))


def _run(name: str, check: Callable[[], str]) -> Finding:
    """The check's finding; what it raises is what is wrong."""
    try:
        return Finding(name, True, check())
    except (CommandError, ServiceError) as error:
        return Finding(name, False, sentence(error.what), sentence(error.cure or "see the service's log"))
    except MlflowError as error:
        return Finding(name, False, sentence(str(error)), "See MLflow's log.")
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        return Finding(name, False, sentence(f"{type(error).__name__}: {error}"), "See the service's log.")


def _mlflow(registry: MlflowClient) -> str:
    try:
        version = registry.server_version()
        registry.models()
    except MlflowError as error:
        raise CommandError(
            str(error), "start it with `make demo`, or set MLFLOW_TRACKING_URI to where it is"
        ) from error
    return f"MLflow {version} at {registry.uri}"


def _api(api: ModelApiClient) -> str:
    api.check_alive()
    return f"the model API answers at {api.url}"


def _pages(settings: PlatformSettings) -> str:
    url = f"{settings.ui_url}/_stcore/health"
    try:
        httpx.get(url, timeout=settings.timeout).raise_for_status()
    except httpx.HTTPError as error:
        raise CommandError(
            f"the page server at {url} does not answer: {error}", "start it with `make demo`, or set MLOPS_UI_URL"
        ) from error
    return f"the page server answers at {url}"


def _model_files() -> str:
    models, broken = load_models()
    if broken:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in broken.items())
        raise CommandError(
            f"{len(broken)} of {len(models) + len(broken)} cannot be used: {reasons}",
            "correct the file; until then the model is not deployed anew, all others are",
        )
    return ", ".join(model.name for model in models)


def _artifact_store(registry: MlflowClient) -> str:
    """Writes and reads back one small file: what training and feedback need."""
    experiment = registry.ensure_experiment(PROMOTIONS_EXPERIMENT)
    path, content = f"{experiment}/doctor", secrets.token_bytes(16)
    cure = "see MLflow's log; is its disk full, or was it started without --serve-artifacts?"
    try:
        registry.write_artifact(path, content)
        stored = registry.read_artifact(path)
    except MlflowError as error:
        raise CommandError(f"MLflow's artifact store cannot be written: {error}", cure) from error
    if stored != content:
        raise CommandError("MLflow's artifact store does not return what was written to it", cure)
    return "can be written and read"


def _models(registry: MlflowClient, name: str) -> list[RegisteredModel]:
    models = [model for model in registry.models() if name in ("", model.name)]
    if not models:
        missing = f"the model {name!r} is not registered" if name else "no model is registered"
        raise CommandError(missing, f"run `mlops train {name or 'MODEL'}`")
    return models


def _deployment(prefect: PrefectClient, model: str) -> str:
    name = f"{TRAIN_FLOW}/{model}"
    deployment = prefect.deployment(TRAIN_FLOW, model)
    if deployment is None:
        raise CommandError(
            f"Prefect has no deployment {name}",
            "check that the model's file is in flows/models: `python -m flows.serve` registers one for each",
        )
    if deployment.status != "READY":
        raise CommandError(
            f"nothing runs what is scheduled for {name}",
            "start `make demo`, or `python -m flows.serve`; on Kubernetes look at the worker's pod",
        )
    if deployment.paused:
        raise CommandError(f"the deployment {name} is paused", f"run `prefect deployment schedule resume {name}`")
    return f"{name} is ready"


def _last_training(prefect: PrefectClient, model: str) -> str:
    runs = prefect.runs(flow=TRAIN_FLOW, states=("COMPLETED", "FAILED", "CRASHED"), sort="END_TIME_DESC")
    last = next((run for run in runs if run.parameters.get("model") == model), None)
    if last is None:
        return "Prefect knows of none"
    if last.state != "COMPLETED":
        page = prefect.url.removesuffix("/api")
        raise CommandError(
            f"the run {last.name} {str(last.state).lower()}: {last.message or 'no message'}",
            f"see {page}/runs/flow-run/{last.id}",
        )
    return f"the run {last.name} completed at {last.ended:%Y-%m-%dT%H:%M:%S}"


def _ledger(registry: MlflowClient, model: RegisteredModel) -> str:
    moves = Ledger(registry, model.name).moves()
    alias, last = model.aliases.get(PRODUCTION), moves[-1].version if moves else None
    if alias != last or (moves and not moves[-1].applied):
        raise CommandError(
            f"the alias {PRODUCTION} is at version {alias or 'none'}, the promotion ledger says {last or 'none'}",
            f"the next `mlops promote {model.name}` or `mlops rollback {model.name}` settles it",
        )
    return f"{len(moves)} moves, the last to version {last}" if moves else "no promotion yet"


def _bundle(registry: MlflowClient, model: RegisteredModel) -> Bundle:
    version = model.aliases.get(PRODUCTION)
    if version is None:
        raise CommandError(
            "no version is in production",
            f"run `mlops promote {model.name}`; `mlops history {model.name}` says why none was promoted",
        )
    with TemporaryDirectory() as folder:  # not the cache: what MLflow holds is to be checked
        try:
            bundle = fetch_bundle(registry, registry.version(model.name, version), Path(folder))
            load_predictor(bundle)
        except (BundleError, MlflowError) as error:
            raise CommandError(
                f"version {version} cannot be loaded: {error}",
                f"run `mlops rollback {model.name}` or `mlops train {model.name}`",
            ) from error
    return bundle


def _serving(api: ModelApiClient, model: RegisteredModel) -> str:
    version = model.aliases[PRODUCTION]
    try:
        info = api.model(model.name)
    except ServiceError as error:
        raise CommandError(error.what, error.cure or "wait for its next poll, or see its log") from error
    if info.version != version:
        reason = info.last_failure.reason if info.last_failure else "it has not polled since"
        raise CommandError(
            f"the API serves version {info.version}, in production is {version}: {reason}",
            "wait for its next poll, or see its log; MLFLOW_TRACKING_URI of the API must be this MLflow",
        )
    return f"the API serves version {version}"


def _prediction(api: ModelApiClient, model: str, bundle: Bundle) -> str:
    prediction = api.predict(model, bundle.example).prediction
    difference = example_difference(bundle, prediction)
    if difference:
        raise CommandError(f"the API's answer is not the estimator's: {difference}", f"run `mlops rollback {model}`")
    return f"{prediction} for the model's example, as the estimator says"
