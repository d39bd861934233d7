"""The models in service: a thread follows MLflow's aliases and swaps verified versions in, whole, between requests."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.api.errors import Refusal, invalid
from app.api.metrics import Meter, Metrics
from app.api.schema import RowSchema
from app.clients.mlflow import PRODUCTION, MlflowClient, MlflowError
from app.registry.bundle import Bundle, BundleError, fetch_bundle, read_bundle
from app.registry.ledger import SEQUENCE_TAG
from app.registry.predictor import GoldenMismatch, Predictions, Predictor, load_predictor

CURRENT = "current.json"
KEPT_BUNDLES = 3  # per model, on disk
MAX_BACKOFF = 300.0
STALE_DOWNLOAD = 3600.0
_BUNDLE_FOLDER = re.compile(r"\d+-[0-9a-f]{16}")

log = logging.getLogger("mlops.models")


class NoAnswer(Exception):
    """The model has no answer for these values."""


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Failure:
    """A version that stayed out. `kind` is download, checksum, load or golden."""

    version: str
    kind: str
    reason: str
    at: str


@dataclass(frozen=True, slots=True)
class RegistryState:
    """MLflow as it was found at the last look."""

    ok: bool
    error: str
    checked_at: str


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A version in service. A request takes one of these and uses it from begin to end."""

    name: str
    version: str
    run_id: str
    bundle: Bundle
    predictor: Predictor
    meter: Meter
    schema: RowSchema
    loaded_at: str
    incarnation: str  # of the registered model; deleted and made anew, it counts its versions from 1 again
    digits: Callable[[float], float]
    classes: dict[Any, Any] = field(default_factory=dict)

    @property
    def is_classifier(self) -> bool:
        return self.bundle.task == "classification"

    @property
    def in_thread(self) -> bool:
        """Whether one row takes milliseconds, which the event loop cannot wait for."""
        return self.bundle.serving != "onnx"

    def predict(self, rows: Sequence[Sequence[Any]]) -> Predictions:
        """Labels or values, and probabilities, of rows in the signature's order.

        Raises:
            NoAnswer: the model fails on these values, or answers something infinite.
        """
        try:
            said = self.predictor.predict(rows)
        except Exception as error:  # whatever an estimator raises on values it does not know
            text = str(error).strip().splitlines()
            raise NoAnswer(f"{type(error).__name__}: {text[0][:300] if text else ''}") from error
        if self.is_classifier:
            labels = [self.classes.get(label, label) for label in said.labels]
            if said.probabilities is None:
                return Predictions(labels, None)
            digits = self.digits
            probabilities = [[digits(p) for p in row] for row in said.probabilities]
            if not math.isfinite(sum(map(sum, probabilities))):
                raise NoAnswer("a probability is not a finite number; a value is far out of the model's range")
            return Predictions(labels, probabilities)
        values = [self.digits(value) for value in said.labels]
        if not all(map(math.isfinite, values)):
            raise NoAnswer("the prediction is not a finite number; a value is far out of the model's range")
        return Predictions(values, None)


def _seven_digits(value: float) -> float:
    """What a float32 holds: 0.99, not 0.9900000095367432."""
    return float(f"{value:.7g}")


