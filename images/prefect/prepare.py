"""Prepares Prefect's database before one of several servers starts: this version's tables and block types.

Servers that start together would race for both, so they take turns. Only for PostgreSQL: a server with a SQLite of its
own does this itself when it starts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

TURN = 0x6D6C6F7073  # the number of the lock, "mlops" in ASCII
SECONDS = 120  # for a PostgreSQL that was installed just now, too


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
async def my_turn() -> AsyncIterator[None]:
    """Wait until no other pod prepares the database, and keep others waiting: by an advisory lock of PostgreSQL."""
    import sqlalchemy
    from prefect.settings import get_current_settings
    from sqlalchemy.ext.asyncio import create_async_engine

    url = get_current_settings().server.database.connection_url
    assert url, "PREFECT_SERVER_DATABASE_CONNECTION_URL names no database"
    # Asked again and again: a statement that waits would keep CREATE INDEX CONCURRENTLY waiting, which migrations have.
    # Not in a transaction, which PostgreSQL may be told to end when it idles.
    engine = create_async_engine(url.get_secret_value(), isolation_level="AUTOCOMMIT")
    try:
        async with aclosing(await connected(engine)) as connection:
            while not await connection.scalar(sqlalchemy.text("SELECT pg_try_advisory_lock(:turn)"), {"turn": TURN}):
                await asyncio.sleep(1)
            yield
    finally:
        await engine.dispose()  # closes the connection, and with it goes the lock


async def main() -> None:
    """Prepare the database that Prefect's settings name."""
    from prefect.server.database import provide_database_interface
    from prefect.server.models.block_registration import run_block_auto_registration

    database = provide_database_interface()
    async with my_turn():
        await database.create_db()
        async with await database.session() as session:
            await run_block_auto_registration(session=session)


if __name__ == "__main__":
    asyncio.run(main())
