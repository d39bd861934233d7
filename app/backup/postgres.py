"""PostgreSQL: a dump of one moment by its own `pg_dump`, what is in it, and all of a database replaced by one.

Databases are named as SQLAlchemy does (postgresql+driver://user:password@host:port/name). The password is given to the
programs in their environment; in their arguments everybody on the machine could read it.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from app.backup.errors import BackupError

CONNECT_SECONDS = "30"
REACH_SECONDS = 60.0
UNREACHED = ("Connection refused", "timeout expired", "could not translate", "No route to host", "starting up")
DRIVER_WORDS = {"ssl": "sslmode"}  # what asyncpg calls otherwise than PostgreSQL does
_TABLE = re.compile(rb'COPY (?:public\.)?"?(\w+)"? \(')
# Of no table: a schema that is there anyway; extensions, which only their owner may drop and which stay.
_LEFT = re.compile(r"^\d+; \d+ \d+ (?:SCHEMA - public|EXTENSION -|COMMENT - EXTENSION|COMMENT - SCHEMA)\b")
BEGIN = b"SET client_min_messages = warning;\nBEGIN;\nSET LOCAL lock_timeout = '60s';\n"
EMPTY = Path(__file__).with_name("empty_schema.sql")


@dataclass(frozen=True)
class Dumped:
    """What is in a dump. revision: the version of its tables, "" where it has none; counts: rows by table."""

    revision: str
    counts: dict[str, int]


def dump(url: str, target: Path) -> None:
    """Write a dump of a database, as it is at one moment, while others read and write it.

    Raises:
        BackupError: the database cannot be reached or read.
    """
    _reach(url)
    options = ["--format=custom", "--schema=public", "--no-owner", "--no-privileges", "--lock-wait-timeout=60s"]
    # Level 1: the archive is packed once more.
    command = ["pg_dump", *options, "--compress=1", "--file", str(target), "--dbname", _address(url)]
    with _programs():
        done = subprocess.run(command, env=_environment(url), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackupError(
            f"pg_dump cannot read {_named(url)}: {_last_line(done.stderr)}", "its account has to own what is in it"
        )


def described(path: Path, table: str, counted: tuple[str, ...] = ()) -> Dumped:
    """Read a dump to its end.

    Args:
        path: of the dump; table: where Alembic keeps the version; counted: tables whose rows are counted.

    Raises:
        BackupError: it is damaged.
    """
    revision, counts = "", dict.fromkeys(counted, 0)
    with _script(path, "--data-only") as script:
        current = ""
        for line in script:
            if not current:
                match = _TABLE.match(line)
                current = match[1].decode() if match and line.rstrip().endswith(b"FROM stdin;") else ""
            elif line == b"\\.\n":
                current = ""
            elif current == table:
                revision = line.decode().strip()
            elif current in counts:
                counts[current] += 1
    return Dumped(revision, counts)


def restore(url: str, path: Path) -> None:
    """Replace all that a database has by a dump, in one transaction.

    Raises:
        BackupError: the database is as it was before.
    """
    _reach(url)
    command = _psql(url)
    listed = path.with_name(f"{path.name}.list")
    listed.write_text("".join(line for line in _entries(path) if not _LEFT.match(line)))
    with _programs():
        psql = subprocess.Popen(command, env=_environment(url), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert psql.stdin
    assert psql.stderr
    complaint = ""
    try:
        with psql.stdin as statements:
            statements.write(BEGIN + EMPTY.read_bytes())
            with _script(path, "--use-list", str(listed), "--no-owner", "--no-privileges") as script:
                # pg_restore 17 writes it for every server; those before 17 do not know it
                statements.write(script.read(4096).replace(b"SET transaction_timeout = 0;\n", b""))
                while content := script.read(1024 * 1024):
                    statements.write(content)
            statements.write(b"COMMIT;\n")  # without it, psql's end is a rollback
    except BrokenPipeError:
        pass  # psql has said why
    finally:
        complaint = psql.stderr.read().decode(errors="replace")
        psql.stderr.close()
        code = psql.wait()
        listed.unlink()
    if code:
        raise BackupError(
            f"psql cannot write {_named(url)}: {_last_line(complaint)}", "that database is unchanged; restore again"
        )


def _reach(url: str) -> None:
    """Wait until the server answers: the network may refuse to a pod that just started what it will allow.

    Raises:
        BackupError: it does not, or refuses the account.
    """

    def problem() -> str:
        with _programs():
            command = [*_psql(url), "--command=SELECT 1"]
            done = subprocess.run(command, env=_environment(url), capture_output=True, text=True, check=False)
        return _last_line(done.stderr) if done.returncode else ""

    last = Retrying(
        stop=stop_after_delay(REACH_SECONDS),
        wait=wait_fixed(1),
        retry=retry_if_result(lambda text: any(word in text for word in UNREACHED)),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else "",
    )(problem)
    if last:
        raise BackupError(
            f"{_named(url)} cannot be reached: {last}",
            "check that it runs, its address and account, and that the network lets backups there (backup.egressCIDRs)",
        )


def _psql(url: str) -> list[str]:
    options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]
    return ["psql", *options, "--dbname", _address(url)]


def _entries(path: Path) -> Iterator[str]:
    """The lines of a dump's table of contents."""
    with _programs():
        done = subprocess.run(["pg_restore", "--list", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackupError(f"{path.name} is damaged ({_last_line(done.stderr)})", "restore another backup")
    yield from done.stdout.splitlines(keepends=True)


@contextmanager
def _script(path: Path, *options: str) -> Iterator[IO[bytes]]:
    """A dump as SQL, to be read to its end."""
    command = ["pg_restore", *options, "--file=-", str(path)]
    with _programs():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    try:
        yield process.stdout
    except BaseException:
        process.kill()
        raise
    finally:
        process.stdout.close()
        complaint = process.stderr.read().decode(errors="replace")
        process.stderr.close()
        code = process.wait()
    if code:
        raise BackupError(f"{path.name} is damaged ({_last_line(complaint)})", "restore another backup")


@contextmanager
def _programs() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BackupError(
            f"{error.filename} is not installed here",
            "the platform's image `flows` has PostgreSQL's own pg_dump, pg_restore and psql",
        ) from error


def _address(url: str) -> str:
    """The address as PostgreSQL's programs take it, without the password.

    Raises:
        BackupError: it is no address of a PostgreSQL.
    """
    parts = urlsplit(url)
    if not parts.scheme.startswith("postgres"):
        raise BackupError(
            f"a database has an address that begins with {parts.scheme[:20]!r}",
            "global.databaseSecret has postgresql+psycopg2://... and postgresql+asyncpg://...",
        )
    place = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}@" if parts.username else ""
    query = urlencode([(DRIVER_WORDS.get(word, word), value) for word, value in parse_qsl(parts.query)])
    return f"postgresql://{user}{place}{parts.path}{f'?{query}' if query else ''}"


def _environment(url: str) -> dict[str, str]:
    password = unquote(urlsplit(url).password or "")
    return {**os.environ, "PGCONNECT_TIMEOUT": CONNECT_SECONDS, **({"PGPASSWORD": password} if password else {})}


def _named(url: str) -> str:
    """The database, for messages."""
    parts = urlsplit(url)
    return f"the database {parts.path.lstrip('/')} of {parts.netloc.rpartition('@')[2]}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line.lower() or "fatal:" in line.lower()]
    return (errors or lines or ["no reason given"])[-1][:500]
