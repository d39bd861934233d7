"""One archive: a gzipped tar whose first member says what it is of, and whose last has the sum of every other.

It is written and read as a stream, in a memory that does not grow with the files. Whoever reads it believes none of it:
each member's name, size and sum are compared, and what was cut off has no last member.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, Self

from app.backup.errors import BackupError

FORMAT = 1
HEADER, MANIFEST = "mlops-backup.json", "manifest.json"
MAX_HEADER, MAX_MANIFEST = 64 * 1024, 256 * 1024 * 1024  # bytes
BLOCK = 1024 * 1024
ARTIFACTS = "artifacts"  # MLflow's folder
# The files of a component, beside MLflow's artifacts.
FILES = {
    "mlflow": ("mlflow.db", "basic_auth.db", "mlflow.dump", "basic_auth.dump"),
    "prefect": ("prefect.db", "prefect.dump"),
    "secrets": ("secrets.age",),
}


@dataclass(frozen=True)
class Header:
    """What an archive is of.

    component: "mlflow", "prefect" or "secrets"; origin: who made it, such as "mlops.mlops" (namespace and release).
    made: when, in UTC, ISO 8601; revisions: of each database's tables; versions: of the programs that these are of.
    """

    component: str
    origin: str
    made: str
    revisions: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True)
class Member:
    """A file in an archive: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Contents:
    """What is in an archive. counts: rows by table, and what else is worth telling."""

    header: Header
    members: dict[str, Member]
    counts: dict[str, int]

    @property
    def size(self) -> int:
        """Bytes of all files, unpacked."""
        return sum(member.size for member in self.members.values())


