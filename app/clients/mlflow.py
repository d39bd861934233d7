"""MLflow's registry, tracking store and artifact store over their REST API.

The one way every part of the platform talks to MLflow, but for what training logs with the mlflow package itself:
importing mlflow costs the model API 350 MB of disk and seconds of start-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic_settings import BaseSettings

PRODUCTION = "production"
CHALLENGER = "challenger"
SEQUENCE_TAG = "mlops.promotion_sequence"
PROMOTIONS_EXPERIMENT = "promotions"

T = TypeVar("T")


class MlflowError(Exception):
    """MLflow answered, and the answer was no. `code` is MLflow's error_code."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class NotFound(MlflowError):
    """The model, version, alias, run or artifact does not exist."""


class Conflict(MlflowError):
    """Somebody else wrote first: the name is taken, or a write-once parameter has another value."""


class Unauthorized(MlflowError):
    """The account may not do this."""


class MlflowUnavailable(MlflowError):
    """MLflow could not be reached, or failed. Trying again later may work."""


class MlflowSettings(BaseSettings):
    """Where MLflow is; the environment variables are those of MLflow's own client."""

    mlflow_tracking_uri: str = "http://127.0.0.1:5000"
    mlflow_tracking_username: str = ""
    mlflow_tracking_password: str = ""


@dataclass(frozen=True)
class ModelVersion:
    """A registered model version. `source` is the artifact URI of its bundle."""

    name: str
    version: str
    run_id: str
    source: str
    created: float  # seconds since the epoch
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegisteredModel:
    name: str
    aliases: dict[str, str]  # alias -> version
    tags: dict[str, str]


@dataclass(frozen=True)
class Run:
    run_id: str
    name: str
    experiment_id: str
    status: str
    started: float  # seconds since the epoch
    artifact_uri: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


def _pairs(items: list[dict[str, Any]] | None, key: str = "key") -> dict[str, Any]:
    return {item[key]: item.get("value", "") for item in items or []}


def _model_version(raw: dict[str, Any]) -> ModelVersion:
    return ModelVersion(
        name=raw["name"],
        version=str(raw["version"]),
        run_id=raw.get("run_id", ""),
        source=raw.get("source", ""),
        created=int(raw.get("creation_timestamp", 0)) / 1000,
        tags=_pairs(raw.get("tags")),
        aliases=tuple(raw.get("aliases", ())),
    )


def _run(raw: dict[str, Any]) -> Run:
    info, data = raw["info"], raw.get("data", {})
    return Run(
        run_id=info["run_id"],
        name=info.get("run_name", ""),
        experiment_id=info["experiment_id"],
        status=info.get("status", ""),
        started=int(info.get("start_time", 0)) / 1000,
        artifact_uri=info.get("artifact_uri", ""),
        params=_pairs(data.get("params")),
        metrics=_pairs(data.get("metrics")),
        tags=_pairs(data.get("tags")),
    )


def _quoted(value: str) -> str:
    """`value` for a filter string. MLflow's filters have no escape, so a quote cannot be part of it."""
    if "'" in value:
        raise MlflowError(f"the name {value!r} has a quote in it, which MLflow cannot search for")
    return f"'{value}'"


