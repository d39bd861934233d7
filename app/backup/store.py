"""Where archives are kept: a folder (a volume, in the cluster) or a bucket of S3. Nothing there is ever overwritten."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from app.backup.archive import FILES
from app.backup.errors import BackupError

TIME = "%Y%m%dT%H%M%SZ"
SUFFIX = ".tar.gz"
PART = ".part-"  # what backups under way begin with
_FILE = re.compile(
    rf"(?P<origin>[a-z0-9][a-z0-9.-]*)-(?P<time>\d{{8}}T\d{{6}}Z)\.(?P<component>{'|'.join(FILES)})\.tar\.gz"
)
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,150}-\d{8}T\d{6}Z")
T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Entry:
    """An archive that is kept. size: bytes, packed."""

    made: datetime
    origin: str
    component: str
    size: int

    @property
    def backup(self) -> str:
        """The name of the backup that it is part of."""
        return f"{self.origin}-{self.made:{TIME}}"

    @property
    def file(self) -> str:
        """Its file's name."""
        return file_name(self.backup, self.component)


def backup_name(origin: str, now: datetime) -> str:
    """The name of a backup that is made now."""
    return f"{origin}-{now.astimezone(UTC):{TIME}}"


def file_name(backup: str, component: str) -> str:
    """The name of one archive of a backup."""
    return f"{backup}.{component}{SUFFIX}"


def checked_name(backup: str) -> str:
    """The name of a backup as somebody gave it.

    Raises:
        BackupError: it cannot be one.
    """
    if not _NAME.fullmatch(backup):
        raise BackupError(
            f"{backup[:200]!r} is not the name of a backup", "`mlops backup --list` prints those that there are"
        )
    return backup


