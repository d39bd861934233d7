"""What tests of backups share: a small database as Prefect's, and the backup of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.backup import databases
from app.backup.databases import PREFECT
from app.backup.save import Job
from app.backup.store import backup_name

NOW = datetime(2026, 11, 27, 2, 0, tzinfo=UTC)
NAME = backup_name("team.mlops", NOW)
HEAD = max(PREFECT.known() or {""})


def database(path: Path, rows: int = 10, revision: str = HEAD) -> None:
    """A database as Prefect's: only what a backup looks at."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        connection.execute("CREATE TABLE flow_run (id INTEGER)")
        connection.executemany("INSERT INTO flow_run VALUES (?)", [(n,) for n in range(rows)])


def count(path: Path) -> int:
    """How many flow runs there are in a database."""
    return databases.counts(path, ("flow_run",))["flow_run"]


def job(source: Path, **options: Any) -> Job:
    """A backup of Prefect's folder, with other values of the Job where they are given."""
    return Job(**{"component": "prefect", "source": source, "origin": "team.mlops", "name": NAME, **options})
