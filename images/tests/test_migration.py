"""An upgrade that fails, or is taken back, loses nothing: prepare.py with real databases of MLflow and Prefect."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from app.runtime.processes import Server
from app.runtime.waiting import wait_until
from app.testing.docs import ROOT
from images.mlflow.prepare import ACCOUNTS, TRACKING
from images.prefect.prepare import SCRIPTS
from images.tracking import migration
from images.tracking.migration import GO_BACK_TO, KEPT, SET_ENV, Database, Refusal, Schema

PREFECT = Schema.of("Prefect", "prefect", f"{SCRIPTS}/sqlite")
LATER = "ffffffffffff"  # a revision that no version has yet
COMMAND = "kubectl -n team set env deployment/ours --containers=prepare"


def ask(file: Path, query: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(file)) as connection, connection:
        return list(connection.execute(query))


def copy_of(file: Path, to: Path) -> None:
    """A copy of a database that a server has open."""
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


@dataclass
class Installation:
    """A folder with the databases of a server, as on its volume, and the program that prepares them.

    Attributes:
        name: mlflow or prefect; file: its database; known: its schema.
        facts: what must still be there afterwards, by a query.
    """

    folder: Path
    name: str
    file: Path
    known: Schema
    facts: str

    def prepare(self, limit: int = 0, go_back_to: str = "") -> subprocess.CompletedProcess[str]:
        """Run prepare.py. limit: bytes that a file may have, as if the disk were full."""
        process = self.start(limit, go_back_to)
        out, error = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, error)

    def start(self, limit: int = 0, go_back_to: str = "") -> subprocess.Popen[str]:
        accounts = ("READER_PASSWORD", "TRAINER_PASSWORD", "GATE_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD")
        env = {
            "PYTHONPATH": f"{ROOT / 'images' / 'mlflow'}{os.pathsep}{ROOT}",
            "PREFECT_HOME": str(self.folder),
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{self.folder / 'mlflow.db'}",
            "MLOPS_AUTH_DATABASE_URI": f"sqlite:///{self.folder / 'basic_auth.db'}",
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "basic_auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-test",
            **dict.fromkeys(accounts, "password-of-the-test"),
            SET_ENV: COMMAND,
            GO_BACK_TO: go_back_to,
        }
        return subprocess.Popen(
            [sys.executable, str(ROOT / "images" / self.name / "prepare.py")],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None,
        )

    def revision(self, file: Path | None = None) -> str:
        (row,) = ask(file or self.file, f"SELECT version_num FROM {self.known.table}")  # noqa: S608
        return row[0]

    def content(self, file: Path | None = None) -> list[tuple[str, ...]]:
        return ask(file or self.file, self.facts)

    def copies(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.file.name}.*Z-*"))

    def make_later(self) -> None:
        """As if a later version had migrated it."""
        ask(self.file, f"UPDATE {self.known.table} SET version_num = '{LATER}'")  # noqa: S608


@pytest.fixture(scope="module")
def older_mlflow(tmp_path_factory: pytest.TempPathFactory, mlflow_with_accounts: Server) -> Path:
    """MLflow's databases of a running server, one schema before this version's."""
    folder = tmp_path_factory.mktemp("older-mlflow")
    for name in ("mlflow.db", "basic_auth.db"):
        copy_of(mlflow_with_accounts.logs / name, folder / name)
    import mlflow.store

    scripts = Path(mlflow.store.__file__).parent / "db_migrations"
    config = Config(str(scripts / "alembic.ini"))
    config.set_main_option("script_location", str(scripts))
    engine = create_engine(f"sqlite:///{folder / 'mlflow.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "-1")
    engine.dispose()
    return folder


@pytest.fixture(scope="module")
def older_prefect(tmp_path_factory: pytest.TempPathFactory, prefect_server: Server) -> Path:
    """Prefect's database of a running server, one schema before this version's."""
    folder = tmp_path_factory.mktemp("older-prefect")
    file = folder / "prefect.db"
    copy_of(prefect_server.logs / "home" / "prefect.db", file)
    (script,) = [s for s in scripts_of(PREFECT).walk_revisions() if s.revision == PREFECT.head]
    (index,) = re.findall(r"DROP INDEX IF EXISTS (\w+)", Path(script.path).read_text())
    ask(file, f"DROP INDEX {index}")
    ask(file, f"UPDATE alembic_version SET version_num = '{script.down_revision}'")  # noqa: S608
    return folder


def scripts_of(schema: Schema) -> ScriptDirectory:
    """The same scripts as Alembic reads them."""
    import mlflow.server.auth.db
    import mlflow.store
    import prefect.server.database

    folders = {
        TRACKING: Path(mlflow.store.__file__).parent / "db_migrations" / "versions",
        ACCOUNTS: Path(mlflow.server.auth.db.__file__).parent / "migrations" / "versions",
        PREFECT: Path(prefect.server.database.__file__).parent / "_migrations" / "versions" / "sqlite",
    }
    return ScriptDirectory(str(folders[schema].parent), version_locations=[str(folders[schema])])


@pytest.fixture(params=["mlflow", "prefect"])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    """An installation that the version before this one has left."""
    folder = tmp_path / "data"
    shutil.copytree(request.getfixturevalue(f"older_{request.param}"), folder)
    if request.param == "mlflow":
        return Installation(folder, "mlflow", folder / "mlflow.db", TRACKING, "SELECT name FROM experiments ORDER BY 1")
    return Installation(folder, "prefect", folder / "prefect.db", PREFECT, "SELECT name FROM block_type ORDER BY 1")


@pytest.mark.parametrize("schema", [TRACKING, ACCOUNTS, PREFECT], ids=["tracking", "accounts", "prefect"])
def test_the_revisions_are_those_that_alembic_finds(schema: Schema) -> None:
    scripts = scripts_of(schema)
    assert schema.revisions == {script.revision for script in scripts.walk_revisions()}
    assert [schema.head] == scripts.get_heads()


def test_there_and_back(older: Installation) -> None:
    """An upgrade copies before it migrates; taken back, the refusal names the command that goes back to the copy."""
    before, content = older.revision(), older.content()
    assert before != older.known.head
    assert content
    done = older.prepare()
    assert done.returncode == 0, done.stderr
    assert (older.revision(), older.content()) == (older.known.head, content)
    (copy,) = older.copies()
    assert copy.name.endswith(f"Z-{before}")
    assert (older.revision(copy), older.content(copy)) == (before, content)
    assert f"Migrating {older.file} from revision {before} to {older.known.head}" in done.stdout

    older.make_later()
    refused = older.prepare()
    assert refused.returncode == 1
    sentence = refused.stderr.splitlines()[-1]
    for part in (str(older.file), LATER, older.known.head, f"`{COMMAND} {GO_BACK_TO}={copy.name}`"):
        assert part in sentence, sentence
    assert len(sentence) < 2048, "Kubernetes shows no more of a container's end"
    assert older.revision() == LATER, "a refusal changes nothing"

    back = older.prepare(go_back_to=copy.name)
    assert back.returncode == 0, back.stderr
    assert (older.revision(), older.content()) == (older.known.head, content)
    assert LATER in [older.revision(kept) for kept in older.copies()], "what was written in the meantime is kept"

    # the variable stays in the Deployment, and does nothing any more
    older.make_later()
    assert older.prepare(go_back_to=copy.name).returncode == 1
    assert older.revision() == LATER


def test_without_a_copy_the_refusal_says_so(older: Installation) -> None:
    older.make_later()
    refused = older.prepare()
    assert refused.returncode == 1
    assert f"No copy of {older.file} is there that this version can read" in refused.stderr.splitlines()[-1]
    assert GO_BACK_TO not in refused.stderr


def test_a_database_that_is_gone_is_not_begun_anew(older: Installation) -> None:
    """A start with an empty one would look as if everything were lost; its copies are there."""
    copy = older.file.with_name(f"{older.file.name}.20260101T000000Z-{older.revision()}")
    older.file.rename(copy)
    refused = older.prepare()
    assert refused.returncode == 1
    sentence = refused.stderr.splitlines()[-1]
    assert f"database {older.file} is not there, but copies of it are." in sentence
    assert f"{GO_BACK_TO}={copy.name}`" in sentence
    assert not older.file.exists()


def test_a_full_disk_changes_nothing(older: Installation) -> None:
    before = (older.revision(), older.content())
    failed = older.prepare(limit=older.file.stat().st_size // 2)
    assert failed.returncode == 1
    sentence = failed.stderr.splitlines()[-1]
    for part in (str(older.file), "could not be migrated", older.known.head, "It is as it was.", "MB are free"):
        assert part in sentence, sentence
    assert (older.revision(), older.content()) == before
    assert not list(older.folder.glob("*.migrating*"))
    assert older.copies() == []


def test_a_migration_that_is_killed_changes_nothing(older: Installation) -> None:
    before, content = older.revision(), older.content()
    process = older.start()
    making = older.file.with_name(f"{older.file.name}.migrating")
    wait_until(lambda: making.exists() or process.poll() is not None, 120, "the migration", pause=0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was over before it was killed"
    assert (older.revision(), older.content()) == (before, content)
    assert older.prepare().returncode == 0
    assert (older.revision(), older.content()) == (older.known.head, content)
    assert not list(older.folder.glob("*.migrating*"))


def test_a_database_that_was_left_half_migrated_is_named_and_kept(older: Installation) -> None:
    """As a server that migrated in place has left it: a step of the next revision is there already."""
    if older.name == "prefect":
        ask(older.file, "ALTER TABLE flow_run RENAME TO moved")
    else:
        ask(older.file, "CREATE TABLE job_locks (lock_key VARCHAR(255))")
    content = older.content()
    failed = older.prepare()
    assert failed.returncode == 1
    sentence = failed.stderr.splitlines()[-1]
    assert "could not be migrated" in sentence
    assert ("flow_run" if older.name == "prefect" else "job_locks") in sentence, "what SQLite says"
    assert older.content() == content


@pytest.mark.parametrize("content", [b"no database" * 200, None], ids=["another file", "half a database"])
def test_what_is_no_database_is_named(older: Installation, content: bytes | None) -> None:
    older.file.write_bytes(content or older.file.read_bytes()[:2000])
    failed = older.prepare()
    assert failed.returncode == 1
    assert f"database {older.file} cannot be read: " in failed.stderr.splitlines()[-1]


def test_a_database_that_somebody_has_open_is_not_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "BUSY_SECONDS", 0)
    database = small(tmp_path, "one")
    with closing(sqlite3.connect(database.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Refusal, match="database is locked"):
            database.migrate()
    assert database.revisions() == ["one"]


# -- a database of one table, for what takes many steps ------------------------------------------------------------

SMALL = Schema("A test", frozenset({"one", "two"}), "two")


def small(folder: Path, revision: str, upgrade: Callable[[Path], None] | None = None) -> Database:
    """A database that was written by a server which was killed: part of it is in the journal."""

    def to_two(file: Path) -> None:
        ask(file, "UPDATE alembic_version SET version_num = 'two'")

    file = folder / "small.db"
    if not file.exists():
        code = (
            "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
            "c.execute('PRAGMA journal_mode = WAL'); c.execute('CREATE TABLE alembic_version (version_num)'); "
            "c.execute('INSERT INTO alembic_version VALUES (?)', [sys.argv[2]]); os._exit(0)"
        )
        subprocess.run([sys.executable, "-c", code, str(file), revision], check=True)
        assert file.with_name("small.db-wal").stat().st_size
    return Database(file, SMALL, upgrade or to_two)


def test_what_is_in_the_journal_is_migrated_and_copied_too(tmp_path: Path) -> None:
    database = small(tmp_path, "one")
    database.migrate()
    assert database.revisions() == ["two"]
    (copy,) = database.copies()
    assert database.revisions(copy) == ["one"]
    assert {path.name for path in tmp_path.iterdir()} == {"small.db", copy.name}


def test_what_a_killed_migration_left_goes_with_the_next_start(tmp_path: Path) -> None:
    """After a rollback, too, which has nothing to migrate; a stale journal would spoil the next attempt."""
    database = small(tmp_path, "two")
    for suffix in ("", "-journal", "-wal"):
        database.path.with_name(f"small.db.migrating{suffix}").write_text("left")
    database.migrate()
    assert not list(tmp_path.glob("*.migrating*"))


@pytest.mark.parametrize("content", [b"no database" * 200, None], ids=["another file", "no file"])
def test_back_from_what_is_no_database_its_journal_does_not_come_along(tmp_path: Path, content: bytes | None) -> None:
    database = small(tmp_path, "one")
    journal = database.path.with_name("small.db-wal")
    stale = b"no journal" if content else journal.read_bytes()  # else SQLite has the database again, from its journal
    copy = tmp_path / "small.db.20260101T000000Z-two"
    copy_of(database.path, copy)
    ask(copy, "UPDATE alembic_version SET version_num = 'two'")
    database.path.unlink()
    if content:
        database.path.write_bytes(content)
    journal.write_bytes(stale)
    database.go_back_to(copy.name)
    assert database.revisions() == ["two"]
    kept = {path.name.partition("Z-")[2]: path.read_bytes() for path in tmp_path.glob("small.db.*Z-*")}
    assert kept == ({"unreadable": content} if content else {"gone-wal": stale})


def test_a_database_in_use_is_not_replaced_by_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "BUSY_SECONDS", 0)
    database = small(tmp_path, "one")
    copy = tmp_path / "small.db.20260101T000000Z-one"
    copy_of(database.path, copy)
    with closing(sqlite3.connect(database.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Refusal, match="database is locked"):
            database.go_back_to(copy.name)
    assert copy.exists()


def test_the_last_two_copies_are_kept(tmp_path: Path) -> None:
    database = small(tmp_path, "one")
    stale = [tmp_path / f"small.db.2026010{day}T000000Z-one" for day in (1, 2, 3)]
    for path in stale:
        copy_of(database.path, path)
    mine = tmp_path / "small.db.by-hand"
    mine.write_text("somebody's own")
    database.migrate()
    assert len(database.copies()) == KEPT
    assert database.copies()[0] == stale[-1]
    assert mine.exists()


STEPS = ("hardlink_to", "replace", "unlink")
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from images.tests.test_migration import small

step, when, real = sys.argv[3], sys.argv[4], getattr(Path, sys.argv[3])
def killed(self, *arguments, **options):
    if when == "after":
        real(self, *arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(Path, step, killed)
small(Path(sys.argv[2]), "one").migrate()
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_there_is_always_a_whole_database(tmp_path: Path, step: str, when: str) -> None:
    database = small(tmp_path, "one")
    for day in (1, 2):
        copy_of(database.path, tmp_path / f"small.db.2026010{day}T000000Z-one")
    done = subprocess.run([sys.executable, "-c", KILLED, str(ROOT), str(tmp_path), step, when], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert database.revisions() in (["one"], ["two"])
    database.migrate()
    assert database.revisions() == ["two"]
    assert "one" in [database.revisions(copy)[0] for copy in database.copies()]
    assert not list(tmp_path.glob("*.migrating*"))
