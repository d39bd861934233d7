"""The challenger in the shadow: which version is to predict copies of production's rows, and of how many.

The alias `challenger` is its, while there is one; otherwise that of the version that the gate checked last. So the
alias alone starts nothing: the registered model's tag SHADOW_TAG names the version and the share, which the API reads
with the aliases, in one request. Begin and end are decisions in the promotion ledger.
"""

from __future__ import annotations

from app.clients.mlflow import CHALLENGER, PRODUCTION, MlflowClient, MlflowError, RegisteredModel
from app.registry import shadow_record
from app.registry.bundle import Bundle
from app.registry.ledger import Decision, Ledger, adopt_model
from app.vocabulary import Outcome

SHADOW_TAG = "mlops.shadow"  # "VERSION SHARE", such as "7 0.5"


def challenge(
    registry: MlflowClient, model: str, version: str, share: float, *, who: str = "", why: str = "", cause: str = ""
) -> None:
    """Let a version predict copies of production's rows; does nothing where it does so already.

    Args:
        share: of the rows, above 0 and at most 1.
        who, why, cause: for the ledger.

    Raises:
        ValueError: the share is none.
        NotFound: there is no such model or version.
        MlflowError: the version is in production, or nothing is; or MLflow does not answer.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share {share:g} is not above 0 and at most 1")
    registry.version(model, version)
    registered = adopt_model(registry, model)
    current, before = registered.aliases.get(PRODUCTION), shadow_of(registered)
    if current is None:
        raise MlflowError(f"{model} has no version in production to compare with: `mlops promote {model}`")
    if current == version:
        raise MlflowError(f"version {version} of {model} is in production: name another one")
    text = f"{share:g}"
    if before == (version, float(text)):
        return
    reason = f"it predicts a share of {text} of the rows of version {current}, in the shadow"
    if before and before[0] != version:
        reason += f", in place of version {before[0]}"
    _record(registry, model, version, current, "started", reason, who=who, why=why, cause=cause)
    registry.set_model_tag(model, SHADOW_TAG, f"{version} {text}")
    registry.set_alias(model, CHALLENGER, version)


def end_challenge(registry: MlflowClient, model: str, *, who: str = "", why: str = "") -> None:
    """Let no version of the model predict in the shadow any more.

    Args:
        who, why: for the ledger.

    Raises:
        NotFound: there is no such model.
        MlflowError: MLflow does not answer.
    """
    registered = adopt_model(registry, model)
    shadow, current = shadow_of(registered), registered.aliases.get(PRODUCTION)
    if shadow and current:
        counts = shadow_record.read(registry, model, shadow[0], current)
        disagreement = counts.disagreement
        reason = f"it got {counts.rows} rows in the shadow of version {current}, as far as they are stored"
        if disagreement is not None:
            reason += f", and disagreed on {disagreement:.2%} of them"
        _record(registry, model, shadow[0], current, "ended", reason, who=who, why=why, metrics=counts.metrics)
    registry.set_model_tag(model, SHADOW_TAG, "")
    registry.delete_alias(model, CHALLENGER)


def take_alias(registry: MlflowClient, model: str, version: str) -> None:
    """Give the alias to a version that is checked, unless there is a challenger in the shadow: that one goes on.

    Raises:
        NotFound: there is no such model or version.
        MlflowError: MLflow does not answer.
    """
    registered = registry.model(model)
    if shadow_of(registered):
        return
    if registered.tags.get(SHADOW_TAG):  # of a challenge that a promotion has ended: this one must not go on with it
        registry.set_model_tag(model, SHADOW_TAG, "")
    registry.set_alias(model, CHALLENGER, version)


def _record(
    registry: MlflowClient,
    model: str,
    version: str,
    current: str,
    outcome: Outcome,
    reason: str,
    *,
    who: str,
    why: str,
    cause: str = "",
    metrics: dict[str, float] | None = None,
) -> None:
    """Enter the begin or the end of a challenge in the ledger."""
    Ledger(registry, model).record(
        Decision(
            model=model,
            version=version,
            previous=current,
            action="challenge",
            outcome=outcome,
            check="",
            reason=reason,
            metrics=metrics or {},
            who=who,
            why=why,
            cause=cause,
        )
    )


def shadow_of(model: RegisteredModel) -> tuple[str, float] | None:
    """The version that is to predict in the shadow, and its share; None where there is none, or the tag is no such."""
    version, _, text = model.tags.get(SHADOW_TAG, "").partition(" ")
    try:
        share = float(text)
    except ValueError:
        return None
    aliases = model.aliases
    if not 0 < share <= 1 or aliases.get(CHALLENGER) != version or aliases.get(PRODUCTION, version) == version:
        return None
    return version, share


def why_not_comparable(challenger: Bundle, production: Bundle) -> str:
    """Why rows of production's requests cannot be given to the challenger; "" where they can."""
    if (challenger.task, challenger.target) != (production.task, production.target):
        return f"it predicts {challenger.target!r} ({challenger.task}), production {production.target!r}"
    own, other = ([f"{f.name} ({f.dtype})" for f in bundle.features] for bundle in (challenger, production))
    if own != other:
        return f"its features are {', '.join(own)}; production's are {', '.join(other)}, in this order"
    return ""
