"""A git repository with model files: which commit is its newest, and the files of a commit.

The worker pod follows the repository (`flows.deploy`, `flows.follow`); a run reads its deployment's commit.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from threading import Lock
from typing import Any, ClassVar
from urllib.parse import urlsplit

from dulwich.client import GitClient, HTTPUnauthorized, get_transport_and_path
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.index import build_index_from_tree
from dulwich.objects import Commit, ObjectID
from dulwich.repo import Repo
from pydantic import SecretStr
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential
from urllib3.exceptions import HTTPError

from app.runtime.settings import EnvironmentSettings
from flows.settings import FlowSettings

COMMIT = re.compile("[0-9a-f]{40}")
SCHEMES = ("https", "http", "git")
TIMEOUT = 60.0  # seconds for which a server may say nothing
_ALONE = Lock()
CURRENT = "current"  # of the worker's checkouts, the newest


class RepositoryUnavailable(OSError):
    """The repository's server does not answer; trying again may help."""


class RepositoryError(ValueError):
    """The repository cannot be used as it is set; the message has the cure."""


class RepositorySettings(EnvironmentSettings):
    """Read from MLOPS_MODELS_GIT_* when it is created; in the chart they are `prefect-worker.models.git`.

    url: https://, http:// or git://; "" for no repository.
    ref: a branch, a tag or a whole commit; "" for the repository's default branch.
    path: folder of the model files in it; "" for its top.
    username, password: for https; a token is a password, with any user name.
    """

    prefix: ClassVar[str] = "MLOPS_MODELS_GIT_"

    url: str = ""
    ref: str = ""
    path: str = ""
    username: str = ""
    password: SecretStr = SecretStr("")