class MlflowClient:
    """A thread-safe client of one MLflow server.

    Args:
        uri: the server, such as http://mlflow:5000; default from the environment (`MlflowSettings`).
        username, password: basic auth; none is sent when username is empty.
        timeout: seconds for one request.
        retry_for: seconds over which a request that may be repeated is tried again while MLflow is unreachable.
    """

    def __init__(
        self,
        uri: str | None = None,
        username: str | None = None,
        password: str | None = None,
        timeout: float = 10.0,
        retry_for: float = 0.0,
    ) -> None:
        settings = MlflowSettings()
        self.uri = (uri or settings.mlflow_tracking_uri).rstrip("/")
        if urlsplit(self.uri).scheme not in ("http", "https"):
            raise MlflowError(
                f"MLFLOW_TRACKING_URI is {self.uri!r}: an http(s) URL of a tracking server is needed, "
                "such as http://127.0.0.1:5000"
            )
        user = settings.mlflow_tracking_username if username is None else username
        secret = settings.mlflow_tracking_password if password is None else password
        self.retry_for = retry_for
        self._http = httpx.Client(base_url=self.uri, auth=(user, secret) if user else None, timeout=timeout)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> MlflowClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- requests ------------------------------------------------------------------------------------------------

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise MlflowUnavailable(f"MLflow at {self.uri} does not answer: {error or type(error).__name__}") from error
        if response.is_success:
            return response
        raise self._error(response)

    def _error(self, response: httpx.Response) -> MlflowError:
        try:
            body = response.json()
            code, message = str(body.get("error_code", "")), str(body.get("message", ""))
        except (ValueError, AttributeError):
            code, message = "", response.text[:200].strip()
        where = f"MLflow at {self.uri} answered {response.status_code}: {message or response.reason_phrase}"
        if response.status_code in (401, 403):
            return Unauthorized(f"{where} (check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)", code)
        if response.status_code >= 500 or response.status_code == 429:
            return MlflowUnavailable(where, code)
        if code == "RESOURCE_DOES_NOT_EXIST" or response.status_code == 404:
            return NotFound(where, code)
        if code == "RESOURCE_ALREADY_EXISTS" or response.status_code == 409:
            return Conflict(where, code)
        return MlflowError(where, code)

    def _retrying(self, call: Callable[[], T]) -> T:
        """`call`, which may safely be repeated, until MLflow answers or `retry_for` is over."""
        deadline = time.monotonic() + self.retry_for
        delay = 0.1
        while True:
            try:
                return call()
            except MlflowUnavailable:
                if time.monotonic() + delay > deadline:
                    raise
            time.sleep(delay)
            delay = min(delay * 2, 2.0)

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return self._retrying(lambda: self._send("GET", f"/api/2.0/mlflow/{path}", params=params)).json()

    def _post(self, path: str, body: dict[str, Any], method: str = "POST", repeatable: bool = True) -> dict[str, Any]:
        def call() -> dict[str, Any]:
            return self._send(method, f"/api/2.0/mlflow/{path}", json=body).json()

        return self._retrying(call) if repeatable else call()

    def _pages(self, key: str, fetch: Callable[[str], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            page = fetch(token)
            yield from page.get(key, [])
            token = page.get("next_page_token", "")
            if not token:
                return

    def server_version(self) -> str:
        """MLflow's version, such as 3.17.2; also the cheapest proof that it answers."""
        return self._retrying(lambda: self._send("GET", "/version")).text.strip()

    # -- models, versions, aliases -------------------------------------------------------------------------------

    def models(self) -> list[RegisteredModel]:
        """Every registered model with its aliases, in one request per 1,000 models."""
        raw = self._pages(
            "registered_models", lambda token: self._get("registered-models/search", max_results=1000, page_token=token)
        )
        return [self._registered_model(item) for item in raw]

    def model(self, name: str) -> RegisteredModel:
        return self._registered_model(self._get("registered-models/get", name=name)["registered_model"])

    @staticmethod
    def _registered_model(raw: dict[str, Any]) -> RegisteredModel:
        aliases = {item["alias"]: str(item["version"]) for item in raw.get("aliases", [])}
        return RegisteredModel(raw["name"], aliases, _pairs(raw.get("tags")))

    def ensure_model(self, name: str) -> RegisteredModel:
        """The registered model, created where it is missing.

        The model is born with the run that orders its promotions (see ledger.py): the name is unique in MLflow, so
        however many clients race, one run is chosen.
        """
        try:
            model = self.model(name)
        except NotFound:
            sequence = self._new_sequence(name)
            body = {"name": name, "tags": [{"key": SEQUENCE_TAG, "value": sequence}]}
            try:
                self._post("registered-models/create", body, repeatable=False)
            except Conflict:
                self._post("runs/delete", {"run_id": sequence})
            model = self.model(name)
        if SEQUENCE_TAG not in model.tags:  # registered by hand, outside the platform
            body = {"name": name, "key": SEQUENCE_TAG, "value": self._new_sequence(name)}
            self._post("registered-models/set-tag", body)
            model = self.model(name)
        return model

    def _new_sequence(self, name: str) -> str:
        experiment = self.ensure_experiment(PROMOTIONS_EXPERIMENT)
        return self.create_run(experiment, f"{name} sequence", {"mlops.kind": "sequence", "mlops.model": name})

    def version(self, name: str, version: str) -> ModelVersion:
        return _model_version(self._get("model-versions/get", name=name, version=version)["model_version"])

    def version_by_alias(self, name: str, alias: str = PRODUCTION) -> ModelVersion | None:
        """The version the alias points at, or None where the model or the alias does not exist."""
        try:
            return _model_version(self._get("registered-models/alias", name=name, alias=alias)["model_version"])
        except NotFound:
            return None
        except MlflowError as error:
            if error.code == "INVALID_PARAMETER_VALUE" and "alias" in str(error).lower():
                return None
            raise

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first."""
        wanted = f"name={_quoted(name)}"
        raw = self._pages(
            "model_versions",
            lambda token: self._get("model-versions/search", filter=wanted, max_results=1000, page_token=token),
        )
        return sorted(map(_model_version, raw), key=lambda version: int(version.version), reverse=True)

    def create_version(self, name: str, run_id: str, source: str, tags: dict[str, str]) -> ModelVersion:
        """Register `source` (an artifact URI whose upload is complete) as a new version of `name`.

        Repeating it for the same run gives the version that exists: an answer that was lost on the way makes no twin.
        """
        body = {
            "name": name,
            "run_id": run_id,
            "source": source,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }

        def call() -> ModelVersion:
            wanted = f"run_id={_quoted(run_id)}"
            found = self._send("GET", "/api/2.0/mlflow/model-versions/search", params={"filter": wanted}).json()
            for item in found.get("model_versions", []):
                if item["name"] == name and item.get("source") == source:
                    return _model_version(item)
            answer = self._send("POST", "/api/2.0/mlflow/model-versions/create", json=body).json()
            return _model_version(answer["model_version"])

        return self._retrying(call)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        body = {"name": name, "alias": alias, "version": version}
        try:
            self._post("registered-models/alias", body)
        except MlflowError as error:
            # MLflow looks, then inserts: of all who set a new alias at once, one succeeds, and then it is there.
            if "registered_model_aliases" not in str(error):
                raise
            self._post("registered-models/alias", body)

    def delete_alias(self, name: str, alias: str) -> None:
        self._post("registered-models/alias", {"name": name, "alias": alias}, method="DELETE")

    # -- runs ----------------------------------------------------------------------------------------------------

    def find_experiment(self, name: str) -> str | None:
        try:
            return self._get("experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"]
        except NotFound:
            return None

    def ensure_experiment(self, name: str) -> str:
        """The experiment's id, created where it is missing."""
        found = self.find_experiment(name)
        if found is None:
            try:
                return self._post("experiments/create", {"name": name}, repeatable=False)["experiment_id"]
            except Conflict:
                found = self.find_experiment(name)
        if found is None:
            raise MlflowError(f"the MLflow experiment {name!r} could neither be created nor found")
        return found

    def create_run(self, experiment_id: str, name: str, tags: dict[str, str]) -> str:
        body = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": int(time.time() * 1000),
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        return self._post("runs/create", body, repeatable=False)["run"]["info"]["run_id"]

    def finish_run(self, run_id: str, status: str = "FINISHED") -> None:
        self._post("runs/update", {"run_id": run_id, "status": status, "end_time": int(time.time() * 1000)})

    def run(self, run_id: str) -> Run:
        return _run(self._get("runs/get", run_id=run_id)["run"])

    def search_runs(self, experiment: str, where: dict[str, str], limit: int = 1000) -> list[Run]:
        """Runs of the experiment whose tags equal `where`, newest first; none where the experiment is missing."""
        experiment_id = self.find_experiment(experiment)
        if experiment_id is None:
            return []
        body = {
            "experiment_ids": [experiment_id],
            "filter": " and ".join(f"tags.`{key}` = {_quoted(value)}" for key, value in where.items()),
            "max_results": limit,
            "order_by": ["attributes.start_time DESC"],
        }
        return [_run(item) for item in self._post("runs/search", body).get("runs", [])]

    def log(
        self,
        run_id: str,
        params: dict[str, str] | None = None,
        metrics: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        now = int(time.time() * 1000)
        body = {
            "run_id": run_id,
            "params": [{"key": k, "value": v} for k, v in (params or {}).items()],
            "metrics": [{"key": k, "value": v, "timestamp": now, "step": 0} for k, v in (metrics or {}).items()],
            "tags": [{"key": k, "value": v} for k, v in (tags or {}).items()],
        }
        self._post("runs/log-batch", body)

    def write_once(self, run_id: str, key: str, value: str) -> None:
        """Log a parameter, which MLflow lets nobody change: of many writers, one succeeds.

        Repeating it with the same value does nothing.

        Raises:
            Conflict: the parameter has another value already.
        """
        try:
            self._post("runs/log-parameter", {"run_id": run_id, "key": key, "value": value})
        except MlflowError as error:
            if error.code == "INVALID_PARAMETER_VALUE" and "Changing param values" in str(error):
                raise Conflict(str(error), error.code) from error
            raise

    # -- artifacts -----------------------------------------------------------------------------------------------

    @staticmethod
    def artifact_path(uri: str) -> str:
        """The path below MLflow's artifact proxy of an artifact URI such as mlflow-artifacts:/1/abc/artifacts/model."""
        parts = urlsplit(uri)
        if parts.scheme != "mlflow-artifacts" or ".." in parts.path.split("/"):
            raise MlflowError(
                f"the artifact URI {uri!r} does not go through MLflow's artifact proxy; "
                "start the server with --serve-artifacts and an --artifacts-destination"
            )
        return parts.path.strip("/")

    def bundle_path(self, version: ModelVersion) -> str:
        """Where the version's bundle is, below the artifact proxy."""
        if version.source.startswith("mlflow-artifacts:"):
            return self.artifact_path(version.source)
        answer = self._get("model-versions/get-download-uri", name=version.name, version=version.version)
        return self.artifact_path(answer["artifact_uri"])

    def list_artifacts(self, path: str) -> list[str]:
        """Paths, relative to `path`, of all files in the folder and below."""
        answer = self._retrying(lambda: self._send("GET", "/api/2.0/mlflow-artifacts/artifacts", params={"path": path}))
        found = []
        for item in answer.json().get("files", []):
            name = item["path"]
            if item.get("is_dir"):
                found += [f"{name}/{below}" for below in self.list_artifacts(f"{path}/{name}")]
            else:
                found.append(name)
        return sorted(found)

    def read_artifact(self, path: str) -> bytes:
        url = f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"
        return self._retrying(lambda: self._send("GET", url)).content

    def write_artifact(self, path: str, content: bytes) -> None:
        """Store a file; when this returns, MLflow has it."""
        url = f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"
        self._retrying(lambda: self._send("PUT", url, content=content))

    def download(self, path: str, folder: Path) -> None:
        """Copy all files below `path` of the artifact store into the folder."""
        names = self.list_artifacts(path)
        if not names:
            raise NotFound(f"MLflow at {self.uri} has no files below {path}")
        for name in names:
            target = folder / name
            if not target.resolve().is_relative_to(folder.resolve()):
                raise MlflowError(f"the artifact {path}/{name} would be written outside {folder}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read_artifact(f"{path}/{name}"))
