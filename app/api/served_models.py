"""The models in service, as requests find them. `app.api.following` changes them, whole, between two requests."""

from __future__ import annotations

import logging
from dataclasses import replace

from app.api.canary import Canary
from app.api.errors import RETRY_AFTER, Refusal, invalid
from app.api.metrics import Metrics
from app.api.served_model import ServedModel
from app.api.shadow import Shadow
from app.contract.status import LoadFailure, MlflowStatus
from app.vocabulary import Label

log = logging.getLogger("mlops.models")


class ServedModels:
    """The served models by name, the versions that could not be loaded, and how MLflow is.

    `current` and `failures` are replaced as a whole, so that whoever has read one sees no half-made change.

    Args:
        metrics: is told of every change.
        default_model: what requests without a name mean; "" for the only one there is.
    """

    def __init__(self, metrics: Metrics, default_model: str = "") -> None:
        self.metrics, self.default_model = metrics, default_model
        self.current: dict[str, ServedModel] = {}
        self.failures: dict[str, LoadFailure] = {}
        self.challenger_failures: dict[str, LoadFailure] = {}
        self.mlflow = MlflowStatus(ok=False, error="not asked yet", checked_at="")
        self.generation = 0  # grows with each change

    # -- what requests ask ---------------------------------------------------------------------------------------

    def get(self, name: str | None = None) -> ServedModel:
        """The model of a request, the default one where it names none.

        Raises:
            Refusal: 503 nothing to serve, 404 unknown name, 422 no name among several.
        """
        current = self.current
        if name is None:
            return self._require_default(current)
        served = current.get(name)
        if served:
            return served
        if name in self.failures or not current:
            raise Refusal(503, self.why_unavailable(name), RETRY_AFTER)
        raise Refusal(404, f"there is no model {name!r}; served are: {', '.join(sorted(current))}")

    def version(self, name: str, version: str) -> ServedModel | None:
        """This version of a model, which is in production or its canary; None where it is neither.

        Raises:
            Refusal: as `get`.
        """
        served = self.get(name)
        if served.version == version:
            return served
        canary = served.canary.answering if served.canary else None
        return canary if canary and canary.version == version else None

    def _require_default(self, current: dict[str, ServedModel]) -> ServedModel:
        served = self._find_default(current)
        if served:
            return served
        if current and not self.default_model:
            names = ", ".join(sorted(current))
            raise invalid(
                ("path",),
                f"several models are served ({names}): use /models/NAME/predict, or set MLOPS_DEFAULT_MODEL",
                "model_ambiguous",
            )
        raise Refusal(503, self.why_unavailable(self.default_model), RETRY_AFTER)

    def _find_default(self, current: dict[str, ServedModel]) -> ServedModel | None:
        if self.default_model:
            return current.get(self.default_model)
        return next(iter(current.values())) if len(current) == 1 else None

    @property
    def default(self) -> ServedModel | None:
        """The default model, where it is loaded."""
        return self._find_default(self.current)

    @property
    def ready(self) -> bool:
        """Whether the default model (any, where there is no default) is loaded."""
        current = self.current
        return self.default_model in current if self.default_model else bool(current)

    def why_unavailable(self, name: str = "") -> str:
        """Why there is nothing to serve under this name (under any name for ""), and what to do."""
        failures = self.failures
        if not name and failures:
            name = sorted(failures)[0]
        failure = failures.get(name)
        if failure:
            return (
                f"version {failure.version} of {name} is in production but cannot be loaded: {failure.reason}. "
                f"Promote another one: `mlops promote {name} --version VERSION`"
            )
        if not self.mlflow.ok:
            return f"no model is loaded yet, and MLflow cannot be asked: {self.mlflow.error}"
        if name:
            return f"{name} is not in production yet: run `mlops train {name}`, which promotes what it trains"
        return "no model is in production yet: run `mlops train MODEL`, which promotes what it trains"

    def classes(self, name: str, version: str) -> tuple[Label, ...]:
        """The labels that a prediction of this version may turn out to have: its own classes, and today's."""
        meter, served = self.metrics.find(name, version), self.current.get(name)
        own = meter.classes if meter else ()
        return (*own, *(label for label in (served.bundle.classes if served else ()) if label not in own))

    # -- what following MLflow changes ---------------------------------------------------------------------------

    def install(self, served: ServedModel) -> None:
        """Serve this version from now on."""
        before = self.current.get(served.name)
        self._end_shadow(served.name)
        self.metrics.info = {
            **self.metrics.info,
            served.name: (served.version, served.run_id, served.bundle.serving),
        }
        self.current = {**self.current, served.name: served}
        self.generation += 1
        if before and (before.version, before.bundle.sha256) == (served.version, served.bundle.sha256):
            log.info("version %s of %s was confirmed by MLflow", served.version, served.name)
        else:
            self.metrics.swaps.labels(served.name).inc()
            instead = f"instead of version {before.version}" if before else "as the first"
            log.info("version %s of %s is in service %s", served.version, served.name, instead)

    def withdraw(self, name: str) -> None:
        """Serve nothing under this name any more."""
        self.clear_failure(name)
        self.clear_challenger_failure(name)
        self._end_shadow(name)
        self._forget_canary(name)
        served = self.current.get(name)
        if served:
            self.current = {k: v for k, v in self.current.items() if k != name}
            self.metrics.info = {k: v for k, v in self.metrics.info.items() if k != name}
            self.generation += 1
            log.warning("%s is not in production any more: version %s was taken out", name, served.version)

    def record_failure(self, name: str, failure: LoadFailure, kind: str) -> None:
        """Remember that a version stays out. kind: download, checksum, load or golden."""
        self.failures = {**self.failures, name: failure}
        self.metrics.failures.labels(name, failure.version, kind).inc()
        served = self.current.get(name)
        instead = f"version {served.version} stays in service" if served else "nothing is served under this name"
        log.error("version %s of %s stays out (%s); %s", failure.version, name, failure.reason, instead)

    def clear_failure(self, name: str) -> None:
        """Forget the model's failure: what is in production is in service, or nothing is in production."""
        if name in self.failures:
            self.failures = {k: v for k, v in self.failures.items() if k != name}

    # -- the challenger beside it ----------------------------------------------------------------------------------

    def challenge(self, name: str, shadow: Shadow | None) -> None:
        """Copy rows of the model in service to this challenger from now on, or to none."""
        served = self.current[name]
        before = served.shadow
        if before is None and shadow is None:
            return
        self._end_shadow(name)
        self.current = {**self.current, name: replace(served, shadow=shadow)}
        if shadow:
            self.metrics.shadows = {**self.metrics.shadows, name: shadow}
            shadow.start()
            log.info("version %s of %s is the challenger, of a share of %g", shadow.version, name, shadow.share)
        elif before:
            log.info("version %s of %s is no challenger any more", before.version, name)

    def record_challenger_failure(self, name: str, failure: LoadFailure) -> None:
        """Remember that a challenger stays out."""
        self.challenger_failures = {**self.challenger_failures, name: failure}
        self.metrics.challenger_failures.labels(name, failure.version).inc()
        log.error("the challenger, version %s of %s, stays out (%s)", failure.version, name, failure.reason)

    def clear_challenger_failure(self, name: str) -> None:
        """Forget the failure: the challenger is loaded, or there is none."""
        if name in self.challenger_failures:
            self.challenger_failures = {k: v for k, v in self.challenger_failures.items() if k != name}

    # -- the canary beside it --------------------------------------------------------------------------------------

    def set_canary(self, name: str, canary: Canary | None) -> None:
        """Let this canary answer its share of the requests from now on, or none."""
        served = self.current.get(name)
        if served is None:
            return
        beside = canary if canary and canary.served else None
        if served.canary is not beside:  # also where production was swapped under it
            self.current = {**self.current, name: replace(served, canary=beside)}
        before = self.metrics.canaries.get(name)
        if before is canary:
            return
        self._forget_canary(name)
        if canary is None:
            log.info("%s has no canary any more", name)
            return
        self.metrics.canaries = {**self.metrics.canaries, name: canary}
        if canary.returned:
            log.error("the canary, version %s of %s, stays out (%s)", canary.version, name, canary.returned)
        else:
            log.info("version %s of %s is the canary, of a share of %g", canary.version, name, canary.share)

    def _forget_canary(self, name: str) -> None:
        if name in self.metrics.canaries:
            self.metrics.canaries = {k: v for k, v in self.metrics.canaries.items() if k != name}

    def _end_shadow(self, name: str) -> None:
        shadow = self.metrics.shadows.get(name)
        if shadow:
            shadow.stop()
            self.metrics.shadows = {k: v for k, v in self.metrics.shadows.items() if k != name}
