"""Reads training data: CSV and Parquet files, folders of Parquet, objects in S3; SQL queries by `flows.sql_source`."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from pyarrow import fs

from flows.model import MAX_ROWS, Sql

PARQUET = ("parquet", "pq")
SECONDS = 60.0  # without a word from a server


class DatasetError(ValueError):
    """The data cannot be trained on; the message says what is wrong with it."""


class SourceUnavailable(OSError):
    """The data's source could not be read; trying again may help."""


def read(source: str | Sql, max_rows: int = MAX_ROWS) -> pd.DataFrame:
    """Read a table.

    Args:
        source: the path, http(s) or s3 URL of a CSV or Parquet file; the path or s3 URL of a folder, all of whose
            Parquet files are read, those of its folders included; or a query. S3's endpoint, region and keys are those
            of the environment (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
        max_rows: of a larger table no more than this is read.

    Raises:
        SourceUnavailable: what is named is missing, or its server does not answer.
        DatasetError: it is of another kind, half-written, larger than max_rows, or has files of different columns; the
            query is wrong, or the variable with the database's URL is.
    """
    if isinstance(source, Sql):
        from flows import sql_source  # SQLAlchemy takes most of a second, and few models have a query

        return sql_source.read(source, max_rows)
    scheme, bucket_and_key = _parts(source)
    if scheme in ("http", "https"):
        return _read_http(source, max_rows)
    if scheme not in ("", "file", "s3"):
        raise DatasetError(
            f"the source {shown(source)!r} is of {scheme}; paths, http, https and s3 can be read, databases by "
            'source=Sql("select ...") in the model file'
        )
    if not bucket_and_key.strip("/"):
        raise DatasetError(f"the source {shown(source)!r} names no file and no folder")
    with _reading(source):
        if scheme == "s3":
            return _read_stored(s3(), bucket_and_key, source, max_rows)
        return _read_stored(fs.LocalFileSystem(), str(Path(bucket_and_key).expanduser()), source, max_rows)


def shown(source: str | Sql) -> str:
    """A source as logs, tags and errors have it: without account, password and signature."""
    if isinstance(source, Sql):
        from flows import sql_source

        return sql_source.shown(source)
    if "://" not in source:
        return source
    scheme, _, rest = source.partition("://")
    where, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{where.rpartition('@')[2]}{slash}{path}"


def _parts(source: str) -> tuple[str, str]:
    """The scheme of a URL and what follows it, "" and the path for a path."""
    scheme, found, rest = source.partition("://")
    if not found:
        return "", source
    return scheme.lower(), unquote(rest) if scheme.lower() == "file" else rest


