"""Where training data is read from: files, folders, S3, queries; and what is said of those that cannot be read."""

from __future__ import annotations

import base64
import io
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from app.runtime.processes import free_port
from app.testing.bucket import Bucket, serving_bucket
from app.testing.postgres import PASSWORD, Postgres, running_postgres
from flows import dataset, sources, sql_source
from flows.catalog import load_model
from flows.model import Model, ModelFileError, Sql
from flows.sources import DatasetError, SourceUnavailable

iris = load_model("iris")
FLOWERS = iris.load()


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def put(path: Path, frame: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(parquet(frame))
    return path


def validated(frame: pd.DataFrame) -> pd.DataFrame:
    """In one order, whichever order the files of a folder are in."""
    return dataset.validate(iris, frame).sort_values(FLOWERS.columns.to_list(), ignore_index=True)


# -- folders


def test_a_folder_of_parquet_is_one_table(tmp_path: Path) -> None:
    put(tmp_path / "b.parquet", FLOWERS.iloc[100:])
    put(tmp_path / "2026" / "a.parquet", FLOWERS.iloc[:100][FLOWERS.columns[::-1]])
    put(tmp_path / "_unfinished" / "c.parquet", FLOWERS)
    put(tmp_path / ".d.parquet", FLOWERS)
    (tmp_path / "_SUCCESS").write_text("")
    read, origin = dataset.load(iris, str(tmp_path))
    assert origin == str(tmp_path)
    pd.testing.assert_frame_equal(validated(read), validated(FLOWERS))


def test_the_names_of_folders_are_columns(tmp_path: Path) -> None:
    for country in ("at", "de"):
        put(tmp_path / f"country={country}" / "1.parquet", FLOWERS)
    read = sources.read(str(tmp_path))
    assert read["country"].value_counts().to_dict() == {"at": 150, "de": 150}
    assert "country" not in sources.read(str(tmp_path / "country=at" / "1.parquet"))


def test_numbers_of_32_bits_are_taken_for_those_of_64(tmp_path: Path) -> None:
    model = replace(iris, load=lambda: FLOWERS.assign(petals=5))
    path = put(
        tmp_path / "small.parquet",
        FLOWERS.astype({"sepal_width": "float32"}).assign(petals=5).astype({"petals": "int32"}),
    )
    read, _ = dataset.load(model, str(path))
    assert dict(dataset.validate(model, read).dtypes)["petals"] == "int64"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "b.parquet",
            parquet(FLOWERS.astype({"sepal_width": int})),
            r"b\.parquet has other columns than .*a\.parquet: 'sepal_width' is int64, and double there",
        ),
        ("b.parquet", parquet(FLOWERS.drop(columns="species")), r"b\.parquet has other .*'species' is missing"),
        ("b.parquet", parquet(FLOWERS.assign(more=1)), r"b\.parquet has other .*'more' is int64, and missing there"),
        ("b.parquet", parquet(FLOWERS)[:-100], r"b\.parquet is not a whole Parquet file"),
        ("b.parquet", b"", r"b\.parquet is not a whole Parquet file"),
    ],
)
def test_a_file_that_does_not_fit_the_folder_is_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    put(tmp_path / "a.parquet", FLOWERS)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=reason):
        sources.read(str(tmp_path))


def test_a_folder_without_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DatasetError, match=r"has no Parquet file \(\*\.parquet\)"):
        sources.read(str(tmp_path))


# -- how much is read


def test_larger_files_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "folder" / "a.parquet", FLOWERS)
    put(tmp_path / "folder" / "b.parquet", FLOWERS)
    FLOWERS.to_csv(tmp_path / "a.csv", index=False)
    for name, reason in (
        ("folder", "has 300 rows"),
        ("folder/a.parquet", "has 150 rows"),
        ("a.csv", "more than 149 rows"),
    ):
        with pytest.raises(
            DatasetError, match=f"{reason}; max_rows of the model file is 149: name a part of it, or raise it"
        ):
            dataset.load(replace(iris, max_rows=149), str(tmp_path / name))
    assert len(sources.read(str(tmp_path / "a.csv"), max_rows=150)) == 150


