"""The lock of the demo's folder: one demo at a time, and no restore under a running one."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TextIO

from app.cli.errors import CommandError


def lock_folder(folder: Path) -> TextIO:
    """The lock of an existing folder, held while the file is open.

    Raises:
        CommandError: a demo has it.
        OSError: the folder cannot be written.
    """
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise CommandError(f"another demo is running in {folder}", "stop it with Ctrl-C first") from error
    return lock
