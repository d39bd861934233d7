"""Making an archive of one component, while its server runs and writes."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO

from app.backup import databases, postgres, retention
from app.backup.archive import ARTIFACTS, FILES, Contents, Header, Writer, read, stamp
from app.backup.databases import ACCOUNTS, MLFLOW, PREFECT, Database
from app.backup.errors import BackupError
from app.backup.store import Store, file_name

DATABASES: dict[str, tuple[Database, ...]] = {"mlflow": (MLFLOW, ACCOUNTS), "prefect": (PREFECT,), "secrets": ()}
STAGING = ".restore"  # the folder of a restore that is under way, beside the server's files
SETTLE_SECONDS = 60.0  # to wait for the end of an upload


@dataclass(frozen=True)
class Saved:
    """An archive that was written and checked. size: bytes, packed; removed: older backups that were removed."""

    file: str
    size: int
    seconds: float
    contents: Contents
    removed: list[str]


@dataclass(frozen=True)
class Job:
    """What to save, and where.

    component: "mlflow", "prefect" or "secrets".
    source: the folder of its files, as its server has it, or of the Secret's keys.
    origin: who saves, such as "mlops.mlops"; name: of the backup.
    last, days: see retention.outdated.
    recipient: an age public key, for secrets.
    urls: of databases that are in PostgreSQL, by their variables.
    """

    component: str
    source: Path
    origin: str
    name: str
    last: int = 7
    days: int = 14
    recipient: str = ""
    urls: Mapping[str, str] = field(default_factory=dict)


def save(job: Job, store: Store) -> Saved:
    """Write an archive, read it again, keep it, and remove what is outdated.

    The databases are copied first and the artifacts afterwards. MLflow only ever adds artifacts, and stores one before
    it names it in the database; so all that the copied database names is in the archive.

    Raises:
        BackupError: nothing was kept, and nothing removed.
    """
    started = time.monotonic()
    file = file_name(job.name, job.component)
    with _room(job, store), store.workspace() as folder:
        archive = folder / "archive"
        # Not for everybody: hashes of MLflow's passwords are in it.
        with os.fdopen(os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "wb") as opened:
            written = _write(job, opened, folder)
        size = archive.stat().st_size
        contents = store.keep(archive, file, lambda kept: read(kept, file, job.component))
        if contents != written:
            store.remove(file)
            raise BackupError(f"{file} is not what was written", "see whether the disk of the backups works")
    removed = _prune(job, store)
    return Saved(file, size, time.monotonic() - started, contents, removed)


def _write(job: Job, opened: BinaryIO, folder: Path) -> Contents:
    before = _files_of(job)
    contents = _write_files(job, opened, folder)
    if _files_of(job) != before:
        raise BackupError(f"{job.source} was restored while it was being saved", "make the backup again")
    return contents


def _files_of(job: Job) -> dict[str, int]:
    """Which files the databases are, by inode: a restore puts others there.

    Raises:
        BackupError: a restore is under way, and databases and artifacts may not be of one time.
    """
    if (job.source / STAGING).exists():
        raise BackupError(f"{job.source} is being restored", "make the backup when the restore has ended")
    paths = [job.source / database.file for database in DATABASES[job.component]]
    return {path.name: path.stat().st_ino for path in paths if path.exists()}


def _write_files(job: Job, opened: BinaryIO, folder: Path) -> Contents:
    copies = [copy for database in DATABASES[job.component] if (copy := _copied(job, database, folder))]
    counts = {table: rows for copy in copies for table, rows in copy.counts.items()}
    with Writer(opened, _header(job, copies)) as writer:
        for copy in copies:
            writer.add(copy.path.name, copy.path)
            copy.path.unlink()
        if job.component == "mlflow":
            counts["artifact files"] = _add_artifacts(writer, job.source / ARTIFACTS, folder / "settled")
        if job.component == "secrets":
            counts["keys"] = _add_secrets(writer, job)
        return writer.finish(counts)


@dataclass(frozen=True)
class Copy:
    """A copy of a database in a file, the version of its tables, and rows by table."""

    database: Database
    path: Path
    revision: str
    counts: dict[str, int]


def _copied(job: Job, database: Database, folder: Path) -> Copy | None:
    """A copy in the folder; None of accounts where there are none, as in the demo."""
    if url := job.urls.get(database.variable):
        path = folder / database.dump
        postgres.dump(url, path)
        dumped = postgres.described(path, database.table, database.counted)
        return Copy(database, path, dumped.revision, dumped.counts)
    if (job.source / database.file).is_file():
        path = folder / database.file
        databases.copy(job.source / database.file, path)
        counts = databases.counts(path, database.counted)
        return Copy(database, path, databases.revision(path, database.table), counts)
    if database is ACCOUNTS:
        return None
    raise BackupError(
        f"{job.source} has no {database.file}, and {database.variable} names no PostgreSQL",
        "see whether the server has made its database",
    )


def _add_secrets(writer: Writer, job: Job) -> int:
    """Add the Secret's keys, encrypted; returns how many."""
    from app.backup.secrets import encrypted

    values = {path.name: path.read_text() for path in job.source.iterdir() if path.is_file()}
    writer.add_bytes(FILES["secrets"][0], encrypted(json.dumps(values).encode(), job.recipient))
    return len(values)


def _header(job: Job, copies: list[Copy]) -> Header:
    return Header(
        job.component,
        job.origin,
        datetime.now(UTC).isoformat(timespec="seconds"),
        {copy.path.name: copy.revision for copy in copies},
        {copy.database.package: _version(copy.database.package) for copy in copies},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _add_artifacts(writer: Writer, root: Path, scratch: Path) -> int:
    """Add all files below MLflow's folder; returns how many. Links are left out: MLflow makes none."""
    began, files = time.time(), 0
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder, name)
            member = f"{ARTIFACTS}/{path.relative_to(root).as_posix()}"
            try:
                status = path.lstat()
                if not path.is_file() or path.is_symlink():
                    continue
                # Of a file that was written just now, an upload may be under way.
                is_young = status.st_ctime > began - SETTLE_SECONDS
                writer.add(member, _settled(path, scratch) if is_young else path)
            except FileNotFoundError:
                continue  # removed by `mlflow gc`
            files += 1
    return files


def _settled(path: Path, scratch: Path) -> Path:
    """A copy of a file that nobody wrote to while it was copied."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        with path.open("rb") as source, scratch.open("wb") as target:
            before = os.fstat(source.fileno())
            while content := source.read(1024 * 1024):
                target.write(content)
            after = os.fstat(source.fileno())
        if stamp(before) == stamp(after) and scratch.stat().st_size == before.st_size:
            return scratch
        if time.monotonic() > deadline:
            raise BackupError(
                f"{path} has been written to for {SETTLE_SECONDS:.0f} s", "make the backup when the upload has ended"
            )
        time.sleep(0.2)


def _prune(job: Job, store: Store) -> list[str]:
    entries = retention.outdated(store.entries(), job.origin, job.component, job.last, job.days, datetime.now(UTC))
    for entry in entries:
        store.remove(entry.file)
    return [entry.backup for entry in entries]


@contextmanager
def _room(job: Job, store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise BackupError(
                f"there is no room for the backup of {job.component}",
                "make the volume of the backups larger (backup.persistence.size), or keep fewer (backup.keep)",
            ) from error
        raise BackupError(f"the backup of {job.component} cannot be written ({error})") from error
