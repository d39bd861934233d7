"""Prepares Prefect's database before its server starts: this version's tables.

A database of a later version is refused, and a SQLite is copied before it is migrated (images/tracking/migration.py).
On PostgreSQL several servers may start together and would race for tables and block types, so they take turns and make
both; a server with a SQLite of its own makes its block types itself.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from images.tracking.migration import Database, Schema, must_migrate, prepare, refusals

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

TURN = 0x6D6C6F7073  # the number of the lock, "mlops" in ASCII
SECONDS = 120  # for a PostgreSQL that was installed just now, too
URL = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
SCRIPTS = "server/database/_migrations/versions"


async def connected(engine: AsyncEngine) -> AsyncConnection:
    """Wait until PostgreSQL takes connections; one to it. Raises OSError when it does not in time."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return await engine.connect()
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(1)


@asynccontextmanager
async def my_turn() -> AsyncIterator[AsyncConnection]:
    """Wait until no other pod prepares the database, and keep others waiting: by an advisory lock of PostgreSQL.

    Gives the connection that holds it.
    """
    import sqlalchemy
    from sqlalchemy.ext.asyncio import create_async_engine

    # Asked again and again: a statement that waits would keep CREATE INDEX CONCURRENTLY waiting, which migrations have.
    # Not in a transaction, which PostgreSQL may be told to end when it idles.
    engine = create_async_engine(os.environ[URL], isolation_level="AUTOCOMMIT")
    try:
        async with aclosing(await connected(engine)) as connection:
            while not await connection.scalar(sqlalchemy.text("SELECT pg_try_advisory_lock(:turn)"), {"turn": TURN}):
                await asyncio.sleep(1)
            yield connection
    finally:
        await engine.dispose()  # closes the connection, and with it goes the lock


async def prepare_postgres() -> None:
    """Bring PostgreSQL to this version's tables and block types. Raises Refusal where it is of a later version."""
    from prefect.server.database import provide_database_interface
    from prefect.server.models.block_registration import run_block_auto_registration

    database = provide_database_interface()
    schema = Schema.of("Prefect", "prefect", f"{SCRIPTS}/postgresql")
    async with my_turn() as connection:
        if must_migrate(schema, await revisions(connection), connection.engine.url.render_as_string()):
            await database.create_db()
        async with await database.session() as session:
            await run_block_auto_registration(session=session)


async def revisions(connection: AsyncConnection) -> list[str]:
    """What PostgreSQL says of the schema; nothing where it is empty."""
    import sqlalchemy

    if not await connection.scalar(sqlalchemy.text("SELECT to_regclass('alembic_version')")):
        return []
    return list(await connection.scalars(sqlalchemy.text("SELECT version_num FROM alembic_version")))


def upgrade_file(file: Path) -> None:
    """Create or migrate a SQLite database."""
    os.environ[URL] = f"sqlite+aiosqlite:///{file}"  # read when Prefect is imported
    from prefect.server.database import provide_database_interface

    asyncio.run(provide_database_interface().create_db())


def main() -> None:
    """Prepare the database that Prefect's settings name; by default that is prefect.db in PREFECT_HOME."""
    with refusals():
        if os.environ.get(URL, "").startswith("postgresql"):
            asyncio.run(prepare_postgres())
        else:
            schema = Schema.of("Prefect", "prefect", f"{SCRIPTS}/sqlite")
            prepare([Database(Path(os.environ["PREFECT_HOME"]) / "prefect.db", schema, upgrade_file)])


if __name__ == "__main__":
    main()
