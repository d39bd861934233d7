"""What goes wrong with backups and restores: nothing half-written is kept, nothing is touched before all is checked."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from app.backup import databases
from app.backup import restore as restoring
from app.backup.__main__ import main
from app.backup.archive import Header, Writer
from app.backup.databases import MLFLOW, PREFECT
from app.backup.errors import BackupError
from app.backup.restore import check, encrypted_secrets, restore
from app.backup.retention import outdated
from app.backup.save import save
from app.backup.secrets import decrypted, new_identity
from app.backup.store import Entry, FolderStore, backup_name, checked_name, file_name
from app.testing.backups import HEAD, NAME, NOW, count, database, job
from app.testing.docs import ROOT


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (folder := tmp_path / "source").mkdir()
    database(folder / "prefect.db")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where something else is, with a file that is none of the backup's business."""
    (folder := tmp_path / "target").mkdir()
    database(folder / "prefect.db", rows=3)
    (folder / "profiles.toml").write_text("mine")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "kept")


def kept(store: FolderStore) -> list[str]:
    return sorted(path.name for path in store.root.iterdir())


def assert_untouched(target: Path) -> None:
    assert count(target / "prefect.db") == 3
    assert {path.name for path in target.iterdir()} <= {
        "prefect.db",
        "prefect.db-wal",
        "prefect.db-shm",
        "profiles.toml",
    }


# -- saving ------------------------------------------------------------------------------------------------------------


def test_a_folder_without_a_database_is_refused_with_what_lacks(tmp_path: Path, store: FolderStore) -> None:
    with pytest.raises(BackupError, match=r"has no prefect\.db.*PostgreSQL"):
        save(job(tmp_path), store)
    assert kept(store) == []


def test_a_damaged_database_is_not_kept_and_removes_no_older_backup(source: Path, store: FolderStore) -> None:
    save(job(source, name=backup_name("team.mlops", NOW - timedelta(days=90))), store)
    older = kept(store)
    content = bytearray((source / "prefect.db").read_bytes())
    content[4096:8192] = b"\xff" * 4096
    (source / "prefect.db").write_bytes(content)
    with pytest.raises(BackupError, match=r"prefect\.db (is damaged|cannot be copied)"):
        save(job(source, last=1, days=0), store)
    assert kept(store) == older


def test_no_room_leaves_nothing_behind_and_says_what_to_do(
    source: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Writer, "finish", full)
    with pytest.raises(BackupError, match=r"no room.*backup\.persistence\.size"):
        save(job(source), store)
    assert kept(store) == []


def test_what_a_killed_backup_left_is_removed_by_the_next(source: Path, store: FolderStore) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from app.backup.store import FolderStore\n"
        "with FolderStore(Path(sys.argv[1])).workspace() as folder:\n"
        "    (folder / 'archive').write_bytes(b'x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(store.root)], cwd=ROOT)
    assert len(kept(store)) == 2, "its folder and its lock"
    save(job(source), store)
    assert kept(store) == [file_name(NAME, "prefect")]


def test_backups_at_the_same_time_do_not_disturb_each_other(source: Path, store: FolderStore) -> None:
    names = [backup_name("team.mlops", NOW + timedelta(seconds=n)) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: save(job(source, name=name), store), names))
    assert kept(store) == sorted(file_name(name, "prefect") for name in names)
    for name in names:
        assert check(store, name, "prefect").counts == {"flow_run": 10}


def test_of_backups_of_the_same_name_one_is_kept_and_none_is_overwritten(source: Path, store: FolderStore) -> None:
    barrier = threading.Barrier(4)

    def one(_: int) -> str:
        barrier.wait()
        try:
            return save(job(source), store).file
        except BackupError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(one, range(4)))
    assert answers.count(file_name(NAME, "prefect")) == 1
    assert sum("exists already" in answer for answer in answers) == 3
    assert check(store, NAME, "prefect").counts == {"flow_run": 10}