def parsed(file: str, size: int) -> Entry | None:
    """The archive of this file's name; None for any other file."""
    match = _FILE.fullmatch(file)
    if not match:
        return None
    try:
        made = datetime.strptime(match["time"], TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return Entry(made, match["origin"], match["component"], size)


class Store(ABC):
    """A place for archives."""

    @abstractmethod
    def entries(self) -> list[Entry]:
        """The archives that are kept, oldest first."""

    @abstractmethod
    def workspace(self) -> contextlib.AbstractContextManager[Path]:
        """A folder to write an archive in, removed afterwards; what killed backups left is removed before."""

    @abstractmethod
    def keep(self, archive: Path, file: str, check: Callable[[BinaryIO], T]) -> T:
        """Keep an archive that was written in a workspace, once what is kept has been checked; what `check` returns.

        Raises:
            BackupError: there is one of this name, or the check's.
        """

    @abstractmethod
    def open(self, file: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """An archive, to be read from its start. Raises BackupError where there is none."""

    @abstractmethod
    def remove(self, file: str) -> None:
        """Remove an archive; nothing happens where it is gone."""


class FolderStore(Store):
    """Archives in a folder.

    Raises:
        BackupError: it cannot be written; what there is no room for is not kept.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def entries(self) -> list[Entry]:
        """See Store."""
        found = []
        for path in self.root.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                found.append(parsed(path.name, path.lstat().st_size) if path.is_file() else None)
        return sorted(entry for entry in found if entry)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """See Store. It is on the volume itself, so that keeping an archive is a link."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._sweep()
        number, lock = self._locked()
        folder = lock.with_suffix("")
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
            os.close(number)

    def _locked(self) -> tuple[int, Path]:
        """A new file that this process has a lock on, and its descriptor."""
        while True:
            number, lock = tempfile.mkstemp(prefix=PART, suffix=".lock", dir=self.root)
            fcntl.flock(number, fcntl.LOCK_EX)
            if os.path.exists(lock):
                return number, Path(lock)
            os.close(number)  # another backup took it for a dead one's before it was locked

    def _sweep(self) -> None:
        """Remove what backups left that were killed: nobody has their lock."""
        for lock in self.root.glob(f"{PART}*.lock"):
            with contextlib.suppress(OSError), lock.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)

    def keep(self, archive: Path, file: str, check: Callable[[BinaryIO], T]) -> T:
        """See Store."""
        with archive.open("rb") as opened:
            os.fsync(opened.fileno())
            checked = check(opened)
        try:
            os.link(archive, self.root / file)  # unlike a rename, this replaces nothing
        except FileExistsError as error:
            raise BackupError(f"{self.root / file} exists already", "give the backup another name") from error
        sync(self.root)
        return checked

    @contextmanager
    def open(self, file: str) -> Iterator[BinaryIO]:
        """See Store."""
        try:
            # never through a link, which could lead to another file
            number = os.open(self.root / file, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise BackupError(
                f"there is no archive {file} in {self.root} ({error.strerror})",
                "`mlops backup --list` prints those that there are",
            ) from error
        with os.fdopen(number, "rb") as opened:
            yield opened

    def remove(self, file: str) -> None:
        """See Store."""
        (self.root / file).unlink(missing_ok=True)


class S3Store(Store):
    """Archives below s3://bucket/path. The account is found as boto3 finds one: AWS_ACCESS_KEY_ID and so on.

    Args:
        url: s3://bucket/path.
        endpoint: of another store than AWS'; "" for AWS.
    """

    def __init__(self, url: str, endpoint: str = "") -> None:
        import boto3
        from botocore.config import Config

        parts = urlsplit(url)
        self.url, self.bucket, self.path = url.rstrip("/"), parts.netloc, parts.path.strip("/")
        # Sums of requests, which not every store knows, are left out: what was sent is read again and compared.
        config = Config(
            retries={"mode": "standard", "max_attempts": 5},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self.client: Any = boto3.client("s3", endpoint_url=endpoint or None, config=config)

    def entries(self) -> list[Entry]:
        """See Store."""
        found = []
        with self._asking("list"):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key("")):
                for item in page.get("Contents", []):
                    found.append(parsed(item["Key"].removeprefix(self._key("")), item["Size"]))
        return sorted(entry for entry in found if entry)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """See Store."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)

    def keep(self, archive: Path, file: str, check: Callable[[BinaryIO], T]) -> T:
        """See Store. What was sent is read again; where it is not what was meant, it is removed."""
        if any(entry.file == file for entry in self.entries()):
            raise BackupError(f"{self.url}/{file} exists already", "give the backup another name")
        with archive.open("rb") as opened:
            check(opened)
        with self._asking("write"):
            self.client.upload_file(str(archive), self.bucket, self._key(file))
        try:
            with self.open(file) as sent:
                return check(sent)
        except BackupError:
            self.remove(file)
            raise

    @contextmanager
    def open(self, file: str) -> Iterator[BinaryIO]:
        """See Store."""
        with self._asking("read", file):
            body = self.client.get_object(Bucket=self.bucket, Key=self._key(file))["Body"]
            with contextlib.closing(body):
                yield body

    def remove(self, file: str) -> None:
        """See Store."""
        with self._asking("remove", file):
            self.client.delete_object(Bucket=self.bucket, Key=self._key(file))

    def _key(self, file: str) -> str:
        return f"{self.path}/{file}" if self.path else file

    @contextmanager
    def _asking(self, verb: str, file: str = "") -> Iterator[None]:
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        try:
            yield
        except (BotoCoreError, ClientError, HTTPClientError, S3UploadFailedError) as error:
            raise BackupError(
                f"may not or cannot {verb} {self.url}/{file}: {error}",
                "check the address, the account and what the network lets through",
            ) from error


def store(destination: str, endpoint: str = "") -> Store:
    """The place that a path of a folder or s3://bucket/path names."""
    return S3Store(destination, endpoint) if destination.startswith("s3://") else FolderStore(Path(destination))


def sync(folder: Path) -> None:
    """Have a folder's names on the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
