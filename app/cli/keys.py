"""`mlops keys`: the clients of the model API that have a key, in a Secret of an installation or in a folder.

Each is a text under the client's name, see `app.runtime.api_keys`. What a command does is a function of all of them, so
that both places do the same: it returns the texts to set, with None for those to remove, or raises CommandError.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from app.cli.credentials import TRIES, busy, manifest, ours, run
from app.cli.errors import CommandError
from app.clients.errors import ServiceError
from app.clients.kubernetes import KubernetesClient
from app.runtime.api_keys import ADMIN, BUILT_IN, MAX_KEYS, Client, Scope, is_client_name, key_digest, read_client

Texts = Mapping[str, str]
Changes = Mapping[str, str | None]
Edit = Callable[[Texts], Changes]
T = TypeVar("T")
FEEDBACK_PER_DAY = 10_000  # of a client that is given no other limit


# -- what is done ----------------------------------------------------------------------------------------------------


def client_with(key: str, scopes: str, requests_per_second: float = 0, feedback_per_day: int | None = None) -> Client:
    """A client with this key; for the rest see `limited`."""
    return limited([key_digest(key)], scopes, requests_per_second, feedback_per_day)


def limited(
    sha256: Sequence[str], scopes: str, requests_per_second: float = 0, feedback_per_day: int | None = None
) -> Client:
    """A client with the keys of these hashes.

    Args:
        scopes: with commas between.
        requests_per_second: its limit, 0 for none.
        feedback_per_day: the same of labels; None for FEEDBACK_PER_DAY, where it may send any.

    Raises:
        CommandError: there is no such scope, none is named, or the limits do not fit.
    """
    words = list(dict.fromkeys(word.strip() for word in scopes.split(",") if word.strip()))
    unknown = [word for word in words if word not in get_args(Scope)]
    if unknown or not words:
        named = f"there is no scope {unknown[0]!r}" if unknown else "no scope is named"
        raise CommandError(named, f"the scopes are: {', '.join(get_args(Scope))}")
    if ADMIN in words and (requests_per_second or feedback_per_day):
        raise CommandError(f"the scope {ADMIN} has no limits", "leave them out, or name other scopes")
    if feedback_per_day and "feedback" not in words:
        raise CommandError("--feedback-per-day is of the scope feedback", "leave it out, or add that scope")
    if feedback_per_day is None:
        feedback_per_day = FEEDBACK_PER_DAY if "feedback" in words and ADMIN not in words else 0
    content = {"scopes": words, "sha256": list(sha256)}
    limits = {"requests_per_second": requests_per_second or None, "feedback_per_day": feedback_per_day or None}
    try:
        return read_client(json.dumps({**content, **limits}))
    except ValueError as error:
        raise CommandError(f"there can be no such client: {error}") from error


def create(name: str, client: Client) -> Edit:
    """Add a client, with its first key."""

    def edit(texts: Texts) -> Changes:
        _check_name(name)
        if not is_client_name(name):
            raise CommandError(
                f"{name[:100]!r} cannot be the name of a client",
                "take up to 63 letters, digits, -, _ and ., the first one a letter or a digit",
            )
        if name in texts:
            raise CommandError(
                f"there is a client {name} already",
                f"`mlops keys change {name}` gives it other scopes or limits, `mlops keys rotate {name}` another key",
            )
        return {name: client.text()}

    return edit


def change(
    name: str, scopes: str | None = None, requests_per_second: float | None = None, feedback_per_day: int | None = None
) -> Edit:
    """Give a client other scopes or limits; None leaves them as they are, and its keys stay."""

    def edit(texts: Texts) -> Changes:
        before = _client(texts, name)
        after = scopes if scopes is not None else ",".join(before.scopes)
        words = {word.strip() for word in after.split(",")}
        rate = before.requests_per_second or 0.0 if ADMIN not in words else 0.0
        labels = None  # of a client that had not the scope: as of a new one
        if "feedback" in before.scopes:
            labels = before.feedback_per_day or 0 if "feedback" in words else 0
        rate = rate if requests_per_second is None else requests_per_second
        labels = labels if feedback_per_day is None else feedback_per_day
        return {name: limited(before.sha256, after, rate, labels).text()}

    return edit


def rotate(name: str, key: str) -> Edit:
    """Give a client a second key, beside the one it has."""

    def edit(texts: Texts) -> Changes:
        client = _client(texts, name)
        if len(client.sha256) >= MAX_KEYS:
            raise CommandError(
                f"the client {name} has {MAX_KEYS} keys already",
                f"when nobody sends the older one any more, `mlops keys retire {name}` takes it away",
            )
        return {name: client.model_copy(update={"sha256": [*client.sha256, key_digest(key)]}).text()}

    return edit


def retire(name: str) -> Edit:
    """Take away the older of a client's two keys."""

    def edit(texts: Texts) -> Changes:
        client = _client(texts, name)
        if len(client.sha256) < MAX_KEYS:
            raise CommandError(
                f"the client {name} has one key",
                f"`mlops keys rotate {name}` gives it another one first; `mlops keys revoke {name}` removes the client",
            )
        return {name: client.model_copy(update={"sha256": client.sha256[1:]}).text()}

    return edit


