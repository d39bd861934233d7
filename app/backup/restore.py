"""Putting an archive back where its server has its files: checked whole before anything is touched, in one swap."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.backup import databases, postgres
from app.backup.archive import ARTIFACTS, FILES, Contents, read
from app.backup.errors import BackupError
from app.backup.save import DATABASES, STAGING
from app.backup.store import Store, file_name, sync

BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps with a database
SPARE = 16 * 1024 * 1024  # bytes that a volume needs beside what is restored


@dataclass(frozen=True)
class Restored:
    """What is there now."""

    contents: Contents
    counts: dict[str, int]


def check(store: Store, name: str, component: str, urls: Mapping[str, str] = {}) -> Contents:
    """Read an archive to its end, and see whether the servers installed here can open what is in it.

    Args:
        urls: of databases that are in PostgreSQL here, by their variables.

    Raises:
        BackupError: it is damaged, foreign, or of a later version; nothing was touched.
    """
    file = file_name(name, component)
    with store.open(file) as opened:
        contents = read(opened, file, component)
    for database in DATABASES[component]:
        member, other, cure = database.file, database.dump, "global.databaseSecret or postgres.enabled=true"
        if database.variable in urls:
            member, other, cure = other, member, "neither postgres.enabled nor global.databaseSecret"
        if other in contents.members:
            raise BackupError(
                f"{file} has {other} in it, and here it would have to be {member}: what SQLite kept cannot be put into"
                " PostgreSQL, nor the other way",
                f"restore it into an installation with {cure}",
            )
        if member not in contents.members:
            if database is DATABASES[component][0]:
                raise BackupError(f"{file} has no {member} in it: it is not a backup of {component}")
            continue
        revision, known = contents.header.revisions.get(member, ""), database.known()
        if known is not None and revision not in known:
            made_by = contents.header.versions.get(database.package, "?")
            raise BackupError(
                f"{file} has tables of the version {revision!r}, made by {database.package} {made_by}, which the"
                f" {database.package} here does not know",
                f"upgrade the platform to one with {database.package} {made_by} or later, then restore",
            )
    return contents


def restore(store: Store, name: str, component: str, target: Path, urls: Mapping[str, str] = {}) -> Restored:
    """Put an archive in the place of what is in `target` and in PostgreSQL; its server must not run.

    The files are unpacked beside the old ones and checked; a PostgreSQL gets each dump in one transaction; then old and
    new files change places, by renames. Killed at any time, it can be run again, and goes on. What was there is removed
    at the end.

    Args:
        target: the folder of the server's files; other files in it stay.
        urls: of databases that are in PostgreSQL here, by their variables.

    Raises:
        BackupError: nothing is changed, unless the message says otherwise.
    """
    file = file_name(name, component)
    contents = check(store, name, component, urls)
    staging = target / STAGING
    journal, new, old = staging / "complete", staging / "new", staging / "old"
    if not journal.is_file() or journal.read_text() != _identity(file, contents):
        _refuse_swap_of_another(journal, old, file)
        shutil.rmtree(staging, ignore_errors=True)
        try:
            _unpack(store, file, component, target, new, contents)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        _write(journal, _identity(file, contents))
    counts: dict[str, int] = {}
    for database in DATABASES[component]:
        if database.dump in contents.members:
            postgres.restore(urls[database.variable], new / database.dump)
            counts |= postgres.described(new / database.dump, database.table, database.counted).counts
    dumps = {database.dump for database in DATABASES[component]}
    places = sorted(
        ({name.partition("/")[0] for name in contents.members} | ({ARTIFACTS} if component == "mlflow" else set()))
        - dumps
    )
    for place in places:
        if place != ARTIFACTS and (target / place).is_file() and (new / place).exists():
            databases.settle(target / place)
    _swap(target, new, old, places)
    for database in DATABASES[component]:
        if database.file in contents.members:
            counts |= databases.counts(target / database.file, database.counted)
    shutil.rmtree(staging)
    return Restored(contents, counts)


def encrypted_secrets(store: Store, name: str) -> str:
    """The encrypted passwords and keys of a backup, as text.

    Raises:
        BackupError: there are none, or they are damaged.
    """
    file = file_name(name, "secrets")
    with tempfile.TemporaryDirectory() as folder, store.open(file) as opened:
        read(opened, file, "secrets", into=Path(folder))
        path = Path(folder, *FILES["secrets"])
        if not path.exists():
            raise BackupError(f"{file} has no secrets in it")
        return path.read_text()


def _identity(file: str, contents: Contents) -> str:
    sums = {name: member.sha256 for name, member in sorted(contents.members.items())}
    return json.dumps([file, sums])


def _refuse_swap_of_another(journal: Path, old: Path, file: str) -> None:
    """Where another restore was killed in its swap, that has to end first: its `old` has the only copy of something."""
    if journal.is_file() and old.is_dir() and any(old.iterdir()):
        other = json.loads(journal.read_text())[0]
        raise BackupError(
            f"the restore of {other} was stopped half-way", f"run it again to its end before you restore {file}"
        )


def _unpack(store: Store, file: str, component: str, target: Path, new: Path, contents: Contents) -> None:
    needed, free = contents.size + SPARE, shutil.disk_usage(target).free
    if free < needed:
        raise BackupError(
            f"{target} has {free // 1_000_000} MB free, and {needed // 1_000_000} MB are needed beside what is there",
            "make the volume larger; what was there is unchanged",
        )
    try:
        new.mkdir(parents=True)
        with store.open(file) as opened:
            if read(opened, file, component, into=new) != contents:
                raise BackupError(f"{file} was changed while it was being restored", "restore again")
        if component == "mlflow":
            (new / ARTIFACTS).mkdir(exist_ok=True)
        _sync_folders(new)
    except OSError as error:
        room = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise BackupError(
            f"{file} cannot be unpacked: {'there is no room' if room else error} on {target}",
            "make the volume larger; what was there is unchanged" if room else "what was there is unchanged",
        ) from error
    for database in DATABASES[component]:
        if (new / database.dump).exists():
            postgres.described(new / database.dump, database.table)
        path = new / database.file
        try:
            damage = databases.problem(path) if path.exists() else ""
        except sqlite3.Error as error:
            damage = str(error)
        if damage:
            raise BackupError(f"{database.file} in {file} is damaged ({damage})", "restore another backup")


def _swap(target: Path, new: Path, old: Path, places: list[str]) -> None:
    """Each place: what is there aside, the new file in. What a killed restore has done is not done again."""
    old.mkdir(exist_ok=True)
    for place in places:
        if not (new / place).exists():
            continue  # done before
        for there in (*(f"{place}{suffix}" for suffix in BESIDE), place):
            if (target / there).exists():
                os.rename(target / there, old / f"{there}.{len(list(old.iterdir()))}")
        os.rename(new / place, target / place)
    for folder in (target, old, new):
        sync(folder)


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync(path.parent)


def _sync_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        sync(Path(folder))
