"""MLflow's registry, tracking store and artifact store over their REST API.

The one way every part of the platform talks to MLflow, but for what training logs with the mlflow package itself:
importing mlflow costs the model API 350 MB of disk and seconds of start-up.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlsplit
from uuid import uuid4

from app.clients.errors import ServiceError
from app.runtime.paths import UnsafePath, inside
from app.runtime.settings import MlflowSettings

if TYPE_CHECKING:
    import httpx

PRODUCTION = "production"
CHALLENGER = "challenger"
MAX_FOLDERS = 8  # in each other, of artifacts
DOWNLOAD_BLOCK = 2**20  # bytes of a file in memory
REQUEST_TAG = "mlops.request"  # of a run: which request made it
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between two tries of a request

Answer = TypeVar("Answer")


class MlflowError(ServiceError):
    """MLflow refused a request, or a request to it makes no sense. `code` is MLflow's error_code.

    Its text is the problem alone: services of the platform log it, for whom `cure` is no advice.
    """

    default_cure = ""

    def __init__(self, what: str, code: str = "", cure: str | None = None) -> None:
        super().__init__(what, self.default_cure if cure is None else cure)
        self.args = (what,)
        self.code = code


class NotFound(MlflowError):
    """The model, version, alias, run or artifact does not exist."""


class Conflict(MlflowError):
    """Another client wrote first: the name is taken, or a write-once parameter has another value."""


class Unauthorized(MlflowError):
    """The account may not do this."""

    default_cure = "This needs an account that has the rights for it."


class TooLarge(MlflowError):
    """An artifact has more bytes than it may have."""


class MlflowUnavailable(MlflowError):
    """MLflow could not be reached, or failed. Trying again later may work."""

    default_cure = "Start it with `make demo`, or set MLFLOW_TRACKING_URI to where it runs."


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
    """A name in the model registry, with its aliases and tags."""

    name: str
    aliases: dict[str, str]  # alias -> version
    tags: dict[str, str]


@dataclass(frozen=True)
class Run:
    """A run of the tracking store. `artifact_uri` is the folder of its files; `metrics` has the last value of each."""

    run_id: str
    name: str
    experiment_id: str
    status: str
    started: float  # seconds since the epoch
    artifact_uri: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


def _dict(items: list[dict[str, Any]] | None) -> dict[str, Any]:
    """A list of keys and values, as MLflow sends tags, parameters and metrics, as a dict."""
    return {item["key"]: item.get("value", "") for item in items or []}


def _items(values: dict[str, Any] | None, **more: Any) -> list[dict[str, Any]]:
    """The other way round, with further fields for each item."""
    return [{"key": key, "value": value, **more} for key, value in (values or {}).items()]


def _registered_model(raw: dict[str, Any]) -> RegisteredModel:
    aliases = {item["alias"]: str(item["version"]) for item in raw.get("aliases", [])}
    return RegisteredModel(raw["name"], aliases, _dict(raw.get("tags")))


def _model_version(raw: dict[str, Any]) -> ModelVersion:
    return ModelVersion(
        name=raw["name"],
        version=str(raw["version"]),
        run_id=raw.get("run_id", ""),
        source=raw.get("source", ""),
        created=int(raw.get("creation_timestamp", 0)) / 1000,
        tags=_dict(raw.get("tags")),
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
        params=_dict(data.get("params")),
        metrics=_dict(data.get("metrics")),
        tags=_dict(data.get("tags")),
    )


def _is_address(uri: str) -> bool:
    """Whether it is an http(s) URL with a host."""
    try:
        parts = urlsplit(uri)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port or of an IPv6 address
        return False


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

    Raises:
        MlflowUnavailable: by every method that sends a request, when MLflow does not answer or fails.
        Unauthorized: by every such method, when the account may not do this.
        MlflowError: by every such method, when MLflow refuses the request for another reason; what is particular to a
            method is named there.
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
        if not _is_address(self.uri):
            raise MlflowError(
                f"MLFLOW_TRACKING_URI is {self.uri!r}: an http(s) URL of a tracking server is needed, "
                "such as http://127.0.0.1:5000"
            )
        user = settings.mlflow_tracking_username if username is None else username
        secret = settings.mlflow_tracking_password if password is None else password
        self._auth = (user, secret) if user else None
        self._timeout = timeout
        self._retry_for = retry_for

    @cached_property
    def _http(self) -> httpx.Client:
        # Made with the first request, as is the import: it takes a tenth of the API's start, which needs no MLflow
        import httpx

        certificates = self.uri.startswith("https:")  # reading them takes 20 ms, and plain HTTP has none
        return httpx.Client(base_url=self.uri, auth=self._auth, timeout=self._timeout, verify=certificates)

    def close(self) -> None:
        """Close the connections; the client cannot be used afterwards."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- requests ------------------------------------------------------------------------------------------------

    @contextmanager
    def _connection(self) -> Iterator[httpx.Client]:
        """What sends requests; one that has no answer is MlflowUnavailable."""
        import httpx

        try:
            yield self._http
        except httpx.HTTPError as error:
            raise MlflowUnavailable(f"MLflow at {self.uri} does not answer: {error or type(error).__name__}") from error

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        with self._connection() as http:
            response = http.request(method, path, **kwargs)
        if response.is_success:
            return response
        raise self._error(response)

    def _retrying(self, call: Callable[[], Answer]) -> Answer:
        """What the call returns; while MLflow is unavailable it is tried again, where the client is to do that."""
        if not self._retry_for:
            return call()
        from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_exponential

        retrying = Retrying(
            retry=retry_if_exception_type(MlflowUnavailable),
            wait=wait_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE),
            stop=stop_before_delay(self._retry_for),
            reraise=True,
        )
        return retrying(call)

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

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        """The answer of a GET request, which may always be repeated."""
        return self._retrying(lambda: self._send("GET", f"/api/2.0/mlflow/{path}", params=params)).json()

    def _post(self, path: str, body: dict[str, Any], method: str = "POST") -> dict[str, Any]:
        """The answer of a request that may be repeated: a second time it does nothing, or is a Conflict."""
        return self._retrying(lambda: self._send(method, f"/api/2.0/mlflow/{path}", json=body)).json()

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
        return [_registered_model(item) for item in raw]

    def model(self, name: str) -> RegisteredModel:
        """The registered model of this name.

        Raises:
            NotFound: there is none.
        """
        return _registered_model(self._get("registered-models/get", name=name)["registered_model"])

    def create_model(self, name: str, tags: dict[str, str]) -> None:
        """Register a name, with its tags from the start: nobody ever sees it without them.

        Raises:
            Conflict: the name is taken; maybe by this very request, if it was repeated: the model's tags tell.
        """
        self._post("registered-models/create", {"name": name, "tags": _items(tags)})

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of a registered model, over the value that it may have.

        Raises:
            NotFound: the model is not registered.
        """
        self._set("registered-models/set-tag", {"name": name, "key": key, "value": value}, "registered_model_tags")

    def version(self, name: str, version: str) -> ModelVersion:
        """The version of this number.

        Raises:
            NotFound: there is no such model or version.
        """
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
        of_model = f"name={_quoted(name)}"
        raw = self._pages(
            "model_versions",
            lambda token: self._get("model-versions/search", filter=of_model, max_results=1000, page_token=token),
        )
        return sorted(map(_model_version, raw), key=lambda version: int(version.version), reverse=True)

    def create_version(self, name: str, run_id: str, source: str, tags: dict[str, str]) -> ModelVersion:
        """Register `source` (an artifact URI whose upload is complete) as a new version of `name`.

        Repeating it for the same run gives the version that exists: an answer that was lost on the way makes no twin.

        Raises:
            NotFound: the model is not registered.
        """
        of_run = f"run_id={_quoted(run_id)}"
        body = {"name": name, "run_id": run_id, "source": source, "tags": _items(tags)}

        def create_once() -> ModelVersion:
            answer = self._send("GET", "/api/2.0/mlflow/model-versions/search", params={"filter": of_run}).json()
            for item in answer.get("model_versions", []):
                if item["name"] == name and item.get("source") == source:
                    return _model_version(item)
            answer = self._send("POST", "/api/2.0/mlflow/model-versions/create", json=body).json()
            return _model_version(answer["model_version"])

        return self._retrying(create_once)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point the alias at the version, wherever it pointed before."""
        body = {"name": name, "alias": alias, "version": version}
        self._set("registered-models/alias", body, "registered_model_aliases")

    def _set(self, path: str, body: dict[str, Any], table: str) -> None:
        """Set what may be new. MLflow looks, then inserts: of all at once one succeeds, and then it is there."""
        try:
            self._post(path, body)
        except MlflowError as error:
            if table not in str(error):
                raise
            self._post(path, body)

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove the alias; it is no error when it does not exist."""
        self._post("registered-models/alias", {"name": name, "alias": alias}, method="DELETE")

    # -- runs ----------------------------------------------------------------------------------------------------

    def find_experiment(self, name: str) -> str | None:
        """The experiment's id, or None where there is no such experiment."""
        try:
            return self._get("experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"]
        except NotFound:
            return None

    def ensure_experiment(self, name: str) -> str:
        """The experiment's id, created where it is missing."""
        experiment_id = self.find_experiment(name)
        if experiment_id is None:
            try:
                return self._post("experiments/create", {"name": name})["experiment_id"]
            except Conflict:
                experiment_id = self.find_experiment(name)
        if experiment_id is None:
            raise MlflowError(f"the MLflow experiment {name!r} could neither be created nor found")
        return experiment_id

    def create_run(self, experiment_id: str, name: str, tags: dict[str, str]) -> str:
        """Begin a run, now; returns its id.

        Repeating it looks first for the run that the try before may have made: an answer that was lost makes no twin.
        """
        request = uuid4().hex
        body = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": int(time.time() * 1000),
            "tags": _items({**tags, REQUEST_TAG: request}),
        }
        of_request = {"experiment_ids": [experiment_id], "filter": f"tags.`{REQUEST_TAG}` = {_quoted(request)}"}
        is_repeated = False

        def create_once() -> dict[str, Any]:
            nonlocal is_repeated
            if is_repeated:
                found = self._send("POST", "/api/2.0/mlflow/runs/search", json=of_request).json().get("runs", [])
                if found:
                    return found[0]
            is_repeated = True
            return self._send("POST", "/api/2.0/mlflow/runs/create", json=body).json()["run"]

        return self._retrying(create_once)["info"]["run_id"]

    def finish_run(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run, now, with one of MLflow's states: FINISHED, FAILED or KILLED."""
        self._post("runs/update", {"run_id": run_id, "status": status, "end_time": int(time.time() * 1000)})

    def run(self, run_id: str) -> Run:
        """The run with its parameters, metrics and tags.

        Raises:
            NotFound: there is no such run.
        """
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
        """Add parameters, metrics (with the time of now) and tags to a run, in one request."""
        body = {
            "run_id": run_id,
            "params": _items(params),
            "metrics": _items(metrics, timestamp=int(time.time() * 1000), step=0),
            "tags": _items(tags),
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
        """The path below MLflow's artifact proxy of an artifact URI such as mlflow-artifacts:/1/abc/artifacts/model.

        Raises:
            MlflowError: the URI does not go through the proxy.
        """
        parts = urlsplit(uri)
        path = parts.path.strip("/")
        if parts.scheme != "mlflow-artifacts":
            raise MlflowError(
                f"the artifact URI {uri!r} does not go through MLflow's artifact proxy; "
                "start the server with --serve-artifacts and an --artifacts-destination"
            )
        try:
            inside(Path("/artifacts"), *path.split("/"))
        except UnsafePath as error:
            raise MlflowError(f"the artifact URI {uri!r} is no path below MLflow's artifacts: {error}") from error
        return path

    def bundle_path(self, version: ModelVersion) -> str:
        """Where the version's bundle is, below the artifact proxy."""
        if version.source.startswith("mlflow-artifacts:"):
            return self.artifact_path(version.source)
        answer = self._get("model-versions/get-download-uri", name=version.name, version=version.version)
        return self.artifact_path(answer["artifact_uri"])

    def list_artifacts(self, path: str) -> list[str]:
        """Paths, relative to `path`, of all files in the folder and below."""
        return sorted(self.artifact_sizes(path))

    def artifact_sizes(self, path: str, depth: int = 0) -> dict[str, int]:
        """The size in bytes of every file in the folder and below, by its path relative to `path`.

        Args:
            depth: how many folders this one is below the first.

        Raises:
            MlflowError: there are more folders in folders than anybody makes.
        """
        if depth > MAX_FOLDERS:
            raise MlflowError(f"the artifacts below {path} are more than {MAX_FOLDERS} folders deep")
        answer = self._retrying(lambda: self._send("GET", "/api/2.0/mlflow-artifacts/artifacts", params={"path": path}))
        sizes: dict[str, int] = {}
        for item in answer.json().get("files", []):
            name = item["path"]
            if item.get("is_dir"):
                below = self.artifact_sizes(f"{path}/{name}", depth + 1)
                sizes |= {f"{name}/{inner}": size for inner, size in below.items()}
            else:
                sizes[name] = int(item.get("file_size") or 0)
        return sizes

    def read_artifact(self, path: str, limit: int | None = None) -> bytes:
        """The content of a file.

        Args:
            limit: bytes that it may have; by default any number.

        Raises:
            NotFound: there is no such file.
            TooLarge: it has more than `limit` bytes.
        """
        return self._retrying(lambda: b"".join(self._blocks(path, limit)))

    def write_artifact(self, path: str, content: bytes) -> None:
        """Store a file; when this returns, MLflow has it."""
        url = f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"
        self._retrying(lambda: self._send("PUT", url, content=content))

    def download(self, path: str, target: Path, limit: int) -> str:
        """Copy a file to `target` as it arrives, in bounded memory.

        Args:
            target: a new file in a folder that exists.
            limit: bytes; more are not written.

        Returns:
            the SHA-256 sum of what was written, hex.

        Raises:
            NotFound: there is no such file.
            TooLarge: it has more than `limit` bytes.
        """
        return self._retrying(lambda: self._download_once(path, target, limit))

    def _download_once(self, path: str, target: Path, limit: int) -> str:
        digest = hashlib.sha256()
        with target.open("wb") as file:
            for block in self._blocks(path, limit):
                digest.update(block)
                file.write(block)
        return digest.hexdigest()

    def _blocks(self, path: str, limit: int | None) -> Iterator[bytes]:
        """The content of a file as it arrives, in blocks."""
        size = 0
        address = f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"
        with self._connection() as http, http.stream("GET", address) as response:
            if not response.is_success:
                response.read()
                raise self._error(response)
            for block in response.iter_bytes(DOWNLOAD_BLOCK):
                size += len(block)
                if limit is not None and size > limit:
                    raise TooLarge(f"the artifact {path} has more than the {limit} bytes that it may have")
                yield block