# -- http


class _Files(SimpleHTTPRequestHandler):
    """Files for one account."""

    def do_GET(self) -> None:
        if self.headers.get("authorization") != f"Basic {base64.b64encode(b'ada:geheim').decode()}":
            return self.send_error(403, "no")
        return super().do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing: pytest shows what matters."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A server of the files in tmp_path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_are_read_by_http_and_no_password_is_told(tmp_path: Path, site: str) -> None:
    put(tmp_path / "flowers.parquet", FLOWERS)
    FLOWERS.to_csv(tmp_path / "flowers.csv", index=False)
    for name in ("flowers.parquet", "flowers.csv"):
        read, origin = dataset.load(iris, f"http://ada:geheim@{site}/{name}?signature=geheim")
        assert origin == f"http://{site}/{name}"
        pd.testing.assert_frame_equal(validated(read), validated(FLOWERS))
    with pytest.raises(DatasetError, match="has 150 rows; max_rows"):
        sources.read(f"http://ada:geheim@{site}/flowers.parquet", 10)


def test_what_http_does_not_give_may_be_tried_again(tmp_path: Path, site: str) -> None:
    for url, reason in (
        (f"http://ada:geheim@{site}/none.csv", "the server answers 404"),
        (f"http://ada:geheim2@{site}/none.csv?key=geheim", "the server answers 403"),
        (f"http://ada:geheim@127.0.0.1:{free_port()}/none.csv", "ConnectError"),
    ):
        with pytest.raises(SourceUnavailable, match=reason) as error:
            sources.read(url)
        assert "geheim" not in str(error.value)
    (tmp_path / "half.parquet").write_bytes(parquet(FLOWERS)[:500])
    with pytest.raises(DatasetError, match="is not a whole Parquet file"):
        sources.read(f"http://ada:geheim@{site}/half.parquet")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("postgresql://ada:geheim@host/shop", r"'postgresql://host/shop' is of postgresql; .*databases by source=Sql"),
        ("gs://bucket/a.csv", "is of gs; paths, http, https and s3 can be read"),
        ("https://ada:geheim@host/a.xlsx", r"'https://host/a\.xlsx' ends in 'xlsx'; \.csv and \.parquet"),
        ("s3://", "names no file"),
        ("", "names no file"),
    ],
)
def test_other_sources_are_refused_with_what_can_be_read(source: str, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason) as error:
        sources.read(source)
    assert "geheim" not in str(error.value)


# -- S3


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with serving_bucket(monkeypatch) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield server


def test_files_and_folders_are_read_from_s3(bucket: Bucket) -> None:
    bucket.objects = {
        "flowers.csv": FLOWERS.to_csv(index=False).encode(),
        "flowers/1.parquet": parquet(FLOWERS.head(100)),
        "flowers/of=today/2.parquet": parquet(FLOWERS.tail(50)),
    }
    for key in ("flowers.csv", "flowers/"):
        read, origin = dataset.load(iris, f"s3://bucket/{key}")
        assert origin == f"s3://bucket/{key}"
        pd.testing.assert_frame_equal(validated(read), validated(FLOWERS))
    assert len(sources.read("s3://bucket/flowers/1.parquet")) == 100


def test_what_s3_does_not_give_may_be_tried_again(bucket: Bucket) -> None:
    with pytest.raises(SourceUnavailable, match=r"'s3://bucket/none\.csv' cannot be read: there is no such file"):
        sources.read("s3://bucket/none.csv")
    bucket.refused = True
    with pytest.raises(SourceUnavailable, match=r"'s3://bucket/none\.csv' cannot be read: .*ACCESS_DENIED"):
        sources.read("s3://bucket/none.csv")
    bucket.refused = False
    bucket.objects["half.parquet"] = parquet(FLOWERS)[:-50]
    with pytest.raises(DatasetError, match=r"bucket/half\.parquet is not a whole Parquet file"):
        sources.read("s3://bucket/half.parquet")


