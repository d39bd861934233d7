"""Archives that are damaged, cut off, foreign or hostile: refused with the reason, and nothing is written outside."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from app.backup import archive as archives
from app.backup.archive import HEADER, MANIFEST, Header, Writer, is_expected, read
from app.backup.errors import BackupError

NAME = "team.mlops-20261127T020000Z.mlflow.tar.gz"
HEAD = Header("mlflow", "team.mlops", "2026-11-27T02:00:00+00:00", {"mlflow.db": "abc"}, {"mlflow": "3.17.2"})
FILES = {
    "mlflow.db": b"rows" * 5000,
    "artifacts/1/run/artifacts/model.onnx": bytes(range(256)) * 300,
    "artifacts/empty": b"",
    "artifacts/back\\slash, line\nand byte \udcff": b"odd",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "archive"
    with path.open("wb") as file, Writer(file, HEAD) as writer:
        for name, content in FILES.items():
            (tmp_path / "source").write_bytes(content)
            writer.add(name, tmp_path / "source")
        writer.finish({"runs": 3})
    return path


def tar(*members: tuple[str | tarfile.TarInfo, bytes]) -> bytes:
    """A gzipped tar of whatever members."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as written:
        for name, content in members:
            entry = tarfile.TarInfo(name) if isinstance(name, str) else name
            entry.size = len(content)
            written.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


def refused(content: bytes, into: Path, component: str = "mlflow") -> str:
    into.mkdir(parents=True)
    with pytest.raises(BackupError) as raised:
        read(io.BytesIO(content), NAME, component, into)
    return str(raised.value)


def test_what_was_archived_comes_out_again(archive: Path, tmp_path: Path) -> None:
    into = tmp_path / "out"
    with archive.open("rb") as file:
        contents = read(file, NAME, "mlflow", into)
    assert {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()} == FILES
    assert (contents.header, contents.counts) == (HEAD, {"runs": 3})
    assert contents.size == sum(map(len, FILES.values()))


def test_a_flipped_bit_anywhere_is_seen(archive: Path) -> None:
    content = archive.read_bytes()
    unpacked, seen = gzip.decompress(content), 0
    for position in range(10, len(content), max(1, len(content) // 300)):
        changed = bytearray(content)
        changed[position] ^= 0x10
        try:
            read(io.BytesIO(bytes(changed)), NAME, "mlflow")
        except BackupError:
            seen += 1
        else:  # a code of deflate that means the same
            assert gzip.decompress(bytes(changed)) == unpacked
    assert seen > 200


def test_an_archive_that_was_cut_off_is_refused_wherever_it_was(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    for length in [0, 1, *range(5, len(content), max(1, len(content) // 100)), len(content) - 1]:
        with pytest.raises(BackupError):
            read(io.BytesIO(content[:length]), NAME, "mlflow")
    # cut off by a program that ends what it writes properly
    whole = gzip.decompress(content)
    assert "cut off" in refused(gzip.compress(whole[: len(whole) // 2 // 512 * 512]), tmp_path / "out")


def test_what_is_no_backup_of_ours_is_refused(archive: Path, tmp_path: Path) -> None:
    foreign = tar(("etc/passwd", b"root"))
    assert "not a backup of this platform" in refused(foreign, tmp_path / "1")
    assert "no backup of this platform" in refused(b"PK\x03\x04" + b"x" * 500, tmp_path / "2")
    assert "format 2" in refused(tar((HEADER, json.dumps({"format": 2}).encode())), tmp_path / "3")
    assert "no text" in refused(tar((HEADER, b'{"format": 1, "component": 5}')), tmp_path / "4")
    assert "not JSON" in refused(tar((HEADER, b"{")), tmp_path / "5")
    assert "not of prefect" in refused(archive.read_bytes(), tmp_path / "6", "prefect")
    assert not list(tmp_path.glob("[1-6]/*"))


def with_member(entry: str | tarfile.TarInfo, content: bytes = b"x") -> bytes:
    start = (HEADER, json.dumps({**HEAD.__dict__}).encode())
    return tar(start, (entry, content), (MANIFEST, b'{"members": {}, "counts": {}}'))


def linked(kind: bytes, name: str = "artifacts/link") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, "../../../canary"
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        "../canary", "/srv/canary", "artifacts/../../canary", "artifacts/./../x", "artifacts//x",
        "artifacts", "mlflow.db-wal", ".restore/complete", "other.db", "artifacts/" + "../" * 9 + "x",
        linked(tarfile.SYMTYPE), linked(tarfile.LNKTYPE), linked(tarfile.CHRTYPE), linked(tarfile.FIFOTYPE),
        linked(tarfile.DIRTYPE), linked(tarfile.SYMTYPE, "mlflow.db"),
    ],
    ids=lambda entry: entry if isinstance(entry, str) else f"{entry.name}-{entry.type!r}",
)  # fmt: skip
def test_names_that_lead_elsewhere_links_and_devices_are_refused(entry: str | tarfile.TarInfo, tmp_path: Path) -> None:
    content = b"" if isinstance(entry, tarfile.TarInfo) else b"x"
    assert "which no backup of mlflow has" in refused(with_member(entry, content), tmp_path / "deep" / "er")
    assert [p for p in tmp_path.rglob("*") if not p.is_dir()] == []


def test_a_member_twice_and_one_that_is_not_listed_are_refused(archive: Path, tmp_path: Path) -> None:
    start = (HEADER, json.dumps({**HEAD.__dict__}).encode())
    twice = tar(start, ("mlflow.db", b"a"), ("mlflow.db", b"b"), (MANIFEST, b'{"members": {}, "counts": {}}'))
    assert "mlflow.db" in refused(twice, tmp_path / "1")
    assert "not the file that was archived" in refused(with_member("artifacts/x"), tmp_path / "2")
    lacking = tar(start, (MANIFEST, b'{"members": {"mlflow.db": [1, "x"]}, "counts": {}}'))
    assert "lacks 'mlflow.db'" in refused(lacking, tmp_path / "3")
    after = tar(start, (MANIFEST, b'{"members": {}, "counts": {}}'), ("artifacts/x", b"x"))
    assert "after its end" in refused(after, tmp_path / "4")


def test_an_index_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    assert "too large" in refused(tar((HEADER, b" " * 100_000)), tmp_path / "1")


def test_usual_names_of_artifacts_are_taken() -> None:
    for name in ("1/abc/artifacts/model/MLmodel", "a b.txt", "ä/é..txt", "..x", "a\\b", "a\nb", "\udcff"):
        assert is_expected("mlflow", f"artifacts/{name}")
    assert not is_expected("prefect", "artifacts/x")


def test_a_file_that_somebody_writes_to_is_not_archived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "model.onnx"
    for change in (b"longer" * 100_000, b"cut"):
        source.write_bytes(b"x" * 100_000)
        sha256 = archives.hashlib.sha256

        def written(content: bytes = b"", change: bytes = change, sha256: Any = sha256) -> Any:
            source.write_bytes(change)  # as it is opened
            return sha256(content)

        with (tmp_path / "archive").open("wb") as file, monkeypatch.context() as patched:
            patched.setattr(archives.hashlib, "sha256", written)
            with pytest.raises(BackupError, match=r"model\.onnx was (written to|cut)"), Writer(file, HEAD) as writer:
                writer.add("artifacts/model.onnx", source)
