"""Backups of a real PostgreSQL: restored, a database has what it had, and nothing besides."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.backup import postgres
from app.backup.databases import PREFECT
from app.backup.errors import BackupError
from app.backup.restore import check, restore
from app.backup.save import save
from app.backup.store import FolderStore, file_name
from app.runtime.processes import free_port
from app.testing.backups import HEAD, NAME, database, job
from app.testing.postgres import Postgres, running_postgres

# As Prefect's: types, functions, views, sequences, and indexes of an extension.
SCHEMA = """
CREATE TYPE state AS ENUM ('RUNNING', 'COMPLETED');
CREATE TABLE alembic_version (version_num text PRIMARY KEY);
INSERT INTO alembic_version VALUES (:'revision');
CREATE TABLE flow_run (id serial PRIMARY KEY, name text, state state, parent int REFERENCES flow_run);
CREATE TABLE "log" (run int REFERENCES flow_run, message text);
CREATE INDEX trigrams ON flow_run USING gin (name gin_trgm_ops);
CREATE VIEW running AS SELECT * FROM flow_run WHERE state = 'RUNNING';
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1';
INSERT INTO flow_run (name, state) SELECT 'run ' || n, 'COMPLETED' FROM generate_series(1, 100) n;
UPDATE flow_run SET parent = id % 50 + 1;
INSERT INTO log VALUES (1, E'COPY public.flow_run (id) FROM stdin;\\n\\\\.\\nno end\\t'), (2, NULL);
"""
EVERYTHING = """
SELECT (SELECT json_agg(f ORDER BY id) FROM flow_run f), (SELECT json_agg(l ORDER BY run) FROM log l),
       (SELECT last_value FROM flow_run_id_seq), twice(21), (SELECT count(*) FROM running),
       (SELECT json_agg(c.relname ORDER BY c.relname) FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def prefect(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """With a database as Prefect's, whose extension is an administrator's."""
    monkeypatch.setenv("PATH", str(server.programs), prepend=os.pathsep)
    server.sql("CREATE DATABASE prefect OWNER mlops", "postgres", "admin")
    server.sql("CREATE EXTENSION pg_trgm; ALTER SCHEMA public OWNER TO mlops", user="admin")
    server.sql(f"\\set revision {HEAD}\n{SCHEMA}")
    yield server
    server.sql("DROP DATABASE prefect WITH (FORCE)", "postgres", "admin")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "kept")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a backup has in place of a volume."""
    (folder := tmp_path / "data").mkdir()
    return folder


def urls(server: Postgres, **options: str) -> dict[str, str]:
    return {PREFECT.variable: server.url(**options)}


def kept(store: FolderStore) -> list[str]:
    return sorted(path.name for path in store.root.iterdir()) if store.root.exists() else []


def test_a_database_has_what_it_had_and_nothing_besides(prefect: Postgres, folder: Path, store: FolderStore) -> None:
    before = prefect.sql(EVERYTHING)
    saved = save(job(folder, urls=urls(prefect)), store)
    assert saved.contents.header.revisions == {"prefect.dump": HEAD}
    assert (saved.contents.counts["flow_run"], saved.contents.counts["log"]) == (100, 2)
    prefect.sql(
        "DROP TABLE log; DELETE FROM flow_run; CREATE TABLE later (run int REFERENCES flow_run);"
        " CREATE TYPE more AS ENUM ('A'); CREATE SEQUENCE alone;"
        " CREATE MATERIALIZED VIEW names AS SELECT name FROM flow_run;"
        " CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 3 * $1'"
    )
    restored = restore(store, NAME, "prefect", folder, urls(prefect, driver="postgresql"))
    assert restored.counts == saved.contents.counts
    assert prefect.sql(EVERYTHING) == before
    assert prefect.sql("SELECT count(*) FROM pg_type WHERE typname = 'more'") == "0"
    assert list(folder.iterdir()) == []
    prefect.sql("INSERT INTO flow_run (name) VALUES ('next')")


def test_an_empty_database_gets_it_all(prefect: Postgres, folder: Path, store: FolderStore) -> None:
    before = prefect.sql(EVERYTHING)
    save(job(folder, urls=urls(prefect)), store)
    prefect.sql("DROP DATABASE prefect WITH (FORCE)", "postgres", "admin")
    prefect.sql("CREATE DATABASE prefect OWNER mlops", "postgres", "admin")
    prefect.sql("CREATE EXTENSION pg_trgm; ALTER SCHEMA public OWNER TO mlops", user="admin")
    restore(store, NAME, "prefect", folder, urls(prefect))
    assert prefect.sql(EVERYTHING) == before


def test_a_restore_that_fails_in_its_middle_changes_nothing(
    prefect: Postgres, folder: Path, store: FolderStore
) -> None:
    save(job(folder, urls=urls(prefect)), store)
    prefect.sql("DELETE FROM log; INSERT INTO log VALUES (3, 'mine')")
    before = prefect.sql(EVERYTHING)
    prefect.sql("REVOKE CREATE ON SCHEMA public FROM mlops, public; ALTER SCHEMA public OWNER TO admin", user="admin")
    prefect.sql("GRANT USAGE ON SCHEMA public TO mlops", user="admin")
    with pytest.raises(BackupError, match=r"permission denied.*unchanged"):
        restore(store, NAME, "prefect", folder, urls(prefect))
    prefect.sql("ALTER SCHEMA public OWNER TO mlops; GRANT ALL ON SCHEMA public TO mlops", user="admin")
    assert prefect.sql(EVERYTHING) == before
    restore(store, NAME, "prefect", folder, urls(prefect))  # run again, it goes on
    assert prefect.sql("SELECT count(*) FROM log") == "2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"driver": "mysql"}, "begins with 'mysql'"),
    ],
)
def test_what_cannot_be_read_is_named_without_the_password(
    prefect: Postgres, folder: Path, store: FolderStore, options: dict[str, str], message: str
) -> None:
    with pytest.raises(BackupError, match=message) as error:
        save(job(folder, urls=urls(prefect, **options)), store)
    assert "wrong" not in str(error.value)
    assert kept(store) == []


def test_a_server_that_is_not_there_is_named(
    prefect: Postgres, folder: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "REACH_SECONDS", 2.0)
    url = f"postgresql://mlops:secret@127.0.0.1:{free_port()}/prefect"
    with pytest.raises(BackupError, match=r"the database prefect of 127\.0\.0\.1.*refused.*egressCIDRs") as error:
        save(job(folder, urls={PREFECT.variable: url}), store)
    assert "secret" not in str(error.value)


def test_a_dump_that_was_cut_off_is_damaged(prefect: Postgres, tmp_path: Path) -> None:
    dump = tmp_path / "prefect.dump"
    postgres.dump(prefect.url(), dump)
    dump.write_bytes(dump.read_bytes()[:-200])
    with pytest.raises(BackupError, match=r"prefect\.dump is damaged"):
        postgres.described(dump, PREFECT.table)
    dump.write_bytes(b"not a dump")
    with pytest.raises(BackupError, match=r"prefect\.dump is damaged"):
        postgres.restore(prefect.url(), dump)


def test_what_one_kind_of_database_kept_is_not_put_into_the_other(
    prefect: Postgres, folder: Path, store: FolderStore
) -> None:
    save(job(folder, urls=urls(prefect)), store)
    with pytest.raises(BackupError, match=r"has prefect\.dump in it.*with global\.databaseSecret or postgres\.enabled"):
        check(store, NAME, "prefect")
    (store.root / file_name(NAME, "prefect")).unlink()
    database(folder / "prefect.db")
    save(job(folder), store)
    with pytest.raises(BackupError, match=r"has prefect\.db in it.*neither postgres\.enabled nor"):
        restore(store, NAME, "prefect", folder, urls(prefect))


def test_without_postgresqls_programs_the_image_that_has_them_is_named(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackupError, match="psql is not installed here; the platform's image `flows`"):
        save(job(tmp_path, urls={PREFECT.variable: "postgresql://mlops:secret@nowhere/prefect"}), store)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql+psycopg2://u:p@h:5433/d", "postgresql://u@h:5433/d"),
        ("postgresql+asyncpg://u:p%40q@h/d?ssl=require", "postgresql://u@h/d?sslmode=require"),
        ("postgresql://h/d?sslmode=verify-full&sslrootcert=/ca.pem", "postgresql://h/d?sslmode=verify-full&sslrootcert=%2Fca.pem"),
        ("postgresql://us%40er:p@h/d", "postgresql://us%40er@h/d"),
    ],
)  # fmt: skip
def test_addresses_are_told_to_postgresqls_programs_without_the_password(url: str, address: str) -> None:
    assert postgres._address(url) == address


def test_a_server_that_refuses_connections_at_first_is_waited_for(
    prefect: Postgres, folder: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the network of a cluster does to a pod that has just started: here, psql is not let through twice."""
    (programs := folder.parent / "programs").mkdir()
    (programs / "psql").write_text(
        f'#!/bin/sh\ncase $(cat {programs}/tries 2>/dev/null) in ..*) exec {prefect.programs}/psql "$@" ;; esac\n'
        f"printf . >> {programs}/tries\necho 'connection to server failed: Connection refused' >&2\nexit 2\n"
    )
    (programs / "psql").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    assert save(job(folder, urls=urls(prefect)), store).contents.counts["flow_run"] == 100
    assert (programs / "tries").read_text() == ".."