def _suffix(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[2].lower()


@contextmanager
def _reading(source: str) -> Iterator[None]:
    """Raise SourceUnavailable or DatasetError, with the source's name, for what the readers of files raise."""
    try:
        yield
    except (DatasetError, SourceUnavailable):
        raise
    except (OSError, ValueError) as error:
        if _may_pass_by(error):
            raise SourceUnavailable(f"the source {shown(source)!r} cannot be read: {error}") from error
        kind = "CSV" if _suffix(shown(source)) == "csv" else "Parquet"
        raise DatasetError(f"the source {shown(source)!r} is not a whole {kind} file: {error}") from error


def _may_pass_by(error: OSError | ValueError) -> bool:
    """Whether a file cannot be reached, rather than damaged: pyarrow raises a bare OSError for some of either."""
    return isinstance(error, FileNotFoundError) or bool(getattr(error, "errno", None)) or "AWS Error" in str(error)


def too_many(source: str | Sql, max_rows: int, rows: int | None = None) -> DatasetError:
    """The error of a source with more rows than the model file allows. rows: how many, where that is known."""
    many = f"{rows:,}" if rows else f"more than {max_rows:,}"
    cure = "narrow the query" if isinstance(source, Sql) else "name a part of it"
    return DatasetError(
        f"the source {shown(source)!r} has {many} rows; max_rows of the model file is {max_rows:,}: {cure}, or raise it"
    )


# -- files -----------------------------------------------------------------------------------------------------------


def _read_csv(file: Any, source: str, max_rows: int) -> pd.DataFrame:
    frame = pd.read_csv(file, nrows=max_rows + 1)
    if len(frame) > max_rows:
        raise too_many(source, max_rows)
    return frame


def _read_stored(store: fs.FileSystem, path: str, source: str, max_rows: int) -> pd.DataFrame:
    """A file, or all Parquet files of a folder. path: as the store has it."""
    found = store.get_file_info(path.rstrip("/"))
    if found.type == fs.FileType.NotFound:
        raise SourceUnavailable(f"the source {shown(source)!r} cannot be read: there is no such file or folder")
    if found.type == fs.FileType.Directory:
        return _read_parquet(store, _parquet_files(store, found.path, source), found.path, source, max_rows)
    _check_suffix(found.path, source)
    if _suffix(found.path) == "csv":
        # a local one by Python, as pyarrow reads no named pipe
        is_local = isinstance(store, fs.LocalFileSystem)
        with Path(found.path).open("rb") if is_local else store.open_input_stream(found.path) as stream:
            return _read_csv(stream, source, max_rows)
    return _read_parquet(store, [found.path], "", source, max_rows)


def _check_suffix(path: str, source: str) -> None:
    if _suffix(path) not in ("csv", *PARQUET):
        raise DatasetError(
            f"the source {shown(source)!r} ends in {_suffix(path)!r}; .csv and .parquet can be read, and folders of "
            ".parquet"
        )


def _parquet_files(store: fs.FileSystem, folder: str, source: str) -> list[str]:
    """The Parquet files of a folder and its folders, sorted, without those that a dot or underscore hides."""
    paths = []
    for found in store.get_file_info(fs.FileSelector(folder, recursive=True)):
        inside = found.path[len(folder) :].strip("/").split("/")
        is_hidden = any(part.startswith((".", "_")) for part in inside)
        if found.type == fs.FileType.File and _suffix(found.path) in PARQUET and not is_hidden:
            paths.append(found.path)
    if not paths:
        raise DatasetError(f"the folder {shown(source)!r} has no Parquet file (*.parquet)")
    return sorted(paths)


def _read_parquet(store: fs.FileSystem, paths: list[str], folder: str, source: str, max_rows: int) -> pd.DataFrame:
    """The rows of all files of a folder, or of the one file where folder is "".

    Read once it is known how many they are, and that their columns are the same. Columns that the names of folders hold
    (`country=at`) are read, too.
    """
    rows = 0
    first: dict[str, str] = {}
    for path in paths:
        try:
            with store.open_input_file(path) as file:
                metadata = pa.parquet.read_metadata(file)
        except (OSError, ValueError) as error:
            if _may_pass_by(error):
                raise
            raise DatasetError(f"{path} is not a whole Parquet file: {error}") from error
        rows += metadata.num_rows
        columns = {field.name: str(field.type) for field in metadata.schema.to_arrow_schema()}
        first = first or columns
        differing = [name for name in {**first, **columns} if first.get(name) != columns.get(name)]
        if differing:
            name = differing[0]
            raise DatasetError(
                f"{path} has other columns than {paths[0]}: {name!r} is {columns.get(name, 'missing')}, and "
                f"{first.get(name, 'missing')} there; the files of a folder must be alike"
            )
    if rows > max_rows:
        raise too_many(source, max_rows, rows)
    by_folder = {"partitioning": "hive", "partition_base_dir": folder} if folder else {}
    data = pa.dataset.dataset(paths, filesystem=store, format="parquet", **by_folder)
    # each column is given back as soon as pandas has it
    return data.to_table().to_pandas(split_blocks=True, self_destruct=True)


def _read_http(source: str, max_rows: int) -> pd.DataFrame:
    """A file behind a URL, by way of a temporary one: it need not fit into memory beside its rows."""
    path = urlsplit(source).path
    _check_suffix(path, source)
    with tempfile.TemporaryFile() as copy, _reading(source):
        try:
            _download(source, copy)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceUnavailable(f"the source {shown(source)!r} cannot be read: {_reason(error)}") from None
        copy.seek(0)
        if _suffix(path) == "csv":
            return _read_csv(copy, source, max_rows)
        rows = pa.parquet.read_metadata(copy).num_rows
        if rows > max_rows:
            raise too_many(source, max_rows, rows)
        copy.seek(0)
        return pd.read_parquet(copy)


def _download(url: str, copy: IO[bytes]) -> None:
    with httpx.stream("GET", url, follow_redirects=True, timeout=SECONDS) as response:
        response.raise_for_status()
        for part in response.iter_bytes():
            copy.write(part)


def _reason(error: httpx.HTTPError | httpx.InvalidURL) -> str:
    """What went wrong, without the URL, which may hold a password or a signature."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"the server answers {error.response.status_code} {error.response.reason_phrase}"
    return f"{type(error).__name__}: {error}"


def s3() -> fs.S3FileSystem:
    """S3 as the environment has it: AWS_ENDPOINT_URL (without it AWS), AWS_REGION, and the keys that pyarrow finds."""
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    where: dict[str, Any] = {}
    if endpoint.netloc:
        where = {"endpoint_override": endpoint.netloc + endpoint.path.rstrip("/"), "scheme": endpoint.scheme}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return fs.S3FileSystem(**where, region=region, connect_timeout=10, request_timeout=SECONDS)