class ServedModels:
    """The served models by name.

    `current` is replaced as a whole, so that whoever has read it once sees no half-made change.

    Args:
        registry: MLflow.
        cache: folder of the verified bundles.
        default_model: what requests without a name mean; "" for the only one there is.
        poll_seconds: between two looks at the aliases.
    """

    def __init__(
        self, registry: MlflowClient, metrics: Metrics, cache: Path, default_model: str = "", poll_seconds: float = 5.0
    ) -> None:
        self.registry, self.metrics, self.cache = registry, metrics, cache
        self.default_model, self.poll_seconds = default_model, poll_seconds
        self.current: dict[str, ServedModel] = {}
        self.failures: dict[str, Failure] = {}
        self.registry_state = RegistryState(False, "not asked yet", "")
        self.generation = 0  # grows with each change
        self._retries: dict[str, tuple[tuple[str, str], int, float]] = {}  # model -> what, attempts, not before
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Serve what the cache holds, then follow MLflow in a thread."""
        self.load_cache()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)  # a download under way may be left behind: it is not there until it is whole

    # -- what requests ask ---------------------------------------------------------------------------------------

    def get(self, name: str | None = None) -> ServedModel:
        """The model of a request, the default one where it names none.

        Raises:
            Refusal: 503 nothing to serve, 404 unknown name, 422 no name among several.
        """
        current = self.current
        if name is None:
            if self.default_model:
                served = current.get(self.default_model)
            elif len(current) == 1:
                return next(iter(current.values()))
            else:
                served = None
            if served:
                return served
            if current and not self.default_model:
                names = ", ".join(sorted(current))
                raise invalid(
                    ("path",),
                    f"several models are served ({names}): use /models/NAME/predict, or set MLOPS_DEFAULT_MODEL",
                    "model_ambiguous",
                )
            raise Refusal(503, self.reason_for_nothing(self.default_model), {"Retry-After": "5"})
        served = current.get(name)
        if served:
            return served
        if name in self.failures or not current:
            raise Refusal(503, self.reason_for_nothing(name), {"Retry-After": "5"})
        raise Refusal(404, f"there is no model {name!r}; served are: {', '.join(sorted(current))}")

    def reason_for_nothing(self, name: str = "") -> str:
        """Why there is nothing to serve under this name (under any name for ""), and what to do."""
        failures = self.failures
        if not name and failures:
            name = sorted(failures)[0]
        failure = failures.get(name)
        if failure:
            return (
                f"version {failure.version} of {name} is in production but cannot be loaded: {failure.reason}. "
                f"Promote another one: `mlops promote {name} VERSION`"
            )
        if not self.registry_state.ok:
            return f"no model is loaded yet, and MLflow cannot be asked: {self.registry_state.error}"
        if name:
            return f"{name} is not in production yet: run `mlops train {name}`, which promotes what it trains"
        return "no model is in production yet: run `mlops train MODEL`, which promotes what it trains"

    @property
    def default(self) -> ServedModel | None:
        """The default model, where it is loaded."""
        current = self.current
        if self.default_model:
            return current.get(self.default_model)
        return next(iter(current.values())) if len(current) == 1 else None

    @property
    def ready(self) -> bool:
        """Whether the default model (any, where there is no default) is loaded."""
        current = self.current
        return self.default_model in current if self.default_model else bool(current)

    def classes(self, name: str, version: str) -> tuple[Any, ...]:
        """The labels that a prediction of this version may turn out to have: its own classes, and today's."""
        meter, served = self.metrics.find(name, version), self.current.get(name)
        own = meter.classes if meter else ()
        return (*own, *(c for c in (served.bundle.classes if served else ()) if c not in own))

    # -- following MLflow ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.poll()
            except Exception:  # the thread is what brings new versions: it must outlive whatever this is
                log.exception("looking at MLflow's aliases failed")
            self._stop.wait(self.poll_seconds)

    def poll(self) -> None:
        """Ask MLflow once what is in production, and make it so."""
        try:
            registered = self.registry.models()
        except MlflowError as error:
            if self.registry_state.ok or not self.registry_state.checked_at:
                log.warning("MLflow cannot be asked, serving goes on with what is loaded: %s", error)
            self.registry_state = RegistryState(False, str(error), now())
            self.metrics.registry_up.set(0)
            return
        if not self.registry_state.ok and self.registry_state.checked_at:
            log.info("MLflow answers again")
        self.registry_state = RegistryState(True, "", now())
        self.metrics.registry_up.set(1)
        wanted = {m.name: m for m in registered if PRODUCTION in m.aliases}
        for name in [*self.current.keys() | self.failures.keys()]:
            if name not in wanted:
                self._withdraw(name)
        for name, model in wanted.items():
            if self._stop.is_set():
                return
            self._follow(name, model.aliases[PRODUCTION], model.tags.get(SEQUENCE_TAG, ""))

    def _follow(self, name: str, version: str, incarnation: str) -> None:
        served = self.current.get(name)
        if served and (served.version, served.incarnation) == (version, incarnation):
            self._recovered(name)
            return
        target = (version, incarnation)
        before, attempts, not_before = self._retries.get(name, (target, 0, 0.0))
        if before != target:
            attempts = 0
        elif time.monotonic() < not_before:
            return
        kind = "download"
        try:
            found = self.registry.version(name, version)
            kind = "checksum"
            bundle = fetch_bundle(self.registry, found, self.cache)
            kind = "load"
            self._install(self._load(name, version, found.run_id, bundle, incarnation))
        except Exception as error:
            if isinstance(error, MlflowError | OSError):
                kind = "download"
            elif isinstance(error, GoldenMismatch):
                kind = "golden"
            self._failed(name, version, kind, error)
            delay = min(MAX_BACKOFF, max(self.poll_seconds, 1.0) * 2**attempts)
            self._retries[name] = (target, min(attempts + 1, 16), time.monotonic() + delay)
        else:
            self._recovered(name)

    def _recovered(self, name: str) -> None:
        self._retries.pop(name, None)
        if name in self.failures:
            self.failures = {k: v for k, v in self.failures.items() if k != name}

    def _failed(self, name: str, version: str, kind: str, error: Exception) -> None:
        text = str(error) if isinstance(error, BundleError | MlflowError) else f"{type(error).__name__}: {error}"
        failure = Failure(version, kind, f"{kind}: {text}", now())
        self.failures = {**self.failures, name: failure}
        self.metrics.failures.labels(name, version, kind).inc()
        served = self.current.get(name)
        stays = f"version {served.version} stays in service" if served else "nothing is served under this name"
        log.error("version %s of %s stays out (%s); %s", version, name, failure.reason, stays)

    def _load(self, name: str, version: str, run_id: str, bundle: Bundle, incarnation: str) -> ServedModel:
        predictor = load_predictor(bundle)
        return ServedModel(
            name=name,
            version=version,
            run_id=run_id,
            bundle=bundle,
            predictor=predictor,
            meter=self.metrics.meter(name, version, bundle),
            schema=RowSchema(name, bundle.features),
            loaded_at=now(),
            incarnation=incarnation,
            digits=_seven_digits if bundle.serving == "onnx" else float,
            classes={label: label for label in bundle.classes},
        )

    def _install(self, served: ServedModel, remember: bool = True) -> None:
        before = self.current.get(served.name)
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
        if remember:
            try:
                self._remember(served)
                self._prune(served)
            except OSError as error:
                log.warning("the cache %s cannot be written, a restart will need MLflow: %s", self.cache, error)

    def _withdraw(self, name: str) -> None:
        served = self.current.get(name)
        self._recovered(name)
        (self.cache / name / CURRENT).unlink(missing_ok=True)
        if served:
            self.current = {k: v for k, v in self.current.items() if k != name}
            self.metrics.info = {k: v for k, v in self.metrics.info.items() if k != name}
            self.generation += 1
            log.warning("%s is not in production any more: version %s was taken out", name, served.version)

    # -- the cache -----------------------------------------------------------------------------------------------

    def load_cache(self) -> None:
        """Serve the last good version of each model in the cache folder."""
        for path in sorted(self.cache.glob(f"*/{CURRENT}")):
            name = path.parent.name
            version, kind = "", "checksum"
            try:
                noted = json.loads(path.read_text())
                version, folder = str(noted["version"]), path.parent / noted["folder"]
                bundle = read_bundle(folder, noted["bundle_sha256"])
                kind = "load"
                served = self._load(name, version, noted["run_id"], bundle, noted["incarnation"])
                self._install(served, remember=False)
            except Exception as error:  # a damaged cache is no reason not to start: MLflow has the version too
                kind = "golden" if isinstance(error, GoldenMismatch) else kind
                self._failed(name, version, kind, error)

    def _remember(self, served: ServedModel) -> None:
        folder = self.cache / served.name
        note = {
            "model": served.name,
            "version": served.version,
            "run_id": served.run_id,
            "bundle_sha256": served.bundle.sha256,
            "folder": served.bundle.path.name,
            "incarnation": served.incarnation,
        }
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f".{CURRENT}.", delete=False) as draft:
            json.dump(note, draft)
        os.replace(draft.name, folder / CURRENT)

    def _prune(self, served: ServedModel) -> None:
        folder = self.cache / served.name
        mine = [p for p in folder.iterdir() if p.is_dir() and _BUNDLE_FOLDER.fullmatch(p.name)]
        mine = sorted((p for p in mine if p != served.bundle.path), key=lambda p: p.stat().st_mtime, reverse=True)
        dead = [
            p for p in folder.glob(".download-*") if time.time() - p.stat().st_mtime > STALE_DOWNLOAD
        ]  # of a process that was killed
        for path in [*mine[KEPT_BUNDLES - 1 :], *dead]:
            shutil.rmtree(path, ignore_errors=True)