def newest_commit(settings: RepositorySettings) -> str:
    """The commit, 40 hex digits, that the settings' ref names now.

    Raises:
        RepositoryUnavailable: the server does not answer.
        RepositoryError: there is no such repository or ref, or the server refuses the account.
    """
    if COMMIT.fullmatch(settings.ref):
        return settings.ref
    client, path = _client(settings)
    with _explained(settings):
        refs = {name.decode(): commit for name, commit in client.get_refs(path.encode()).refs.items() if commit}
    ref = settings.ref
    names = [f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", ref] if ref else ["HEAD"]
    commit = next((refs[name] for name in names if name in refs), None)
    if commit is None:
        known = sorted(name.removeprefix("refs/heads/") for name in refs if name.startswith("refs/heads/"))
        raise RepositoryError(
            f"{settings.url} has no branch or tag {ref or 'HEAD'!r}; branches: {', '.join(known) or 'none'}; "
            "set prefect-worker.models.git.ref"
        )
    return commit.decode()


def checkout(settings: RepositorySettings, commit: str, folder: Path) -> Path:
    """The files of a commit, in `folder`/`commit`; returns the folder of the model files in it.

    Raises:
        RepositoryUnavailable: the server does not answer.
        RepositoryError: there is no such repository, commit or folder, or the server refuses the account.
    """
    whole = folder / commit
    if not whole.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as scratch:
            files = Path(scratch, "files")
            files.mkdir()
            with Repo.init_bare(Path(scratch, "git"), mkdir=True) as repository:
                tree = _fetch(settings, commit, repository)
                build_index_from_tree(str(files), str(Path(scratch, "index")), repository.object_store, tree)
            files.rename(whole)  # so that it is there whole or not at all
    models = whole / settings.path
    if not models.is_dir():
        raise RepositoryError(
            f"{settings.url} has no folder {settings.path!r} at {commit[:12]}; set prefect-worker.models.git.path"
        )
    return models


def update(settings: RepositorySettings, folder: Path) -> str:
    """Check out the newest commit; `folder`/current leads to it from then on, and older ones are removed.

    Returns:
        the commit.

    Raises:
        RepositoryUnavailable, RepositoryError: as `newest_commit` and `checkout`; what was current stays so.
    """
    commit = newest_commit(settings)
    checkout(settings, commit, folder)
    link = folder / f".{CURRENT}"
    link.unlink(missing_ok=True)
    link.symlink_to(commit)
    link.replace(folder / CURRENT)
    for older in folder.iterdir():
        if COMMIT.fullmatch(older.name) and older.name != commit:
            shutil.rmtree(older)
    return commit


def pull_step(settings: RepositorySettings, commit: str) -> dict[str, Any]:
    """What a Prefect deployment has a run do first: `pull_models` of this commit."""
    arguments = {"url": settings.url, "ref": settings.ref, "path": settings.path, "commit": commit}
    return {f"{__name__}.{pull_models.__name__}": arguments}


def pull_models(url: str, ref: str, path: str, commit: str) -> dict[str, str]:
    """Prefect's pull step in a run: the model files of the commit come first from then on, and the version names it.

    A server that does not answer is tried again for MLOPS_RETRY_SECONDS.

    Raises:
        RepositoryUnavailable, RepositoryError: as `checkout`.
    """
    settings = RepositorySettings(url=url, ref=ref, path=path)
    retrying = Retrying(
        retry=retry_if_exception_type(RepositoryUnavailable),
        wait=wait_exponential(max=15),
        stop=stop_after_delay(FlowSettings().retry_seconds),
        reraise=True,
    )
    models = retrying(checkout, settings, commit, Path(mkdtemp(prefix="models-")))
    others = os.environ.get("MLOPS_MODELS_PATH", "")
    os.environ["MLOPS_MODELS_PATH"] = os.pathsep.join(filter(None, [str(models), others]))
    os.environ["MLOPS_MODELS_REPOSITORY"], os.environ["MLOPS_MODELS_COMMIT"] = url, commit
    return {"commit": commit}


def _client(settings: RepositorySettings) -> tuple[GitClient, str]:
    parts = urlsplit(settings.url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise RepositoryError(
            f"{settings.url!r} is no address of a repository that can be read: it begins with https://, http:// or "
            "git://; a private one takes a token, see prefect-worker.models.git.credentialsSecret"
        )
    if parts.username or parts.password:
        host = parts.netloc.rpartition("@")[2]
        raise RepositoryError(
            f"the repository's address on {host} holds an account, which everybody could read: put it into the Secret "
            "that prefect-worker.models.git.credentialsSecret names"
        )
    password = settings.password.get_secret_value() or None
    return get_transport_and_path(settings.url, username=password and (settings.username or "git"), password=password)


def _fetch(settings: RepositorySettings, commit: str, repository: Repo) -> Any:
    """Bring a commit into a bare repository; the id of its tree."""
    client, path = _client(settings)
    wanted = ObjectID(commit.encode())

    def only(refs: Any, depth: int | None = None) -> list[ObjectID]:
        return [wanted]

    with _explained(settings):
        try:  # the commit alone: most servers give any that a branch leads to
            client.fetch(path.encode(), repository, determine_wants=only, depth=1)
        except GitProtocolError:
            client.fetch(path.encode(), repository)
    found = repository.object_store[wanted] if wanted in repository.object_store else None  # noqa: SIM401 (it has no get)
    if not isinstance(found, Commit):
        raise RepositoryError(
            f"{settings.url} has no commit {commit}: its history was rewritten since; the worker registers the newest "
            "within a minute, then start the run again"
        )
    return found.tree


@contextmanager
def _explained(settings: RepositorySettings) -> Iterator[None]:
    """Give what git's servers refuse, or do not answer, as this module's errors."""
    try:
        with _timeout():
            yield
    except HTTPUnauthorized as error:
        raise RepositoryError(
            f"{settings.url} asks for an account, or refuses this one: see prefect-worker.models.git.credentialsSecret"
        ) from error
    except HangupException as error:  # of git's daemon, for one that it does not have
        raise RepositoryUnavailable(f"{settings.url} hangs up: is there such a repository?") from error
    except NotGitRepository as error:
        raise RepositoryError(f"{settings.url} is no repository, or none that may be read without a token") from error
    except (GitProtocolError, HTTPError) as error:
        if isinstance(error, HTTPError) or isinstance(error.__cause__, HTTPError):
            raise RepositoryUnavailable(f"{settings.url} does not answer: {error}") from error
        raise RepositoryError(f"{settings.url} refuses: {error}") from error
    except OSError as error:
        raise RepositoryUnavailable(f"{settings.url} does not answer: {error}") from error


@contextmanager
def _timeout() -> Iterator[None]:
    """Have sockets made meanwhile give up after TIMEOUT: dulwich has no timeout for git://. One thread at a time."""
    with _ALONE:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(TIMEOUT)
        try:
            yield
        finally:
            socket.setdefaulttimeout(before)