def revoke(name: str) -> Edit:
    """Remove a client, even one whose text is broken."""

    def edit(texts: Texts) -> Changes:
        _require(texts, name)
        return {name: None}

    return edit


def table(texts: Texts) -> Iterator[str]:
    """A line for each client: name, scopes, number of keys, limits."""
    width = max(map(len, texts), default=0)
    for name, text in sorted(texts.items()):
        try:
            client = read_client(text)
        except ValueError as error:
            yield f"{name:{width}}  broken, so the API refuses its keys: {error}"
            continue
        limits = [
            f"{client.requests_per_second:g} requests a second" if client.requests_per_second else "",
            f"{client.feedback_per_day} labels a day" if client.feedback_per_day else "",
        ]
        keys = f"{len(client.sha256)} key{'s' if len(client.sha256) > 1 else ''}"
        yield f"{name:{width}}  {','.join(client.scopes):16}  {', '.join([keys, *filter(None, limits)])}"


def _check_name(name: str) -> None:
    if name in BUILT_IN:
        raise CommandError(
            f"the client {name} is the platform's own",
            f"its key is {BUILT_IN[name]} in the Secret of all passwords: `mlops credentials rotate {BUILT_IN[name]}`",
        )


def _require(texts: Texts, name: str) -> None:
    if name not in texts:
        _check_name(name)
        known = f"those are: {', '.join(sorted(texts))}" if texts else "there is none"
        raise CommandError(f"there is no client {name}", f"{known}; `mlops keys create {name}` makes it")


def _client(texts: Texts, name: str) -> Client:
    _require(texts, name)
    try:
        return read_client(texts[name])
    except ValueError as error:
        raise CommandError(
            f"what is known of the client {name} is broken: {error}", f"`mlops keys revoke {name}`, then create it"
        ) from error


# -- where -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where the clients are. Its methods raise CommandError, and ServiceError where Kubernetes gives no usable answer.

    folder: a folder; None for the cluster.
    namespace, secret, context: of the cluster: the Secret, and the kubeconfig's context.
    """

    folder: Path | None
    namespace: str
    secret: str
    context: str

    def __str__(self) -> str:
        return str(self.folder) if self.folder else f"the Secret {self.secret}"

    @property
    def delay(self) -> str:
        """When the API knows of a change."""
        return "The API follows within seconds." if self.folder else "The API's pods follow within two minutes."

    def read(self) -> dict[str, str]:
        """The clients' texts by name."""
        if self.folder:
            return _read_folder(self.folder)
        secret = self._ask(lambda api: api.secret(self.secret))
        return secret.values if secret else {}

    def edit(self, edit: Edit) -> None:
        """Change the clients; any number may do so at once."""
        if self.folder:
            _edit_folder(self.folder, edit)
        else:
            self._ask(lambda api: _edit_secret(api, self.secret, edit))

    def warning(self) -> str:
        """That no pod reads the Secret, whose name is made of the release's; "" where one does."""
        if self.folder:
            return ""
        try:
            workloads = self._ask(lambda api: api.workloads())
        except ServiceError:  # who may change the Secret may not see these: then there is nothing to say
            return ""
        if any(self.secret in workload.mounts for workload in workloads):
            return ""
        return (
            f"no pod in the namespace {self.namespace} reads the Secret {self.secret}. Of a release that is not called "
            "mlops it is --name RELEASE-api-keys; with model-api.keys.required=[] the API asks for no keys"
        )

    def _ask(self, question: Callable[[KubernetesClient], Awaitable[T]]) -> T:
        return run(KubernetesClient(self.namespace, self.context), question)


def _read_folder(folder: Path) -> dict[str, str]:
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
        return {path.name: path.read_text(errors="replace") for path in paths}
    except OSError as error:
        cure = "`mlops keys create NAME --dir DIR` makes it" if isinstance(error, FileNotFoundError) else ""
        raise CommandError(f"the folder {folder} cannot be read ({error.strerror})", cure) from error


def _edit_folder(folder: Path, edit: Edit) -> None:
    """The folder is made where it lacks."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            for name, text in edit(_read_folder(folder)).items():
                if text is None:
                    (folder / name).unlink()
                    continue
                draft = folder / f"..{name}.{secrets.token_hex(4)}"  # the API looks at no name that begins so
                with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                    file.write(text)
                draft.replace(folder / name)
    except OSError as error:
        raise CommandError(f"the folder {folder} cannot be written ({error.strerror})") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def _edit_secret(api: KubernetesClient, secret_name: str, edit: Edit) -> None:
    """The Secret is made where it lacks."""
    for _ in range(TRIES):
        secret = await api.secret(secret_name)
        changes = edit(secret.values if secret else {})
        if secret is None:
            texts = {name: text for name, text in changes.items() if text is not None}
            if await api.create_secret(manifest(secret_name, api.namespace, texts)):
                return
        elif await api.set_values(secret_name, ours(secret, secret_name, api.namespace).version, changes):
            return
    raise busy(secret_name)
