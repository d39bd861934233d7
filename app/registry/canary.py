"""The canary: a version that passed the gate and answers a share of the requests, while production answers the others.

The registered model's tag CANARY_TAG names the version and the share, which the API reads with the aliases, in one
request. On Kubernetes only the account of the gate can set it.
"""

from __future__ import annotations

from dataclasses import replace

from app.clients.mlflow import PRODUCTION, MlflowClient, MlflowError, RegisteredModel
from app.registry.ledger import Decision, Ledger, Move

CANARY_TAG = "mlops.canary"  # "VERSION SHARE", such as "7 0.1"; "" where there is none


def check_canary(model: str, version: str, share: float, current: str | None) -> None:
    """Whether the version can be a canary.

    Args:
        share: of the requests, above 0 and below 1.
        current: the version in production.

    Raises:
        ValueError: the share is none.
        MlflowError: the version is in production, or nothing is.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share {share:g} is not above 0 and below 1")
    if current is None:
        raise MlflowError(
            f"{model} has no version in production that answers the other requests: `mlops promote {model}` without a "
            "canary"
        )
    if current == version:
        raise MlflowError(
            f"version {version} of {model} is in production and cannot be its own canary: name another one, "
            f"`mlops promote {model} --version VERSION --canary {share:g}`"
        )


def start(ledger: Ledger, moves: list[Move], decision: Decision, share: float) -> Decision:
    """Record the decision and let the version answer a share of the requests, unless production was moved meanwhile.

    Args:
        moves: the ledger's sequence as it was when the decision was made.
        share: as `check_canary` takes it.

    Returns:
        the decision with its run id; refused by the check `concurrent` when production was moved after `moves`.

    Raises:
        MlflowError: MLflow does not answer.
    """
    decision = ledger.record(decision)
    ledger.registry.set_model_tag(ledger.model, CANARY_TAG, f"{decision.version} {share}")
    # only now: whoever moves production ends the canary afterwards, and may have looked before there was this one
    later = ledger.moves()[len(moves) :]
    if not later:
        return decision
    forget(ledger.registry, ledger.model)
    reason = (
        f"production was moved from version {decision.previous} to version {later[-1].version} while this was checked; "
        "run it again to be measured against that"
    )
    return ledger.amend(replace(decision, outcome="refused", check="concurrent", reason=reason))


def end(registry: MlflowClient, model: str, *, who: str, why: str = "", cause: str = "") -> Decision:
    """Let production answer all requests again.

    Args:
        who, why, cause: for the ledger.

    Returns:
        the decision.

    Raises:
        NotFound: no such model.
        MlflowError: it has no canary; or MLflow does not answer.
    """
    ledger = Ledger(registry, model)
    registered = registry.model(model)
    found = canary_of(registered)
    if found is None:
        raise MlflowError(f"{model} has no canary: `mlops promote {model} --version VERSION --canary 0.1` starts one")
    version, share = found
    forget(registry, model)  # first: that it answers nothing more matters most
    current = registered.aliases[PRODUCTION]
    return ledger.record(
        Decision(
            model=model,
            version=version,
            previous=current,
            action="canary",
            outcome="ended",
            check="",
            reason=f"version {current} answers the share of {share:g} again",
            who=who,
            why=why,
            cause=cause,
        )
    )


def forget(registry: MlflowClient, model: str) -> None:
    """Let there be no canary, without an entry in the ledger: the decision that this comes of is one.

    Raises:
        NotFound: no such model.
        MlflowError: MLflow does not answer.
    """
    if registry.model(model).tags.get(CANARY_TAG):
        registry.set_model_tag(model, CANARY_TAG, "")


def canary_of(model: RegisteredModel) -> tuple[str, float] | None:
    """The canary's version and its share; None where there is none, or the tag is no such."""
    version, _, text = model.tags.get(CANARY_TAG, "").partition(" ")
    try:
        share = float(text)
    except ValueError:
        return None
    if not version.isdecimal() or not 0 < share < 1 or model.aliases.get(PRODUCTION) in (None, version):
        return None
    return version, share
