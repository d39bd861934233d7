"""Backups in S3: kept, listed, restored and removed; what arrives otherwise than it was sent is removed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.backup.errors import BackupError
from app.backup.restore import restore
from app.backup.save import save
from app.backup.store import S3Store, Store, backup_name, file_name, store
from app.runtime.processes import free_port
from app.testing.backups import NAME, NOW, count, database, job
from app.testing.bucket import Bucket, serving_bucket


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with serving_bucket(monkeypatch) as server:
        yield server


@pytest.fixture
def s3(bucket: Bucket) -> Store:
    return store("s3://bucket/of/ours", f"http://127.0.0.1:{bucket.server_port}")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (folder := tmp_path / "source").mkdir()
    database(folder / "prefect.db")
    return folder


def test_a_backup_goes_to_s3_and_comes_back(bucket: Bucket, s3: Store, source: Path, tmp_path: Path) -> None:
    save(job(source), s3)
    assert list(bucket.objects) == [f"of/ours/{file_name(NAME, 'prefect')}"]
    (target := tmp_path / "target").mkdir()
    assert restore(s3, NAME, "prefect", target).counts == {"flow_run": 10}
    assert count(target / "prefect.db") == 10


def test_retention_and_what_others_have_in_the_bucket(bucket: Bucket, s3: Store, source: Path) -> None:
    bucket.objects |= {"of/ours/notes.txt": b"mine", "elsewhere": b"theirs"}
    names = [backup_name("team.mlops", NOW - timedelta(days=400 - n)) for n in range(3)]
    removed = [save(job(source, name=name, last=2, days=1), s3).removed for name in names]
    assert removed == [[], [], [names[0]]]
    assert {entry.backup for entry in s3.entries()} == set(names[1:])
    assert {"of/ours/notes.txt", "elsewhere"} <= bucket.objects.keys()


def test_what_arrived_otherwise_than_it_was_sent_is_removed(bucket: Bucket, s3: Store, source: Path) -> None:
    bucket.spoiled = True
    with pytest.raises(BackupError, match="cut off"):
        save(job(source), s3)
    assert bucket.objects == {}


def test_a_name_that_is_taken_stays_as_it_is(bucket: Bucket, s3: Store, source: Path) -> None:
    save(job(source), s3)
    before = dict(bucket.objects)
    with pytest.raises(BackupError, match="exists already"):
        save(job(source), s3)
    assert bucket.objects == before


def test_a_refusal_a_missing_archive_and_a_store_that_is_away_are_said(
    bucket: Bucket, s3: Store, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(BackupError, match=r"cannot read s3://bucket/of/ours/.*NoSuchKey"):
        restore(s3, NAME, "prefect", tmp_path)
    bucket.refused = True
    with pytest.raises(BackupError, match=r"AccessDenied.*check the address, the account"):
        save(job(source), s3)
    away = S3Store("s3://bucket", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(BackupError, match=r"list s3://bucket/.*Could not connect"):
        away.entries()


def test_backups_of_a_day_sort_by_time() -> None:
    assert backup_name("a.b", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "a.b-20260102T030405Z"
