"""Names that come from elsewhere, as parts of paths on this machine."""

from __future__ import annotations

import re
from pathlib import Path

MAX_NAME = 200  # characters; file systems take 255 bytes
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


class UnsafePath(ValueError):
    """A name would lead out of the folder that it belongs into, or cannot be the name of a file."""


def inside(folder: Path, *names: str) -> Path:
    """The path of a file or folder below `folder`.

    Args:
        names: each the name of one folder or file, and no path.

    Raises:
        UnsafePath: one is empty, "." or "..", too long, has a slash, a backslash or a control character in it, or a
            link on the way leads out of the folder.
    """
    for name in names:
        if name in ("", ".", "..") or len(name) > MAX_NAME or re.search(r"[/\\\x00-\x1f\x7f]", name):
            raise UnsafePath(f"{name[:MAX_NAME]!r} is not the name of a file or folder")
    path = folder.joinpath(*names)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UnsafePath(f"{'/'.join(names)!r} leads out of {folder}")
    return path


def is_sha256(text: str) -> bool:
    """Whether this is a SHA-256 sum: 64 digits of lower-case hex."""
    return bool(_HEX_SHA256.fullmatch(text))


def is_version(text: str) -> bool:
    """Whether this is the number of a model version: 1, 2, 3, ..."""
    return bool(_VERSION.fullmatch(text))