# -- queries: SQLite, as a file


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with the flowers; MLOPS_DATA_URL names it."""
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        FLOWERS.to_sql("flowers", connection, index=False)
    connection.close()
    monkeypatch.setenv("MLOPS_DATA_URL", f"sqlite:///{path}")
    return path


def of(query: str, **fields: Any) -> Model:
    return replace(iris, source=Sql(query), **fields)


def test_the_rows_of_a_query_are_the_data(shop: Path) -> None:
    model = of("select *,\n  '10:30' as at, '5%d' as per from flowers")  # neither a parameter nor a format
    read, origin = dataset.load(model)
    assert origin == f"sqlite:///{shop}: {' '.join(model.source.query.split())}"  # type: ignore[union-attr]
    assert (read["at"] == "10:30").all()
    pd.testing.assert_frame_equal(dataset.validate(model, read), FLOWERS)


def test_a_long_query_is_read_in_chunks_with_the_types_of_the_whole(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_source, "CHUNK", 40)
    query = "select *, case when rowid > 100 then rowid end late, case when rowid > 100 then 'x' end word from flowers"
    read, _ = dataset.load(of(query))
    assert len(read) == 150
    assert (read["late"].dtype, read["late"].sum()) == ("float64", sum(range(101, 151)))
    assert read["word"].isna().sum() == 100
    assert read["word"].dropna().eq("x").all()
    pd.testing.assert_frame_equal(dataset.validate(iris, read), FLOWERS)


def test_a_query_with_too_many_rows_is_to_be_narrowed(shop: Path) -> None:
    with pytest.raises(
        DatasetError, match="more than 149 rows; max_rows of the model file is 149: narrow the query, or raise"
    ):
        dataset.load(of("select * from flowers", max_rows=149))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("select * from trees", "the database refuses the query: no such table: trees"),
        ("selec", "refuses the query: near"),
        ("select * from flowers where species = 'rose'", "gives no row"),
        ("delete from flowers", "gives no rows: a select is needed"),
        ("select f.species, g.species from flowers f, flowers g", "gives two columns 'species': name them by `as`"),
    ],
)
def test_a_wrong_query_is_not_tried_again(shop: Path, query: str, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        dataset.load(of(query))
    assert len(dataset.load(of("select * from flowers"))[0]) == 150  # which nothing was removed of


def test_a_database_in_use_may_be_tried_again(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_DATA_URL", f"sqlite:///{shop}?timeout=0")
    holder = sqlite3.connect(shop, isolation_level=None)
    holder.execute("begin exclusive")
    with pytest.raises(SourceUnavailable, match="database is locked"):
        dataset.load(of("select * from flowers"))
    holder.close()
    monkeypatch.setenv("MLOPS_DATA_URL", f"sqlite:///{shop.parent}/none/shop.db")
    with pytest.raises(SourceUnavailable, match="cannot be reached: unable to open database file"):
        dataset.load(of("select * from flowers"))
    (shop.parent / "note.db").write_text("no database, but a text of some length")
    monkeypatch.setenv("MLOPS_DATA_URL", f"sqlite:///{shop.parent}/note.db")
    with pytest.raises(DatasetError, match="file is not a database"):
        dataset.load(of("select * from flowers"))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (None, "MLOPS_DATA_URL is not set; it holds the URL .* by prefect-worker.jobs.extraEnvFrom"),
        ("", "MLOPS_DATA_URL is not set"),
        ("geheim", "MLOPS_DATA_URL is no URL of a database, such as postgresql://"),
        ("postgresql://ada:geheim@host:port/shop", "MLOPS_DATA_URL is no URL of a database"),
        ("oracle://ada:geheim@host/shop", "MLOPS_DATA_URL names oracle, which cannot be used here: No module"),
        ("nothing://ada:geheim@host/shop", "MLOPS_DATA_URL names nothing, which cannot be used here"),
    ],
)
def test_a_url_that_cannot_be_used_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, url: str | None, reason: str
) -> None:
    if url is None:
        monkeypatch.delenv("MLOPS_DATA_URL", raising=False)
    else:
        monkeypatch.setenv("MLOPS_DATA_URL", url)
    with pytest.raises(DatasetError, match=reason) as error:
        dataset.load(of("select 1"))
    assert "geheim" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"query": " "}, "the query of Sql is ' '"),
        ({"query": 3}, "the query of Sql is 3"),
        ({"query": "select 1", "url_env": "postgresql://ada:geheim@host/shop"}, "url_env of Sql is no name"),
    ],
)
def test_a_query_that_cannot_be_is_refused_without_what_may_be_secret(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason) as error:
        Sql(**fields)
    assert "geheim" not in str(error.value)


def test_a_source_that_cannot_be_is_refused() -> None:
    with pytest.raises(ModelFileError, match="source is 3, not a path, a URL or Sql"):
        replace(iris, source=3)  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="max_rows is 0, a whole number from 1 is needed"):
        replace(iris, max_rows=0)


# -- queries: PostgreSQL


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as server:
        server.sql("CREATE DATABASE shop OWNER mlops", "postgres", "admin")
        server.sql(
            """
            CREATE TABLE orders (id int, price numeric(8, 2), paid boolean, bought date, sent timestamptz, note text);
            INSERT INTO orders SELECT n, n / 4.0, n % 2 = 0, date '2026-01-01' + n % 28, now(),
                CASE WHEN n > 60000 THEN 'late' END FROM generate_series(1, 70000) n;
            """,
            "shop",
        )
        yield server


@pytest.fixture
def orders(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """A PostgreSQL with orders; MLOPS_DATA_URL names it, as people write it."""
    monkeypatch.setenv("MLOPS_DATA_URL", server.url("postgresql", name="shop") + "?sslmode=prefer")
    return server


def test_postgresql_gives_rows_in_the_types_that_a_model_needs(orders: Postgres) -> None:
    query = "select * from orders order by id"
    read = sources.read(Sql(query))
    assert sources.shown(Sql(query)) == f"postgresql://127.0.0.1:{orders.port}/shop: {query}"
    assert len(read) == 70000
    kinds = {name: dataset.column_kind(dtype) for name, dtype in read.drop(columns=["bought", "sent"]).dtypes.items()}
    assert kinds == {"id": "long", "price": "double", "paid": "boolean", "note": "string"}
    assert read["price"].iloc[2] == 0.75
    assert read["note"].value_counts().to_dict() == {"late": 10000}
    assert read["bought"].iloc[0] == date(2026, 1, 2)
    assert read["sent"].iloc[0] <= datetime.now(UTC)


def test_a_query_that_postgresql_refuses_is_not_tried_again(orders: Postgres) -> None:
    for query, reason in (
        ("select * from trees", 'relation "trees" does not exist'),
        ("select 1 / 0", "division by zero"),
        ("select * from pg_authid", "permission denied"),
        ("drop table orders", "gives no rows: a select is needed"),
    ):
        with pytest.raises(DatasetError, match=reason) as error:
            sources.read(Sql(query))
        assert PASSWORD not in str(error.value)
    assert orders.sql("select count(*) from orders", "shop") == "70000"


def test_a_postgresql_that_is_gone_may_be_tried_again(orders: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = "select pg_terminate_backend(pg_backend_pid())"
    with pytest.raises(SourceUnavailable, match=r"the database was lost: .*terminating connection"):
        sources.read(Sql(ending))
    monkeypatch.setenv("MLOPS_DATA_URL", orders.url("postgresql", "geheim", "shop"))
    with pytest.raises(SourceUnavailable, match="cannot be reached: password authentication failed") as error:
        sources.read(Sql("select 1"))
    assert "geheim" not in str(error.value)
    monkeypatch.setenv("MLOPS_DATA_URL", f"postgresql://ada:geheim@127.0.0.1:{free_port()}/shop")
    with pytest.raises(SourceUnavailable, match=r"postgresql://127\.0\.0\.1:\d+/shop cannot be reached") as error:
        sources.read(Sql("select 1"))
    assert "geheim" not in str(error.value)


def test_a_named_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "rows.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("a,b\n1,x\n2,y\n",))
    writer.start()
    assert sources.read(str(pipe)).to_dict("list") == {"a": [1, 2], "b": ["x", "y"]}
    writer.join()
