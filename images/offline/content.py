"""Content keys: what was built carries the hash of all that it was built from, and is built again when that changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_SKIPPED = {"__pycache__"}


def file(path: Path) -> str:
    """SHA-256 of content and executable bit."""
    mode = "x" if path.stat().st_mode & 0o100 else "-"
    return mode + hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder: Path, skipped: Iterable[str] = _SKIPPED) -> dict[str, str]:
    """Relative path -> hash, for every file of a folder, but for files and folders of the names `skipped`."""
    inside = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {str(name): file(path) for name, path in inside.items() if not set(skipped) & set(name.parts)}


def key(*parts: object) -> str:
    """The first 16 hex digits of the SHA-256 of JSON-able parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def tuples(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a TOML file with tuples for its lists, to make a hashable record of."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
