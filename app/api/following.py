"""Follows MLflow: a thread asks for the aliases and brings what is in production into service."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from app.api.bundle_cache import BundleCache, CacheNote
from app.api.canary import Canary
from app.api.served_model import ServedModel, load_served_model
from app.api.served_models import ServedModels
from app.api.shadow import Shadow
from app.api.shadow_recorder import ShadowRecorder
from app.clients.mlflow import PRODUCTION, MlflowClient, MlflowError, RegisteredModel
from app.contract.status import LoadFailure, MlflowStatus
from app.registry.bundle import Bundle, BundleError, fetch_bundle
from app.registry.canary import canary_of
from app.registry.challenger import shadow_of, why_not_comparable
from app.registry.ledger import SEQUENCE_TAG
from app.registry.predictor import GoldenMismatch, load_predictor
from app.registry.shadow_record import Beside
from app.runtime.memory import give_back

MAX_BACKOFF = 300.0  # seconds
STOPPING = 5.0  # seconds that a stop waits for what the thread still does

log = logging.getLogger("mlops.models")


@dataclass(frozen=True)
class _Target:
    """A version to bring into service."""

    version: str
    incarnation: str


@dataclass(frozen=True)
class _Retry:
    """When a version that failed is tried again. not_before: of time.monotonic()."""

    target: _Target
    attempts: int
    not_before: float


class Follower:
    """Keeps `models` as MLflow's aliases say. A version that cannot be loaded stays out, the one before it stays in.

    Args:
        registry: MLflow.
        cache: where bundles are kept on disk.
        poll_seconds: between two looks at the aliases.
    """

    def __init__(
        self, models: ServedModels, registry: MlflowClient, cache: BundleCache, poll_seconds: float = 5.0
    ) -> None:
        self.models, self.registry, self.cache, self.poll_seconds = models, registry, cache, poll_seconds
        self._retries: dict[str, _Retry] = {}
        self._challenger_retries: dict[str, _Retry] = {}
        self._canary_retries: dict[str, _Retry] = {}
        self._recorder = ShadowRecorder(registry)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Serve what the cache holds, then follow MLflow in a thread."""
        self.load_cache()
        self._thread.start()

    def stop(self) -> None:
        """End the thread. A download under way may be left behind: it is not there until it is whole."""
        self._stop.set()
        for shadow in self.models.metrics.shadows.values():
            shadow.stop()
        if self._thread.is_alive():
            self._thread.join(timeout=STOPPING)

    def load_cache(self) -> None:
        """Serve the last good version of each model in the cache folder."""
        for name in self.cache.models():
            version, kind = "", "checksum"
            try:
                note = self.cache.note(name)
                version = note.version
                bundle = self.cache.read(note)
                kind = "load"
                self.models.install(self._load(name, version, note.run_id, bundle, note.incarnation))
            except Exception as error:  # a damaged cache is no reason not to start: MLflow has the version too
                self._fail(name, version, kind, error)

    def poll(self) -> None:
        """Ask MLflow once what is in production, and make it so."""
        status = self.models.mlflow
        try:
            registered = self.registry.models()
        except MlflowError as error:
            if status.ok or not status.checked_at:
                log.warning("MLflow cannot be asked, serving goes on with what is loaded: %s", error)
            self._set_status(False, str(error))
            return
        if not status.ok and status.checked_at:
            log.info("MLflow answers again")
        self._set_status(True, "")
        in_production = {model.name: model for model in registered if PRODUCTION in model.aliases}
        for name in [*self.models.current.keys() | self.models.failures.keys()]:
            if name not in in_production:
                self._withdraw(name)
        for name, model in in_production.items():
            if self._stop.is_set():
                return
            self._follow(name, _Target(model.aliases[PRODUCTION], model.tags.get(SEQUENCE_TAG, "")))
            self._follow_challenger(model)
            self._follow_canary(model)
        self._recorder.write()

    def _run(self) -> None:
        while not self._stop.is_set():
            generation = self.models.generation
            try:
                self.poll()
            except Exception:  # the thread is what brings new versions: it must outlive whatever this is
                log.exception("looking at MLflow's aliases failed")
            if self.models.generation != generation:
                give_back()  # what the versions before took
            self._stop.wait(self.poll_seconds)
        if self.models.mlflow.ok:
            self._recorder.write(now=True)

    def _set_status(self, ok: bool, error: str) -> None:
        self.models.mlflow = MlflowStatus(ok=ok, error=error, checked_at=_now())
        self.models.metrics.registry_up.set(int(ok))

    def _follow(self, name: str, target: _Target) -> None:
        served = self.models.current.get(name)
        if served and _Target(served.version, served.incarnation) == target:
            self._recover(name)
            return
        retry = _next_try(self._retries.get(name), target)
        if retry is None:
            return
        kind = "download"
        try:
            version = self.registry.version(name, target.version)
            kind = "checksum"
            bundle = fetch_bundle(self.registry, version, self.cache.folder)
            kind = "load"
            served = self._load(name, target.version, version.run_id, bundle, target.incarnation)
            self._recover(name)  # before it is in service: nobody sees the failure of a version beside a later one
            self.models.install(served)
            self._remember(served)
        except Exception as error:  # whatever is wrong with this version, the others are followed on
            self._fail(name, target.version, "download" if isinstance(error, MlflowError | OSError) else kind, error)
            self._retries[name] = self._later(retry)

    def _follow_challenger(self, model: RegisteredModel) -> None:
        """Bring the challenger beside what is in service, or take it away. It never touches what is in service."""
        name, wanted = model.name, shadow_of(model)
        served = self.models.current.get(name)
        if served is None:
            return
        if wanted is None:
            self._challenger_retries.pop(name, None)
            self.models.clear_challenger_failure(name)
            self.models.challenge(name, None)
            return
        number, share = wanted
        if served.shadow and (served.shadow.version, served.shadow.share) == wanted:
            return
        # another production or share is tried at once
        target = _Target(number, f"{served.version} {served.incarnation} {share:g}")
        retry = _next_try(self._challenger_retries.get(name), target)
        if retry is None:
            return
        try:
            bundle = fetch_bundle(self.registry, self.registry.version(name, number), self.cache.folder)
            different = why_not_comparable(bundle, served.bundle)
            if different:
                raise BundleError(f"{different}: train it with production's features")
            shadow = Shadow(name, number, bundle, load_predictor(bundle), share, served.bundle)
        except Exception as error:  # whatever is wrong with it, production is followed on
            text = str(error) if isinstance(error, BundleError | MlflowError) else f"{type(error).__name__}: {error}"
            self.models.challenge(name, None)
            self.models.record_challenger_failure(name, LoadFailure(version=number, reason=text, at=_now()))
            self._challenger_retries[name] = self._later(retry)
        else:
            self._challenger_retries.pop(name, None)
            self.models.clear_challenger_failure(name)
            self.models.challenge(name, shadow)
            self._recorder.follow(shadow, Beside(name, number, served.version, served.incarnation))

    def _follow_canary(self, model: RegisteredModel) -> None:
        """Bring the canary beside what is in service, or take it away. What is in service stays."""
        name, wanted = model.name, canary_of(model)
        served = self.models.current.get(name)
        if served is None:
            return
        if wanted is None:
            self._canary_retries.pop(name, None)
            self.models.set_canary(name, None)
            return
        number, share = wanted
        before = self.models.metrics.canaries.get(name)
        if before and _is_canary(before, number, share, served):
            self.models.set_canary(name, before)  # production may have been swapped under it
            return
        # another production or share is tried at once
        target = _Target(number, f"{served.version} {served.incarnation} {share:g}")
        retry = _next_try(self._canary_retries.get(name), target)
        if retry is None:
            return
        try:
            version = self.registry.version(name, number)
            bundle = fetch_bundle(self.registry, version, self.cache.folder)
            different = why_not_comparable(bundle, served.bundle)
            if different:
                raise BundleError(f"{different}: train it with production's features")
            canary = Canary(name, number, share, self._load(name, number, version.run_id, bundle, served.incarnation))
        except Exception as error:  # whatever is wrong with it, production is followed on
            text = str(error) if isinstance(error, BundleError | MlflowError) else f"{type(error).__name__}: {error}"
            canary = Canary(name, number, share, None, f"it cannot be loaded: {text}")
            self._canary_retries[name] = self._later(retry)
        else:
            self._canary_retries.pop(name, None)
        self.models.set_canary(name, canary)

    def _later(self, retry: _Retry) -> _Retry:
        """When a version that failed once more is tried again."""
        delay = min(MAX_BACKOFF, max(self.poll_seconds, 1.0) * 2**retry.attempts)
        return _Retry(retry.target, min(retry.attempts + 1, 16), time.monotonic() + delay)

    def _load(self, name: str, version: str, run_id: str, bundle: Bundle, incarnation: str) -> ServedModel:
        return load_served_model(name, version, run_id, bundle, self.models.metrics, incarnation, _now())

    def _remember(self, served: ServedModel) -> None:
        bundle = served.bundle
        try:
            self.cache.remember(
                CacheNote(
                    served.name, served.version, served.run_id, bundle.sha256, bundle.path.name, served.incarnation
                )
            )
        except OSError as error:
            folder = self.cache.folder
            log.warning("the cache %s cannot be written, a restart will need MLflow: %s", folder, error)

    def _fail(self, name: str, version: str, kind: str, error: Exception) -> None:
        if isinstance(error, GoldenMismatch):
            kind = "golden"
        text = str(error) if isinstance(error, BundleError | MlflowError) else f"{type(error).__name__}: {error}"
        self.models.record_failure(name, LoadFailure(version=version, reason=f"{kind}: {text}", at=_now()), kind)

    def _recover(self, name: str) -> None:
        self._retries.pop(name, None)
        self.models.clear_failure(name)

    def _withdraw(self, name: str) -> None:
        self._retries.pop(name, None)
        self.cache.forget(name)
        self.models.withdraw(name)


def _next_try(retry: _Retry | None, target: _Target) -> _Retry | None:
    """The try of a version that is due, the first where it was not tried yet; None where it is too early."""
    if retry is None or retry.target != target:
        return _Retry(target, 0, 0.0)
    return None if time.monotonic() < retry.not_before else retry


def _is_canary(canary: Canary, number: str, share: float, production: ServedModel) -> bool:
    """Whether a loaded canary, returned or not, is this version with this share, and fits what is in production."""
    served = canary.served
    return (
        served is not None
        and (canary.version, canary.share, served.incarnation) == (number, share, production.incarnation)
        and not why_not_comparable(served.bundle, production.bundle)
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
