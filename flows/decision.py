"""How a training gets the decision about its version: from the flow `promote`.

On Kubernetes that is a flow run of its own, whose Job has the account that may move `production`, as the training's has
not. Elsewhere, as in `make demo`, there is one account for all, and the flow runs within the training.
"""

from __future__ import annotations

from typing import Any, cast

from prefect import get_run_logger
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from app.clients.mlflow import MlflowClient
from app.registry.ledger import Decision
from app.registry.promotion import history
from flows.promote import promote
from flows.settings import FlowSettings

POLL_SECONDS = 1.0
RECENT = 50  # how many of the ledger's newest decisions are looked through


class UndecidedError(Exception):
    """The version is registered, and whatever was to decide about it failed."""


def decision_about(
    model: str, version: str, run_id: str, *, who: str, why: str, cause: str, only_if_better: bool
) -> Decision | None:
    """Ask for the promotion of a version, and wait for the decision.

    Args:
        run_id: of MLflow, that the version was made of: asked twice for it, Prefect makes one flow run.
        who, why, cause, only_if_better: as `app.registry.promotion.promote` takes them.

    Returns:
        the decision; None where it was still waited for after MLOPS_DECISION_SECONDS, which is logged.

    Raises:
        UndecidedError: there is no such deployment, or its flow run ended without a decision.
        MlflowError: MLflow does not answer.
    """
    settings = FlowSettings()
    parameters: dict[str, Any] = {
        "model": model,
        "version": version,
        "who": who,
        "why": why,
        "cause": cause,
        "only_if_better": only_if_better,
    }
    if not settings.promotion_deployment:
        return Decision(**promote(**parameters))
    # the parameters and nothing else, as that is all a training may ask for
    try:
        asked = run_deployment(
            settings.promotion_deployment,
            parameters=parameters,
            timeout=settings.decision_seconds,
            poll_interval=POLL_SECONDS,
            idempotency_key=f"promote-{run_id}",
        )
    except ObjectNotFound as error:
        raise UndecidedError(
            f"version {version} of {model} is registered and not decided about: Prefect has no deployment "
            f"{settings.promotion_deployment}. The worker makes it when it starts: restart it, and ask again with "
            f"`prefect deployment run {settings.promotion_deployment} -p model={model}`"
        ) from error
    run = cast(FlowRun, asked)  # outside of an event loop
    return _outcome(run, model, version, settings)


def _outcome(run: FlowRun, model: str, version: str, settings: FlowSettings) -> Decision | None:
    """What came of a run of the flow `promote`; the ledger has it, as one Job cannot read the result of another."""
    state, log = run.state, get_run_logger()
    if state is None or not state.is_final():
        log.warning(
            "version %s of %s: not decided after %.0f s: the flow run %s is %s and goes on without this one",
            *(version, model, settings.decision_seconds, run.name, state.name if state else "unknown"),
        )
        return None
    if not state.is_completed():
        raise UndecidedError(
            f"version {version} of {model} is registered and not decided about: the flow run {run.name} ended as "
            f"{state.name}: {state.message}. Ask again with `prefect deployment run {settings.promotion_deployment} "
            f"-p model={model} -p version='\"{version}\"'`"
        )
    with MlflowClient(retry_for=settings.retry_seconds) as registry:
        decisions = history(registry, model, RECENT)
    decision = next((d for d in decisions if (d.version, d.action) == (version, "promote")), None)
    if decision is None:
        raise UndecidedError(
            f"the flow run {run.name} has ended, and the ledger has no decision about version {version} of {model}"
        )
    log.info("version %s of %s: %s: %s", version, model, decision.outcome, decision.reason)
    return decision