class Writer:
    """Writes an archive into an open file, to be used by `with`; `finish` is what makes it one.

    Raises (all methods): OSError.
    """

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self.header, self.members = header, dict[str, Member]()
        # No name and no time of the machine in it; level 1, as models and Parquet hardly get smaller by more.
        self._gzip = gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0)
        self._tar = tarfile.TarFile(fileobj=self._gzip, mode="w", format=tarfile.PAX_FORMAT)
        self._put(HEADER, json.dumps(asdict(header)).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error:  # what is still in memory is for nobody, and there may be no room for it
            self._gzip.fileobj = io.BytesIO()
        self._gzip.close()

    def add(self, name: str, path: Path) -> None:
        """Add a file that nobody writes to.

        Raises:
            FileNotFoundError: it is gone; the archive is as before.
            BackupError: somebody did write to it.
        """
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            digest = _Digest(file)
            try:
                self._tar.addfile(_entry(name, before.st_size), digest)
            except OSError as error:
                if error.errno is not None:
                    raise
                raise BackupError(f"{path} was cut while it was being read", "make the backup again") from error
            if digest.size != before.st_size or stamp(before) != stamp(os.fstat(file.fileno())):
                raise BackupError(f"{path} was written to while it was being read", "make the backup again")
        self.members[name] = Member(digest.size, digest.sha256)
        self._forget()

    def add_bytes(self, name: str, content: bytes) -> None:
        """Add a file of this content."""
        self._put(name, content)
        self.members[name] = Member(len(content), hashlib.sha256(content).hexdigest())

    def finish(self, counts: dict[str, int]) -> Contents:
        """Write the sums; returns what is in the archive."""
        members = {name: [member.size, member.sha256] for name, member in self.members.items()}
        self._put(MANIFEST, json.dumps({"members": members, "counts": counts}).encode())
        self._tar.close()
        return Contents(self.header, self.members, counts)

    def _put(self, name: str, content: bytes) -> None:
        self._tar.addfile(_entry(name, len(content)), io.BytesIO(content))
        self._forget()

    def _forget(self) -> None:
        self._tar.members = []  # type: ignore[attr-defined]  # tarfile would keep one of each


def read(file: BinaryIO, name: str, component: str, into: Path | None = None) -> Contents:
    """Check a whole archive: every name, size and sum. The one way in which any archive is read.

    Args:
        file: open at its start.
        name: of the archive, for messages.
        component: what it has to be of.
        into: an empty folder for its files; None for none. After an error it has some of them.

    Returns:
        what is in it.

    Raises:
        BackupError: it is damaged, cut off, or not one of ours; with the member where that is known.
        OSError: a file cannot be written.
    """
    found: dict[str, Member] = {}
    with _reading(name), gzip.GzipFile(fileobj=file) as unpacked:
        with tarfile.open(fileobj=unpacked, mode="r|") as tar:
            first = _header(tar, tar.next(), name)
            if first.component != component:
                raise BackupError(f"{name} says that it is of {first.component}, not of {component}; it was renamed")
            while (entry := tar.next()) and entry.name != MANIFEST:
                tar.members = []  # type: ignore[attr-defined]
                if not entry.isreg() or not is_expected(component, entry.name) or entry.name in found:
                    raise BackupError(f"{name} has {entry.name[:200]!r} in it, which no backup of {component} has")
                found[entry.name] = _copy(tar.extractfile(entry), into / entry.name if into else None)
                if found[entry.name].size != entry.size:
                    raise BackupError(f"{name} ends in the middle of {entry.name}: it was cut off")
            if entry is None:
                raise BackupError(f"{name} ends before its list of files: it was cut off")
            manifest = _json(tar, entry, MAX_MANIFEST, name)
            if tar.next() is not None:
                raise BackupError(f"{name} has something after its end: it was changed")
        while unpacked.read(BLOCK):  # to its end, where gzip has the sum of all
            pass
    return Contents(first, found, _compared(found, manifest, name))


def is_expected(component: str, name: str) -> bool:
    """Whether a backup of the component may have a file of this name; none of them leads out of a folder."""
    path = PurePosixPath(name)
    if str(path) != name or path.is_absolute() or ".." in path.parts:
        return False
    return name in FILES[component] or (component == "mlflow" and path.parts[0] == ARTIFACTS and len(path.parts) > 1)


def stamp(status: os.stat_result) -> tuple[int, int, int]:
    """What changes when somebody writes to a file."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class _Digest(io.RawIOBase):
    """A file that is read, and the sum of what was read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sum, self.size = file, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        content = self._file.read(size)
        self._sum.update(content)
        self.size += len(content)
        return content

    @property
    def sha256(self) -> str:
        """Of what was read, in hex."""
        return self._sum.hexdigest()


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    return entry


def _copy(source: IO[bytes] | None, path: Path | None) -> Member:
    """Read a member to its end, into a new file where there is a path."""
    assert source, "regular files have content"
    digest = _Digest(source)
    if path is None:
        while digest.read(BLOCK):
            pass
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            while content := digest.read(BLOCK):
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return Member(digest.size, digest.sha256)


def _header(tar: tarfile.TarFile, entry: tarfile.TarInfo | None, name: str) -> Header:
    if entry is None or entry.name != HEADER:
        raise BackupError(f"{name} is not a backup of this platform: it does not begin with {HEADER}")
    content = _json(tar, entry, MAX_HEADER, name)
    if content.get("format") != FORMAT:
        found = str(content.get("format"))[:20]
        raise BackupError(
            f"{name} has format {found}, and this version of the platform knows format {FORMAT}",
            "upgrade the platform, then restore",
        )
    return Header(
        component=_text(content, "component", name),
        origin=_text(content, "origin", name),
        made=_text(content, "made", name),
        revisions=_texts(content, "revisions", name),
        versions=_texts(content, "versions", name),
    )


def _json(tar: tarfile.TarFile, entry: tarfile.TarInfo, limit: int, name: str) -> dict[str, Any]:
    if not entry.isreg() or entry.size > limit:
        raise BackupError(f"{name} is not a backup of this platform: its {entry.name} is too large or no file")
    file = tar.extractfile(entry)
    assert file, "regular files have content"
    try:
        content = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise BackupError(f"{name} is damaged: its {entry.name} is not JSON") from error
    if not isinstance(content, dict):
        raise BackupError(f"{name} is damaged: its {entry.name} is not a JSON object")
    return content


def _text(content: dict[str, Any], key: str, name: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
        raise BackupError(f"{name} is damaged: {key} in its {HEADER} is no text")
    return value


def _texts(content: dict[str, Any], key: str, name: str) -> dict[str, str]:
    values = content.get(key)
    if not isinstance(values, dict):
        raise BackupError(f"{name} is damaged: {key} in its {HEADER} is no JSON object")
    return {_text({"key": word}, "key", name): _text(values, word, name) for word in values}


def _compared(found: dict[str, Member], manifest: dict[str, Any], name: str) -> dict[str, int]:
    """The counts of a manifest whose sums are those of the members found."""
    listed, counts = manifest.get("members"), manifest.get("counts")
    if not isinstance(listed, dict) or not isinstance(counts, dict):
        raise BackupError(f"{name} is damaged: its {MANIFEST} has no members or no counts")
    if missing := sorted(listed.keys() - found.keys()):
        raise BackupError(f"{name} lacks {missing[0]!r}: it was changed")
    for member, is_there in found.items():
        if listed.get(member) != [is_there.size, is_there.sha256]:
            raise BackupError(f"{name} is damaged: {member} is not the file that was archived")
    if not all(isinstance(count, int) for count in counts.values()):
        raise BackupError(f"{name} is damaged: the counts in its {MANIFEST} are no numbers")
    return counts


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except EOFError as error:
        raise BackupError(f"{name} was cut off") from error
    except gzip.BadGzipFile as error:
        raise BackupError(f"{name} is damaged, or no backup of this platform ({error})") from error
    except (tarfile.TarError, zlib.error, ValueError, ArithmeticError, LookupError) as error:  # of headers, too
        what = "was cut off" if "unexpected end" in str(error) else "is damaged"
        raise BackupError(f"{name} {what} ({error})") from error
