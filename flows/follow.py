"""What the worker does about model files that change while it runs: the repository's new commits, and mounted files."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from prometheus_client import Gauge

from flows import catalog
from flows.repository import RepositoryError, RepositorySettings, RepositoryUnavailable, newest_commit

FILE_BROKEN = Gauge("mlops_model_file_broken", "1 for each model whose file cannot be used.", ["model"])
# with a label, so that there is none without a repository
REPOSITORY_READ = Gauge(
    "mlops_models_repository_read_timestamp_seconds",
    "When the repository of model files was last seen to be registered as it is, in Unix time.",
    ["repository"],
)
REGISTERING = 300.0  # seconds for which a registration may take

log = logging.getLogger("mlops.follow")


@dataclass(frozen=True)
class State:
    """What was registered of the model files, and what could not be.

    commit: of the repository, "" for none.
    mounted: `mounted_files` then.
    broken: models whose file cannot be used, with the reason.
    problem: why the repository could not be read, or "".
    """

    commit: str = ""
    mounted: str = ""
    broken: dict[str, str] | None = None
    problem: str = ""

    def write(self, folder: Path) -> None:
        """Keep it in the folder, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / ".state.json"
        new.write_text(json.dumps(asdict(self)))
        new.replace(folder / "state.json")

    @classmethod
    def read(cls, folder: Path) -> State:
        """What the folder has; an empty state where there is none."""
        try:
            return cls(**json.loads((folder / "state.json").read_text()))
        except (OSError, ValueError, TypeError):
            return cls()


def mounted_files(checkouts: Path) -> str:
    """A digest of the model files that are neither in the image nor checked out: those of a ConfigMap may change."""
    digest = hashlib.sha256()
    for folder in catalog.folders():
        if folder == catalog.MODELS or folder.is_relative_to(checkouts):
            continue
        for path in sorted(folder.glob("*.py")):
            digest.update(f"{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()


class Follower:
    """Registers model files again whenever they have changed.

    Args:
        command: registers them (`flows.deploy`); a process of its own, as it runs the files.
        folder: where it leaves its `State`.
        seconds: between two looks.
    """

    def __init__(self, command: Sequence[str], folder: Path, seconds: float) -> None:
        self._command, self._folder, self._seconds = command, folder, seconds
        self._settings = RepositorySettings()
        self._state = State.read(folder)
        self._problem = self._state.problem

    async def run(self) -> None:
        """Look, for ever."""
        self._tell()
        while True:
            await asyncio.sleep(self._seconds)
            await self.look()

    async def look(self) -> None:
        """Register once more if the repository has another commit, or a mounted file another content."""
        commit = await self._newest_commit()
        if (commit, mounted_files(self._folder)) != (self._state.commit, self._state.mounted):
            log.warning("model files have changed, registering them%s", f": commit {commit}" if commit else "")
            await self._register()
            self._state = State.read(self._folder)
        self._tell()

    async def _newest_commit(self) -> str:
        """The repository's newest commit; the registered one where it cannot be read."""
        if not self._settings.url:
            return ""
        try:
            commit, problem = await asyncio.to_thread(newest_commit, self._settings), ""
        except (RepositoryUnavailable, RepositoryError) as error:
            commit, problem = self._state.commit, str(error)
        if problem and problem != self._problem:
            log.error("the repository of model files cannot be read: %s", problem)
        self._problem = problem
        return commit

    async def _register(self) -> None:
        process = await asyncio.create_subprocess_exec(*self._command)
        try:
            async with asyncio.timeout(REGISTERING):
                code = await process.wait()
        except TimeoutError:
            code = -1
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code:
            log.error("model files were not registered, trying again in %g s", self._seconds)

    def _tell(self) -> None:
        FILE_BROKEN.clear()
        for model in self._state.broken or ():
            FILE_BROKEN.labels(model).set(1)
        if self._settings.url:
            told = REPOSITORY_READ.labels(self._settings.url)
            if self._state.commit and not self._problem and not self._state.problem:
                told.set(time.time())
