"""Brings a database to the schema of this version, and refuses one of a later version. For both prepare.py.

SQLite: the new schema is made in a copy, which takes the database's place in one step, so that a migration that is
killed or finds no room changes nothing. The database as it was stays beside it, the last two of them:
`mlflow.db.20261127T021500Z-1a2b3c4d5e6f` is mlflow.db as of that time (UTC), of the schema revision 1a2b3c4d5e6f.
PostgreSQL is migrated where it is; a copy of it is a backup's business. The image has none of the platform's own code.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import sqlite3
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

KEPT = 2  # copies of a database
BUSY_SECONDS = 10  # for which somebody may still have it open
JOURNALS = ("-wal", "-shm", "-journal")  # what SQLite may have beside a database
GO_BACK_TO = "MLOPS_GO_BACK_TO"  # names of copies, separated by commas: each takes its database's place, once
SET_ENV = "MLOPS_SET_ENV"  # the command that sets such a variable, as the chart knows it
GUIDE = 'docs/upgrading.md, "Back to an older version", says more'


class Refusal(Exception):
    """Why the server must not start, in a sentence, and what to do."""


@dataclass(frozen=True)
class Schema:
    """The schema of a database, as far as this version knows it.

    Attributes:
        owner: whose database it is, for messages.
        revisions: the schemas that this version migrates from, and `head`, the newest.
        table: where a database says which it has.
    """

    owner: str
    revisions: frozenset[str]
    head: str
    table: str = "alembic_version"

    @classmethod
    def of(cls, owner: str, package: str, folder: str, table: str = "alembic_version") -> Schema:
        """The schema of an installed package, by the Alembic scripts in one of its folders. It is not imported.

        Importing Prefect takes seconds, and most starts have nothing to migrate.
        """
        spec = find_spec(package)
        assert spec, f"{package} is not installed"
        assert spec.submodule_search_locations, f"{package} is no package"
        parents: dict[str, set[str]] = {}
        for script in (Path(spec.submodule_search_locations[0]) / folder).glob("*.py"):
            assigned = re.findall(r"^(revision|down_revision)\b[^=\n]*=\s*(.+)$", script.read_text(), re.MULTILINE)
            values = {name: ast.literal_eval(value) for name, value in assigned}
            if not values:
                continue  # __init__.py
            below = values["down_revision"]
            parents[values["revision"]] = {below} if isinstance(below, str) else set(below or ())
        (head,) = parents.keys() - set().union(*parents.values())
        return cls(owner, frozenset(parents), head, table)

    def unknown(self, found: Collection[str], where: str) -> str:
        """The sentence about revisions that this version does not know; "" where it knows them all."""
        if not set(found) - self.revisions:
            return ""
        return (
            f"{self.owner}'s database {where} has the schema revision {', '.join(sorted(found))}, which is of a later "
            f"version than this one: the newest that this one knows is {self.head}."
        )


@dataclass(frozen=True)
class Database:
    """A SQLite database and what brings it up to date.

    Attributes:
        upgrade: brings the database in a file, an empty one too, to the schema's head.
    """

    path: Path
    schema: Schema
    upgrade: Callable[[Path], None]

    def revisions(self, file: Path | None = None) -> list[str]:
        """What the database, or a copy of it, says of its schema; nothing where it is empty, or has no table for it.

        Raises Refusal where it is no database.
        """
        file = file or self.path
        if not file.exists():
            return []
        try:
            with _connection(file) as connection:
                query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
                if not connection.execute(query, [self.schema.table]).fetchone():
                    return []
                return [row[0] for row in connection.execute(f"SELECT version_num FROM {self.schema.table}")]  # noqa: S608
        except sqlite3.Error as error:
            raise Refusal(f"{self.schema.owner}'s database {file} cannot be read: {error}.") from error

    def copies(self) -> list[Path]:
        """The copies that are kept, oldest first."""
        form = re.compile(re.escape(self.path.name) + r"\.\d{8}T\d{6}Z-\w+")
        return sorted(path for path in self.path.parent.iterdir() if form.fullmatch(path.name))

    def readable_copy(self) -> Path | None:
        """The newest copy whose schema this version knows."""
        for copy in reversed(self.copies()):
            try:
                if self.revisions(copy) and not self.schema.unknown(self.revisions(copy), str(copy)):
                    return copy
            except Refusal:
                continue
        return None

    def problem(self) -> str:
        """Why the server must not start with it, in a sentence; "" where it may once it is migrated."""
        try:
            if not self.path.exists() and self.copies():
                return f"{self.schema.owner}'s database {self.path} is not there, but copies of it are."
            return self.schema.unknown(self.revisions(), str(self.path))
        except Refusal as refusal:
            return str(refusal)

    def migrate(self) -> None:
        """Bring it to this version's schema. Raises Refusal where that fails, and the database is as it was."""
        making = self.path.with_name(f"{self.path.name}.migrating")
        _remove(making)  # what a migration left that was killed
        found = self.revisions()
        if found == [self.schema.head]:
            return
        was = f"from revision {', '.join(found)}" if found else "of no revision"
        try:
            if self.path.exists():
                print(f"Migrating {self.path} {was} to {self.schema.head}", flush=True)
                with _connection(self.path) as source, _connection(making, create=True) as target:
                    source.backup(target)
            self.upgrade(making)
            _settle(making)
            assert self.revisions(making) == [self.schema.head], "the migration ended at another revision"
            self._replace_by(making)
        except Exception as error:
            free = shutil.disk_usage(self.path.parent).free
            size = self.path.stat().st_size if self.path.exists() else 0
            raise Refusal(
                f"{self.schema.owner}'s database {self.path}, {was}, could not be migrated to {self.schema.head}: "
                f"{_sentence(error)} It is as it was. It has {size / 1e6:.0f} MB, which its copy needs again; "
                f"{free / 1e6:.0f} MB are free. Correct that, or go back to the version before; {GUIDE}."
            ) from error
        finally:
            _remove(making)

    def go_back_to(self, name: str) -> None:
        """Put a copy in the database's place; the database as it is is kept as a copy. Raises Refusal."""
        copy = self.path.with_name(name)
        sentence = self.schema.unknown(self.revisions(copy), str(copy))
        if sentence:
            raise Refusal(f"{GO_BACK_TO}={name}: {sentence}")
        try:
            if self.path.exists() and copy.samefile(self.path):
                copy.unlink()  # left by what was killed between two steps
            else:
                self._replace_by(copy)
        except (OSError, sqlite3.Error) as error:
            raise Refusal(f"{GO_BACK_TO}={name}: {_sentence(error)} {self.path} is as it was.") from error
        print(f"{self.path} is now what {name} was", flush=True)

    def _replace_by(self, file: Path) -> None:
        """Give a file the database's name, in one step, and keep the database as a copy."""
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        kept = self.path.with_name(f"{self.path.name}.{now}-{self._settled_revision()}")
        if self.path.exists():
            _link(self.path, kept)
        for suffix in JOURNALS:  # of a database that cannot be read; SQLite would take them for the new one's
            journal = self.path.with_name(f"{self.path.name}{suffix}")
            if journal.exists():
                journal.rename(f"{kept}{suffix}")
        with file.open("rb+") as written:
            os.fsync(written.fileno())
        file.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        for copy in self.copies()[:-KEPT]:
            with suppress(OSError):  # an old copy is no reason not to start
                copy.unlink()

    def _settled_revision(self) -> str:
        """Make one file of the database; its revision, for a name. Raises sqlite3.Error where somebody has it open."""
        if not self.path.exists():
            return "gone"
        try:
            _settle(self.path)
            return "_".join(self.revisions()) or "none"
        except (sqlite3.Error, Refusal) as error:
            if getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            return "unreadable"


