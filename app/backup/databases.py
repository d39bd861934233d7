"""The databases of MLflow and Prefect; of SQLite: a copy of one moment, the version of its tables, and its rows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from app.backup.errors import BackupError

SECONDS = 60.0  # to wait for a lock
_REVISION = re.compile(r"""^revision(?:: str)?\s*=\s*["'](\w+)["']""", re.MULTILINE)


@dataclass(frozen=True)
class Database:
    """A database of MLflow or Prefect.

    file: of SQLite, on the server's volume; dump: of PostgreSQL, in an archive.
    variable: of the environment, with the address of a PostgreSQL.
    table: where Alembic keeps the version of the tables.
    package, versions: the program, and the folders in it with all the versions that it knows.
    counted: tables whose rows are worth telling of.
    """

    file: str
    variable: str
    table: str
    package: str
    versions: tuple[str, ...]
    counted: tuple[str, ...] = ()

    @property
    def dump(self) -> str:
        """The file of its dump."""
        return Path(self.file).with_suffix(".dump").name

    def known(self) -> set[str] | None:
        """The versions of the tables that the program installed here can open; None where it is not installed."""
        spec = find_spec(self.package)
        if not spec or not spec.submodule_search_locations:
            return None
        root = Path(next(iter(spec.submodule_search_locations)))
        paths = (path for folder in self.versions for path in (root / folder).glob("*.py"))
        return {found for path in paths for found in _REVISION.findall(path.read_text())} or None


MLFLOW = Database(
    "mlflow.db",
    "MLOPS_BACKUP_MLFLOW_URL",
    "alembic_version",
    "mlflow",
    ("store/db_migrations/versions",),
    ("experiments", "runs", "metrics", "params", "registered_models", "model_versions", "registered_model_aliases"),
)
ACCOUNTS = Database(
    "basic_auth.db",
    "MLOPS_BACKUP_MLFLOW_AUTH_URL",
    "alembic_version_auth",
    "mlflow",
    ("server/auth/db/migrations/versions",),
    ("users",),
)
PREFECT = Database(
    "prefect.db",
    "MLOPS_BACKUP_PREFECT_URL",
    "alembic_version",
    "prefect",
    ("server/database/_migrations/versions/sqlite", "server/database/_migrations/versions/postgresql"),
    ("flow_run", "task_run", "deployment", "automation", "artifact", "log"),
)


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=SECONDS)) as connection:
        yield connection


def copy(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, while others read and write it.

    It is one step: between several, a database that is written to all the time would be begun anew each time.

    Raises:
        BackupError: it is no database, damaged, or locked for a minute.
    """
    try:
        with _opened(source, "rw") as opened, closing(sqlite3.connect(target)) as copied:
            opened.backup(copied, pages=-1)
            copied.execute("PRAGMA journal_mode=DELETE")  # the copy is one file
        damage = problem(target)
    except sqlite3.Error as error:
        raise BackupError(f"{source} cannot be copied ({error})", "see whether the server that has it works") from error
    if damage:
        raise BackupError(f"{source} is damaged ({damage})", "restore an earlier backup; this one was not kept")


def problem(path: Path) -> str:
    """What is wrong with a database, in SQLite's words; "" for nothing."""
    with _opened(path, "ro") as connection:
        answer = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    return "" if answer == "ok" else answer


def revision(path: Path, table: str) -> str:
    """The version of its tables; "" where it has none."""
    with _opened(path, "ro") as connection:
        if table not in _tables(connection):
            return ""
        row = connection.execute(f"SELECT version_num FROM {table}").fetchone()  # noqa: S608
        return str(row[0]) if row else ""


def counts(path: Path, tables: tuple[str, ...]) -> dict[str, int]:
    """Rows by table, of those of these tables that there are."""
    with _opened(path, "ro") as connection:
        there = _tables(connection)
        return {
            table: int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608
            for table in tables
            if table in there
        }


def settle(path: Path) -> None:
    """Bring what a killed server left beside its database into it, so that it is one file.

    Raises:
        BackupError: a server has it open.
    """
    try:
        with _opened(path, "rw") as connection:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA busy_timeout=2000")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise BackupError(f"{path} is in use", "stop what uses it, and restore again") from error
    except sqlite3.DatabaseError:
        return  # it is damaged, which is why somebody restores


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
