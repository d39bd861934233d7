"""Who may ask: keys of clients, what each may do, and how much of it.

A folder has a file for each client (`app.runtime.api_keys.Client`), as `mlops keys` and the chart put them there. A
thread looks at it every few seconds, so a key is taken up or refused without a restart. Limits are of a client, however
many keys it has, and of this process: of a pod, where there are several.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from starlette.types import Scope as Request

from app.api.errors import Refusal
from app.api.metrics import Metrics
from app.runtime.api_keys import KEY_PATTERN, MAX_FILE, Client, Scope, is_client_name, key_digest, read_client

LOOK_SECONDS = 2.0  # between two looks at the folder
DAY = 86_400
ASK_FOR_ONE = "`mlops keys create NAME --scopes {scope}` makes one, for whoever runs this API"

_SENT = re.compile(rf"[Bb][Ee][Aa][Rr][Ee][Rr] +({KEY_PATTERN}) *".encode())  # the scheme in any case; a flag is slower

log = logging.getLogger("mlops.keys")


class Bucket:
    """A token bucket: full at first, and filled again at a steady rate.

    Args:
        size: tokens that it holds.
        rate: tokens that it gets per second.
        clock: gives the time in seconds.
    """

    def __init__(self, size: float, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.size, self.rate, self._clock = size, rate, clock
        self._tokens, self._at = size, clock()

    def left(self) -> float:
        """How many tokens there are."""
        now = self._clock()
        self._tokens = min(self.size, self._tokens + (now - self._at) * self.rate)
        self._at = now
        return self._tokens

    def take(self, number: float = 1) -> float | None:
        """Take tokens, if there are as many.

        Returns:
            None where they are taken; otherwise the seconds until there are as many, or, of more than it holds, until
            it is full.
        """
        left = self.left()
        if left < number:
            return (min(number, self.size) - left) / self.rate
        self._tokens = left - number
        return None

    def give_back(self, number: float) -> None:
        """Undo take()."""
        self._tokens = min(self.size, self._tokens + number)


class KnownClient:
    """A client, and what is left of its limits."""

    def __init__(self, name: str, client: Client, before: KnownClient | None = None) -> None:
        self.name, self.client = name, client
        per_second, per_day = client.requests_per_second, client.feedback_per_day
        self.requests = Bucket(max(1.0, per_second), per_second) if per_second else None
        self.labels = Bucket(per_day, per_day / DAY) if per_day else None
        if before and before.client.requests_per_second == per_second:
            self.requests = before.requests
        if before and before.client.feedback_per_day == per_day:
            self.labels = before.labels


class Keys:
    """The clients that are known, and what is asked of requests. All but the look at the folder is on the event loop.

    Args:
        folder: with a file for each client.
        required: the scopes that need a key; where none does, the folder is not looked at.
        metrics: is told of every refusal.
    """

    def __init__(self, folder: Path, required: Iterable[Scope], metrics: Metrics) -> None:
        self.folder, self.required, self.metrics = folder, frozenset(required), metrics
        self.clients: dict[str, KnownClient] = {}
        self._by_digest: dict[str, KnownClient] = {}  # replaced as a whole
        self._seen: object = None
        self._problem = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)

    # -- what requests ask ---------------------------------------------------------------------------------------

    def admit(self, request: Request, scope: Scope) -> KnownClient | None:
        """The client that sends a request; None where this scope needs no key.

        A key is looked up by its hash. How long that takes can tell how far two hashes agree at most, and nobody can
        choose a key by the beginning of its hash; so no comparison in constant time is needed.

        Raises:
            Refusal: 401 no key, or none that is known; 403 it lacks the scope; 429 its limit is reached.
        """
        if scope not in self.required:
            return None
        sent = [value for name, value in request["headers"] if name == b"authorization"]
        match = _SENT.fullmatch(sent[0]) if len(sent) == 1 else None
        if match is None:
            raise self._unknown(scope, *_why_no_key(sent))
        known = self._by_digest.get(key_digest(match[1].decode()))
        if known is None:
            raise self._unknown(scope, "unknown_key", "the key is not known, or not any more")
        if not known.client.may(scope):
            scopes = ", ".join(known.client.scopes)
            why = f"the key of the client {known.name} lacks the scope {scope} (it has: {scopes})"
            raise self._refuse(known.name, "scope", 403, f"{why}; {ASK_FOR_ONE.format(scope=scope)}")
        if known.requests and (seconds := known.requests.take()) is not None:
            limit = f"the limit of the client {known.name} is {known.client.requests_per_second:g} requests a second"
            raise self._too_many(known, "requests", seconds, f"{limit}: send it again in")
        return known

    def take_labels(self, known: KnownClient | None, number: int) -> None:
        """Count labels that a client wants to have stored.

        Raises:
            Refusal: 429 it has sent as many as it may.
        """
        if known is None or not known.labels or (seconds := known.labels.take(number)) is None:
            return
        left = math.floor(known.labels.left())
        limit = f"the limit of the client {known.name} is {known.client.feedback_per_day} labels a day"
        raise self._too_many(
            known, "labels", seconds, f"{limit}, of which {left} are left: nothing was stored; send fewer, or again in"
        )

    def give_back_labels(self, known: KnownClient | None, number: int) -> None:
        """Undo take_labels(): they were not stored."""
        if known and known.labels:
            known.labels.give_back(number)

    def _unknown(self, scope: Scope, reason: str, message: str) -> Refusal:
        if not self._by_digest:
            message = f"{message}, and this API knows no key yet{self._problem and f' ({self._problem})'}"
        what = f"{message}; send `Authorization: Bearer KEY` with a key that has the scope {scope}"
        headers = {"WWW-Authenticate": "Bearer"}
        return self._refuse("", reason, 401, f"{what}. {ASK_FOR_ONE.format(scope=scope)}", headers)

    def _too_many(self, known: KnownClient, reason: str, seconds: float, message: str) -> Refusal:
        wait = str(max(1, math.ceil(seconds)))
        return self._refuse(known.name, reason, 429, f"{message} {wait} s", {"Retry-After": wait})

    def _refuse(
        self, client: str, reason: str, status: int, message: str, headers: dict[str, str] | None = None
    ) -> Refusal:
        self.metrics.refusals.labels(client, reason).inc()
        return Refusal(status, message, headers)

    # -- the folder ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read the folder, then follow it in a thread; nothing of it where no scope needs a key."""
        if self.required:
            self.look()
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:  # a revoked key must not live on because of whatever this is
                log.exception("looking at the keys in %s failed", self.folder)

    def look(self) -> None:
        """Read the folder again if it has changed.

        A file that cannot be used is left out, and its client with it: what is not understood admits nobody.
        """
        found = self._files()
        if found == self._seen:
            return
        clients, errors = self._read(found.paths)
        if self._files() != found:
            return  # it is being changed: what was read may be half of it, so the next look decides
        problem = found.problem
        if found.paths and not clients:
            problem = f"no file in the folder {self.folder} can be used: the API's log says why"
        for error in errors:
            log.error("%s; `mlops keys create` makes such a file", error)
        if problem:
            log.error("no key is known, so all that need one are refused: %s", problem)
        else:
            log.info("clients with keys: %s", ", ".join(clients))
        by_digest = {digest: known for known in clients.values() for digest in known.client.sha256}
        self.clients, self._by_digest, self._problem, self._seen = clients, by_digest, problem, found

    def _files(self) -> _Files:
        try:
            # a mounted Secret has ..data and more
            paths = sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return _Files({}, f"there is no folder {self.folder}")
        except OSError as error:
            return _Files({}, f"the folder {self.folder} cannot be read: {error.strerror}")
        states: dict[Path, tuple[int, ...]] = {}
        for path in paths:
            try:
                stat = path.stat()
                states[path] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            except FileNotFoundError:
                continue  # removed just now
            except OSError:
                states[path] = ()  # reading it will say what is wrong
        return _Files(states, "" if states else f"the folder {self.folder} is empty")

    def _read(self, paths: Iterable[Path]) -> tuple[dict[str, KnownClient], list[str]]:
        """The clients by name, and what is wrong with the files of others."""
        clients: dict[str, KnownClient] = {}
        owners: dict[str, str] = {}  # by the hashes of their keys
        errors: list[str] = []
        for path in paths:
            try:
                client = _client_of(path)
                if twice := [owners[digest] for digest in client.sha256 if digest in owners]:
                    raise ValueError(f"the client {twice[0]} has the same key")
            except (ValueError, OSError) as error:
                errors.append(f"the client {path.name} is left out, its keys are refused: {path}: {error}")
            else:
                clients[path.name] = KnownClient(path.name, client, self.clients.get(path.name))
                owners.update(dict.fromkeys(client.sha256, path.name))
        return clients, errors


def _why_no_key(sent: list[bytes]) -> tuple[str, str]:
    """What is wrong with the values of the header Authorization, for programs and for people."""
    if not sent:
        return "no_key", "no key was sent"
    if len(sent) > 1:
        return "malformed", "more than one header Authorization was sent"
    scheme, _, key = sent[0].partition(b" ")
    if scheme.lower() not in (b"bearer", b""):
        return "malformed", "what was sent as Authorization is not `Bearer KEY`"
    if not key.strip():
        return "no_key", "the header Authorization has no key"
    return "malformed", "what was sent is no key of this API: those are mlops_ and 43 characters"


class _Files(NamedTuple):
    """What is in the folder. paths: with what tells whether a file has changed; problem: why there is none."""

    paths: dict[Path, tuple[int, ...]]
    problem: str


def _client_of(path: Path) -> Client:
    """What a file says; ValueError or OSError where it cannot be used."""
    if not is_client_name(path.name):
        raise ValueError("a name is up to 63 letters, digits, -, _ and ., and begins with a letter or a digit")
    with path.open("rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ValueError(f"the file has more than {MAX_FILE} bytes")
    return read_client(content)