def prepare(databases: Collection[Database]) -> None:
    """Go back to the copies that the environment names, and migrate. Nothing is migrated where one is refused.

    Raises Refusal: which database, its revision and this version's, and the command that goes back to a copy.
    """
    for name in filter(None, os.environ.get(GO_BACK_TO, "").split(",")):
        for database in databases:
            if name in [copy.name for copy in database.copies()]:
                database.go_back_to(name)
                break
        else:
            print(f"{GO_BACK_TO} names {name}, which is not there, or not any more", flush=True)
    problems = [(database, database.problem()) for database in databases]
    problems = [(database, problem) for database, problem in problems if problem]
    if problems:
        sentences = " ".join(problem for _, problem in problems)
        raise Refusal(f"{sentences} {_way_back([database for database, _ in problems])}")
    for database in databases:
        database.migrate()


def must_migrate(schema: Schema, found: Collection[str], where: str) -> bool:
    """Whether a database on a server has another schema than this version. Raises Refusal where that is a later one.

    Args:
        found: what the database says of its schema.
        where: its address, without a password.
    """
    sentence = schema.unknown(found, where)
    if sentence:
        raise Refusal(f"{sentence} Upgrade again, or restore a backup of before the upgrade; {GUIDE}.")
    if list(found) == [schema.head]:
        return False
    if found:
        print(
            f"{where} is to be migrated from {', '.join(found)} to {schema.head}; only a backup is a copy", flush=True
        )
    return True


@contextmanager
def refusals() -> Iterator[None]:
    """End the process by a refusal; its sentence is the last line printed, as Kubernetes shows the end of the log."""
    try:
        yield
    except Refusal as refusal:
        if refusal.__cause__:
            traceback.print_exception(refusal.__cause__)
        sys.exit(str(refusal))


def _way_back(databases: list[Database]) -> str:
    copies = [database.readable_copy() for database in databases]
    if not all(copies):
        without = ", ".join(str(d.path) for d, copy in zip(databases, copies, strict=True) if not copy)
        return f"No copy of {without} is there that this version can read: upgrade again, or restore a backup; {GUIDE}."
    value = f"{GO_BACK_TO}={','.join(copy.name for copy in copies if copy)}"
    command = os.environ.get(SET_ENV)
    order = f"run `{command} {value}`" if command else f"set {value} and start again"
    return f"Upgrade again, or, to go back to what was copied before the migration, {order}; {GUIDE}."


@contextmanager
def _connection(file: Path, create: bool = False) -> Iterator[sqlite3.Connection]:
    uri = f"{file.resolve().as_uri()}?mode={'rwc' if create else 'rw'}"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        yield connection


def _settle(file: Path) -> None:
    """Make one file of a database, without a journal beside it. Raises sqlite3.Error where somebody has it open."""
    with _connection(file) as connection:
        connection.execute("BEGIN EXCLUSIVE")  # rolls back what a killed server left, too
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = DELETE")


def _link(file: Path, name: Path) -> None:
    try:
        name.hardlink_to(file)
    except FileExistsError:
        if not name.samefile(file):  # made just now, by what was killed then
            raise
    except OSError:  # a file system without links
        shutil.copy2(file, name)


def _remove(file: Path) -> None:
    for left in file.parent.glob(f"{file.name}*"):
        left.unlink()


def _sentence(error: BaseException) -> str:
    text = " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__
    return text if text.endswith(".") else f"{text}."
