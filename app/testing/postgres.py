"""A real PostgreSQL for tests, where its programs are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.runtime.processes import free_port

PASSWORD = "p@ss w/ord%"  # noqa: S105
QUOTED = "p%40ss%20w%2Ford%25"
NOBODY = 65534


class Postgres:
    """A PostgreSQL with a user `mlops` who owns its databases and may do nothing else."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder, self.port = programs, folder, free_port()

    def run(self, program: str, *arguments: str, stdin: str = "") -> str:
        """What a program of PostgreSQL prints; as nobody, where the tests run as root."""
        account = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(  # noqa: S603
            [self.programs / program, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.folder,
            **account,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stderr
        return str(done.stdout).strip()

    def sql(self, statement: str, name: str = "prefect", user: str = "mlops") -> str:
        """What a statement answers."""
        where = ["-h", str(self.folder), "-p", str(self.port), "-U", user, "-d", name]
        return self.run("psql", "-XqtA", "-v", "ON_ERROR_STOP=1", *where, stdin=statement)

    def url(self, driver: str = "postgresql+asyncpg", password: str = QUOTED, name: str = "prefect") -> str:
        """The address of a database, as in global.databaseSecret."""
        return f"{driver}://mlops:{password}@127.0.0.1:{self.port}/{name}"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """One with an empty folder, until the block ends; the test is skipped where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    initdb = next(iter(found[::-1]), None) or shutil.which("initdb")
    if not initdb:
        pytest.skip("no PostgreSQL is installed here (initdb): Debian's package is postgresql")
    root = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own folders let in nobody else
    server = Postgres(Path(initdb).resolve().parent, root)
    if os.geteuid() == 0:
        os.chown(root, NOBODY, NOBODY)
    server.run("initdb", "-U", "admin", "-D", "data", "--auth-local=trust", "--auth-host=scram-sha-256", "-E", "UTF8")
    options = f"-c listen_addresses=127.0.0.1 -p {server.port} -k {root} -c fsync=off"
    server.run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")
    try:
        server.sql(f"CREATE ROLE mlops LOGIN PASSWORD '{PASSWORD}'", "postgres", "admin")
        yield server
    finally:
        server.run("pg_ctl", "-D", "data", "-m", "immediate", "stop")
        shutil.rmtree(root)
