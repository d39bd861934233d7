"""The folders that downloaded bundles are kept in, so that they are downloaded once: what is kept, and for how long.

<cache>/<model>/<version>-<begin of its sum>/   a bundle, as `app.registry.bundle.fetch_bundle` puts it there
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

KEPT_BUNDLES = 3  # per model
KEPT_BYTES = 4 * 2**30  # of all models
IN_USE = 300.0  # seconds
STALE_DOWNLOAD = 3600.0  # seconds; an older one is of a process that was killed
BUNDLE_FOLDER = re.compile(r"\d{1,18}-[0-9a-f]{16}")


def prune_model(folder: Path, current: str = "", in_use: float = 0.0) -> None:
    """Delete all but the newest bundles of a model, and downloads that were never finished.

    Args:
        folder: of the model.
        current: the name of a bundle that stays, however old it is.
        in_use: seconds; what was used since stays, too.
    """
    bundles = [path for path in _bundles(folder) if path.name != current]
    old = [path for path in bundles[KEPT_BUNDLES - bool(current) :] if _age(path) >= in_use]
    stale = [path for path in folder.glob(".download-*") if _age(path) > STALE_DOWNLOAD]
    for path in [*old, *stale]:
        shutil.rmtree(path, ignore_errors=True)


def prune(cache: Path) -> None:
    """Delete what a cache folder has too much of: the oldest bundles of each model, then the oldest of all models.

    What was used in the last minutes stays: another process may be reading it.
    """
    models = [path for path in cache.iterdir() if path.is_dir() and not path.is_symlink()] if cache.is_dir() else []
    for folder in models:
        prune_model(folder, in_use=IN_USE)
    kept = 0
    for path in sorted((path for folder in models for path in _bundles(folder)), key=_age):
        kept += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if kept > KEPT_BYTES and _age(path) >= IN_USE:
            shutil.rmtree(path, ignore_errors=True)


def _bundles(folder: Path) -> list[Path]:
    """The bundles in a model's folder, the one that was used last first."""
    bundles = [path for path in folder.iterdir() if BUNDLE_FOLDER.fullmatch(path.name) and path.is_dir()]
    return sorted((path for path in bundles if not path.is_symlink()), key=_age)


def _age(path: Path) -> float:
    """Seconds since it was used last; `fetch_bundle` marks each use. Another process may have deleted it."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
