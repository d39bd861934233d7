"""The challenger in the shadow: which version is to predict copies of production's rows, and of how many.

The gate sets the alias `challenger` at every version that it checks. So the alias alone starts nothing: the registered
model's tag SHADOW_TAG names the version and the share, which the API reads with the aliases, in one request.
"""

from __future__ import annotations

from app.clients.mlflow import CHALLENGER, PRODUCTION, MlflowClient, MlflowError, RegisteredModel

SHADOW_TAG = "mlops.shadow"  # "VERSION SHARE", such as "7 0.5"


def challenge(registry: MlflowClient, model: str, version: str, share: float) -> None:
    """Let a version predict copies of production's rows.

    Args:
        share: of the rows, above 0 and at most 1.

    Raises:
        ValueError: the share is none.
        NotFound: there is no such model or version.
        MlflowError: the version is in production, or nothing is; or MLflow does not answer.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share {share:g} is not above 0 and at most 1")
    registry.version(model, version)
    current = registry.model(model).aliases.get(PRODUCTION)
    if current is None:
        raise MlflowError(f"{model} has no version in production to compare with: `mlops promote {model}`")
    if current == version:
        raise MlflowError(f"version {version} of {model} is in production: name another one")
    registry.set_model_tag(model, SHADOW_TAG, f"{version} {share:g}")
    registry.set_alias(model, CHALLENGER, version)


def end_challenge(registry: MlflowClient, model: str) -> None:
    """Let no version of the model predict in the shadow any more.

    Raises:
        NotFound: there is no such model.
        MlflowError: MLflow does not answer.
    """
    registry.model(model)
    registry.set_model_tag(model, SHADOW_TAG, "")
    registry.delete_alias(model, CHALLENGER)


def shadow_of(model: RegisteredModel) -> tuple[str, float] | None:
    """The version that is to predict in the shadow, and its share; None where there is none, or the tag is no such."""
    version, _, text = model.tags.get(SHADOW_TAG, "").partition(" ")
    try:
        share = float(text)
    except ValueError:
        return None
    aliases = model.aliases
    if not 0 < share <= 1 or aliases.get(CHALLENGER) != version or aliases.get(PRODUCTION) == version:
        return None
    return version, share