def test_what_is_being_restored_is_not_saved(
    source: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save(job(source), store)
    other = job(source, name=backup_name("team.mlops", NOW + timedelta(hours=1)))
    (source / restoring.STAGING).mkdir()
    with pytest.raises(BackupError, match="is being restored"):
        save(other, store)
    (source / restoring.STAGING).rmdir()
    copy = databases.copy

    def copy_and_restore(database: Path, target: Path) -> None:
        copy(database, target)
        restore(store, NAME, "prefect", source)

    monkeypatch.setattr(databases, "copy", copy_and_restore)
    with pytest.raises(BackupError, match="was restored while it was being saved"):
        save(other, store)
    assert kept(store) == [file_name(NAME, "prefect")]


def test_a_job_that_is_tried_again_keeps_the_backup_that_it_had_made(
    source: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in {
        "DESTINATION": store.root, "ORIGIN": "team.mlops", "COMPONENT": "prefect", "DATA": source, "LAST": 7, "DAYS": 1,
        "JOB": "mlops-backup-prefect-29666665",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"MLOPS_BACKUP_{key}", str(value))
    monkeypatch.setattr(sys, "argv", ["backup", "save"])
    for _ in range(2):
        main()
        assert "10 flow run" in capsys.readouterr().out
    assert kept(store) == ["team.mlops-20260528T202500Z.prefect.tar.gz"], "named after when it was due"


def test_an_archive_is_not_for_everybody_to_read(source: Path, store: FolderStore) -> None:
    save(job(source), store)
    assert (store.root / file_name(NAME, "prefect")).stat().st_mode & 0o007 == 0


# -- what is kept ------------------------------------------------------------------------------------------------------


def entry(days: float, origin: str = "team.mlops", component: str = "mlflow") -> Entry:
    return Entry(NOW - timedelta(days=days), origin, component, 1)


def test_the_last_ones_and_the_young_ones_stay() -> None:
    entries = [entry(days) for days in range(30)]
    assert outdated(entries, "team.mlops", "mlflow", 7, 14, NOW) == [entry(days) for days in range(29, 14, -1)]
    assert outdated(entries, "team.mlops", "mlflow", 20, 0, NOW) == [entry(days) for days in range(29, 19, -1)]


def test_the_newest_stays_however_old_it_is_and_whatever_was_asked() -> None:
    assert outdated([entry(900), entry(800)], "team.mlops", "mlflow", 0, 0, NOW) == [entry(900)]


def test_what_others_made_is_left() -> None:
    others = [entry(90, origin="other.mlops"), entry(91, component="prefect")]
    assert outdated([*others, entry(0)], "team.mlops", "mlflow", 1, 0, NOW) == []


def test_a_new_backup_removes_what_is_outdated_and_no_file_that_is_none(source: Path, store: FolderStore) -> None:
    store.root.mkdir()
    (store.root / "notes.txt").write_text("mine")
    names = [backup_name("team.mlops", NOW - timedelta(days=400 - n)) for n in range(4)]
    removed = [save(job(source, name=name, last=2, days=1), store).removed for name in names]
    assert removed == [[], [], [names[0]], [names[1]]]
    assert kept(store) == sorted([*(file_name(name, "prefect") for name in names[2:]), "notes.txt"])


# -- restoring ---------------------------------------------------------------------------------------------------------


def test_a_restore_replaces_what_is_there_and_leaves_other_files(
    source: Path, target: Path, store: FolderStore
) -> None:
    save(job(source), store)
    assert restore(store, NAME, "prefect", target).counts == {"flow_run": 10}
    assert count(target / "prefect.db") == 10
    assert (target / "profiles.toml").read_text() == "mine"
    assert not (target / restoring.STAGING).exists()
    restore(store, NAME, "prefect", target)
    assert count(target / "prefect.db") == 10


def test_rows_that_a_killed_server_left_beside_its_database_are_saved(source: Path, store: FolderStore) -> None:
    code = (
        "import os, signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA wal_autocheckpoint=0')\n"
        "c.execute('INSERT INTO flow_run VALUES (99)'); c.commit(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(source / "prefect.db")])
    assert (source / "prefect.db-wal").stat().st_size > 0
    assert save(job(source), store).contents.counts == {"flow_run": 11}


def test_a_damaged_a_foreign_and_a_missing_archive_touch_nothing(
    source: Path, target: Path, store: FolderStore
) -> None:
    with pytest.raises(BackupError, match=r"no archive.*--list"):
        restore(store, NAME, "prefect", target)
    save(job(source), store)
    path = store.root / file_name(NAME, "prefect")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BackupError, match="cut off"):
        restore(store, NAME, "prefect", target)
    path.write_bytes(b"x" * 1000)
    with pytest.raises(BackupError, match="no backup of this platform"):
        restore(store, NAME, "prefect", target)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(BackupError, match="no archive"):
        restore(store, NAME, "prefect", target)
    assert_untouched(target)


def test_tables_of_a_later_version_are_refused_with_the_version_that_can_open_them(
    source: Path, target: Path, store: FolderStore
) -> None:
    with closing(sqlite3.connect(source / "prefect.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of-tomorrow'")
    save(job(source), store)
    with pytest.raises(BackupError, match=r"of-tomorrow.*upgrade the platform"):
        restore(store, NAME, "prefect", target)
    assert_untouched(target)


def test_the_versions_of_the_tables_of_all_databases_are_known() -> None:
    for known in (MLFLOW.known(), PREFECT.known(), databases.ACCOUNTS.known()):
        assert known
        assert len(known) >= 3


def test_a_database_that_is_in_use_is_not_replaced(source: Path, target: Path, store: FolderStore) -> None:
    save(job(source), store)
    with closing(sqlite3.connect(target / "prefect.db")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackupError, match="is in use; stop what uses it"):
            restore(store, NAME, "prefect", target)
        connection.rollback()
    assert count(target / "prefect.db") == 3
    restore(store, NAME, "prefect", target)
    assert count(target / "prefect.db") == 10


def test_no_room_touches_nothing(
    source: Path, target: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(job(source), store)
    with monkeypatch.context() as patched:
        patched.setattr(restoring, "SPARE", 1 << 60)
        with pytest.raises(BackupError, match="MB are needed"):
            restore(store, NAME, "prefect", target)
    assert_untouched(target)


POINTS = ["read", "_write", "rename-1", "rename-2", "rename-3", "rmtree"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_a_restore_goes_on_when_it_is_run_again(
    point: str, source: Path, target: Path, store: FolderStore, tmp_path: Path
) -> None:
    save(job(source), store)
    code = f"""
import os, signal, sys
from pathlib import Path
from app.backup import restore as module
from app.backup.store import FolderStore

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

point, calls, rename = {point!r}, [], os.rename
def counted(*names):
    calls.append(names)
    if point == f"rename-{{len(calls)}}":
        kill()
    rename(*names)

os.rename = counted
if point == "read":
    module._unpack.__globals__["_sync_folders"] = kill
elif point == "_write":
    module._write = kill
elif point == "rmtree":
    module.shutil.rmtree = lambda path, ignore_errors=False: None if ignore_errors else kill()
module.restore(FolderStore(Path(sys.argv[1])), {NAME!r}, "prefect", Path(sys.argv[2]))
"""
    killed = subprocess.run([sys.executable, "-c", code, str(store.root), str(target)], cwd=ROOT)
    if point != "rename-3":
        assert killed.returncode == -9
    copies = [count(path) for path in target.rglob("prefect.db*") if path.suffix in (".db", ".0", ".1", ".2")]
    assert 3 in copies or killed.returncode == 0, "what was there is somewhere until the new one is in place"
    assert restore(store, NAME, "prefect", target).counts == {"flow_run": 10}
    assert count(target / "prefect.db") == 10
    assert not (target / restoring.STAGING).exists()
    assert (target / "profiles.toml").read_text() == "mine"


def test_another_backup_is_not_restored_over_a_half_finished_restore(
    source: Path, target: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = backup_name("team.mlops", NOW + timedelta(hours=1))
    save(job(source), store)
    save(job(source, name=other), store)
    renames = []

    def once(old: Path, new: Path, rename: object = os.rename) -> None:
        renames.append(old)
        if len(renames) == 2:
            raise KeyboardInterrupt
        rename(old, new)  # type: ignore[operator]

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", once)
        with pytest.raises(KeyboardInterrupt):
            restore(store, NAME, "prefect", target)
    with pytest.raises(BackupError, match="stopped half-way; run it again"):
        restore(store, other, "prefect", target)
    restore(store, NAME, "prefect", target)
    assert restore(store, other, "prefect", target).counts == {"flow_run": 10}


def test_an_archive_whose_database_is_damaged_is_refused_though_its_sums_fit(
    target: Path, store: FolderStore, tmp_path: Path
) -> None:
    store.root.mkdir()
    header = Header("prefect", "team.mlops", "now", {"prefect.db": HEAD})
    with (store.root / file_name(NAME, "prefect")).open("wb") as file, Writer(file, header) as writer:
        writer.add_bytes("prefect.db", b"SQLite format 3\0" + b"\xff" * 8000)
        writer.finish({})
    with pytest.raises(BackupError, match="is damaged"):
        restore(store, NAME, "prefect", target)
    assert_untouched(target)


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "latest", "team.mlops-20261127T020000Z.mlflow", "-20261127T020000Z"]
)
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(BackupError, match="is not the name of a backup"):
        checked_name(name)


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_secrets_are_opened_by_the_users_key_and_by_no_other(tmp_path: Path, store: FolderStore) -> None:
    (values := tmp_path / "values").mkdir()
    (values / "feedback-key").write_text("very secret")
    recipient = new_identity(tmp_path / "key.txt")
    new_identity(tmp_path / "other.txt")
    assert (tmp_path / "key.txt").stat().st_mode & 0o077 == 0
    save(job(values, component="secrets", recipient=recipient), store)
    assert b"very secret" not in (store.root / file_name(NAME, "secrets")).read_bytes()
    content = encrypted_secrets(store, NAME).encode()
    assert json.loads(decrypted(content, tmp_path / "key.txt")) == {"feedback-key": "very secret"}
    with pytest.raises(BackupError, match="does not open"):
        decrypted(content, tmp_path / "other.txt")
    with pytest.raises(BackupError, match="cannot be made"):
        new_identity(tmp_path / "key.txt")


def test_without_a_key_of_the_users_secrets_are_not_saved(tmp_path: Path, store: FolderStore) -> None:
    (values := tmp_path / "values").mkdir()
    (values / "feedback-key").write_text("very secret")
    for recipient in ("", "age1nonsense", "ssh-rsa AAAA"):
        with pytest.raises(BackupError, match="not a public key of age"):
            save(job(values, component="secrets", recipient=recipient), store)
    assert kept(store) == []


@pytest.mark.parametrize("content", [b"", b"# only a comment\n", b"hello", b"\xff\xfe"])
def test_a_file_without_a_private_key_is_refused_by_its_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_bytes(content)
    with pytest.raises(BackupError, match=r"key\.txt"):
        decrypted(b"x", tmp_path / "key.txt")
