"""Reads training data by a SQL query, with SQLAlchemy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, NotSupportedError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from flows.model import Sql
from flows.sources import DatasetError, SourceUnavailable, too_many

CHUNK = 50_000  # rows of a query that are Python's objects at a time
SHOWN = 200  # characters of a query
WRONG = {1, 26}  # SQLite's own codes of a statement that is wrong, and of a file that is no database
# Classes of SQLSTATE that may pass: no connection, conflict, no resources, in use, stopped by an operator, system.
PASSING = {"08", "40", "53", "55", "57", "58"}


def _url(source: Sql) -> sa.URL:
    """The database's URL; asyncpg is the driver of PostgreSQL that the images have.

    Raises:
        DatasetError: the variable is not set, or holds no such URL.
    """
    text = os.environ.get(source.url_env, "")
    if not text:
        raise DatasetError(
            f"the environment variable {source.url_env} is not set; it holds the URL of the database that is asked for "
            "the data. On Kubernetes a Secret sets it, by prefect-worker.jobs.extraEnvFrom"
        )
    try:
        url = sa.make_url(text.strip())
    except (SQLAlchemyError, ValueError):
        raise DatasetError(  # without what is in it, and what SQLAlchemy says of it
            f"{source.url_env} is no URL of a database, such as postgresql://user:password@host:5432/name"
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+asyncpg")
    if url.drivername == "postgresql+asyncpg" and "sslmode" in url.query:
        # asyncpg's name for it
        url = url.update_query_dict({"ssl": url.query["sslmode"]}).difference_update_query(["sslmode"])
    return url


def shown(source: Sql) -> str:
    """A query as logs, tags and errors have it: without account and password."""
    query = " ".join(source.query.split())
    return f"{_shown_database(source)}: {query if len(query) <= SHOWN else query[:SHOWN] + ' ...'}"


def _shown_database(source: Sql) -> str:
    try:
        url = _url(source)
    except DatasetError:
        return f"the database of {source.url_env}"
    host = f"{url.host}{f':{url.port}' if url.port else ''}" if url.host else ""
    return f"{url.get_backend_name()}://{host}/{url.database or ''}"


def read(source: Sql, max_rows: int) -> pd.DataFrame:
    """The rows of a query; raises as `flows.sources.read`."""
    url = _url(source)
    try:
        is_async = url.get_dialect().is_async
        make: Callable[..., Any] = create_async_engine if is_async else sa.create_engine
        engine = make(url, poolclass=NullPool)
    except (SQLAlchemyError, ImportError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{source.url_env} names {url.drivername}, which cannot be used here: {_without_password(error, url)}; "
            "the images have postgresql and sqlite, others need their driver in the image"
        ) from None
    if not is_async:
        with _connecting(source, url):
            connection = engine.connect()
        try:
            return _rows(connection, source, url, max_rows)
        finally:
            with suppress(SQLAlchemyError):
                connection.close()

    async def rows() -> pd.DataFrame:
        connection = engine.connect()
        with _connecting(source, url):
            await connection.start()
        try:
            return await connection.run_sync(_rows, source, url, max_rows)
        finally:
            with suppress(SQLAlchemyError):  # it was lost, which is told already
                await connection.close()

    return asyncio.run(rows())


@contextmanager
def _connecting(source: Sql, url: sa.URL) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each driver has its own
        raise SourceUnavailable(
            f"the database {_shown_database(source)} cannot be reached: {_without_password(error, url)}"
        ) from None


def _rows(connection: sa.Connection, source: Sql, url: sa.URL, max_rows: int) -> pd.DataFrame:
    """The rows of the query; a chunk of them at a time is more than a column's array."""
    # as it is written: neither a colon nor a percent sign is a parameter
    options = {"stream_results": True, "no_parameters": True, "max_row_buffer": CHUNK}
    chunks: list[pd.DataFrame] = []
    count = 0
    try:
        result = connection.execution_options(**options).exec_driver_sql(source.query)
        if not result.returns_rows:
            raise DatasetError(f"the query of {shown(source)!r} gives no rows: a select is needed")
        names = list(result.keys())
        doubled = [name for name in names if names.count(name) > 1]
        if doubled:
            raise DatasetError(f"the query of {shown(source)!r} gives two columns {doubled[0]!r}: name them by `as`")
        for rows in result.partitions(CHUNK):
            count += len(rows)
            if count > max_rows:
                raise too_many(source, max_rows)
            chunks.append(_chunk(rows, names))
    except Exception as error:
        # what asyncpg raises while rows are fetched comes through SQLAlchemy as it is
        if not isinstance(error, SQLAlchemyError | OSError) and not hasattr(error, "sqlstate"):
            raise
        kind, what = (SourceUnavailable, "was lost") if _may_pass(error) else (DatasetError, "refuses the query")
        raise kind(f"{shown(source)!r}: the database {what}: {_without_password(error, url)}") from None
    if not chunks:
        raise DatasetError(f"the query of {shown(source)!r} gives no row")
    return pd.concat(chunks, ignore_index=True)


def _chunk(rows: Any, names: list[str]) -> pd.DataFrame:
    chunk = pd.DataFrame.from_records(list(map(tuple, rows)), columns=names, coerce_float=True)
    # a column without any value says nothing of its type, and would make that of all others Python's objects
    empty = [name for name in names if chunk[name].dtype == object and chunk[name].isna().all()]
    return chunk.astype(dict.fromkeys(empty, np.float64))


def _may_pass(error: Exception) -> bool:
    """Whether the query may succeed when it is sent again."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    told = getattr(error, "orig", None) or error  # by the driver
    state = getattr(told, "sqlstate", None) or getattr(told, "pgcode", None)
    if state:
        return str(state)[:2] in PASSING
    is_wrong = isinstance(error, ProgrammingError | DataError | NotSupportedError)
    return not is_wrong and getattr(told, "sqlite_errorcode", None) not in WRONG


def _without_password(error: Exception, url: sa.URL) -> str:
    """What a driver says, without the statement, which SQLAlchemy adds, and the password, which a driver might."""
    text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    if url.password:
        text = text.replace(str(url.password), "***")
    return text
