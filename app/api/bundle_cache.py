"""The cache folder: the verified bundles of each model, and a note of the one that was served last.

<model>/<version>-<sum>/   a bundle, as `app.registry.bundle.fetch_bundle` puts it there
<model>/current.json       which of them is in service
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from app.registry.bundle import Bundle, read_bundle

CURRENT = "current.json"
KEPT_BUNDLES = 3  # per model
STALE_DOWNLOAD = 3600.0  # seconds; an older one is of a process that was killed
_BUNDLE_FOLDER = re.compile(r"\d+-[0-9a-f]{16}")


@dataclass(frozen=True)
class CacheNote:
    """The content of current.json. folder: the bundle's, below the model's."""

    model: str
    version: str
    run_id: str
    bundle_sha256: str
    folder: str
    incarnation: str


class BundleCache:
    """The last good version of each model, so that the API starts without MLflow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def models(self) -> Iterator[str]:
        """The names of the models that have a note."""
        for path in sorted(self.folder.glob(f"*/{CURRENT}")):
            yield path.parent.name

    def note(self, model: str) -> CacheNote:
        """Which version of the model was served last.

        Raises:
            OSError, ValueError, KeyError, TypeError: the note cannot be read.
        """
        note = json.loads((self.folder / model / CURRENT).read_text())
        fields = ("version", "run_id", "bundle_sha256", "folder", "incarnation")
        return CacheNote(model, *(str(note[field]) for field in fields))

    def read(self, note: CacheNote) -> Bundle:
        """The bundle that the note names.

        Raises:
            BundleError: it is missing or damaged.
        """
        return read_bundle(self.folder / note.model / note.folder, note.bundle_sha256)

    def remember(self, note: CacheNote) -> None:
        """Make this the version that the next start serves, and delete older bundles.

        Raises:
            OSError: the folder cannot be written.
        """
        folder = self.folder / note.model
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f".{CURRENT}.", delete=False) as draft:
            json.dump(asdict(note), draft)
        os.replace(draft.name, folder / CURRENT)
        self._prune(folder, note.folder)

    def forget(self, model: str) -> None:
        """Let the next start not serve the model. Its bundles stay, in case it comes back."""
        (self.folder / model / CURRENT).unlink(missing_ok=True)

    def _prune(self, folder: Path, current: str) -> None:
        bundles = [p for p in folder.iterdir() if p.is_dir() and _BUNDLE_FOLDER.fullmatch(p.name) and p.name != current]
        bundles.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        downloads = folder.glob(".download-*")
        stale = [path for path in downloads if time.time() - path.stat().st_mtime > STALE_DOWNLOAD]
        for path in [*bundles[KEPT_BUNDLES - 1 :], *stale]:
            shutil.rmtree(path, ignore_errors=True)
