"""The cache folder: the verified bundles of each model, and a note of the one that was served last.

<model>/<version>-<sum>/   a bundle, as `app.registry.bundle.fetch_bundle` puts it there
<model>/current.json       which of them is in service
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from app.registry.bundle import Bundle, read_bundle
from app.registry.cache import prune_model
from app.runtime.paths import UnsafePath, inside, is_sha256

CURRENT = "current.json"


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
        raw = json.loads((self._of(model) / CURRENT).read_text())
        fields = ("version", "run_id", "bundle_sha256", "folder", "incarnation")
        note = CacheNote(model, *(str(raw[field]) for field in fields))
        if not is_sha256(note.bundle_sha256):
            raise ValueError(f"{CURRENT} names no sum of a bundle")
        return note

    def read(self, note: CacheNote) -> Bundle:
        """The bundle that the note names.

        Raises:
            BundleError: it is missing or damaged.
            UnsafePath: the note names no folder of the cache.
        """
        return read_bundle(inside(self.folder, note.model, note.folder), note.bundle_sha256)

    def remember(self, note: CacheNote) -> None:
        """Make this the version that the next start serves, and delete older bundles.

        Raises:
            OSError: the folder cannot be written.
            UnsafePath: the model's name is no name of a folder.
        """
        folder = self._of(note.model)
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f".{CURRENT}.", delete=False) as draft:
            json.dump(asdict(note), draft)
        os.replace(draft.name, folder / CURRENT)
        prune_model(folder, note.folder)

    def forget(self, model: str) -> None:
        """Let the next start not serve the model. Its bundles stay, in case it comes back."""
        with contextlib.suppress(UnsafePath):  # then it was never remembered
            (self._of(model) / CURRENT).unlink(missing_ok=True)

    def _of(self, model: str) -> Path:
        """The model's folder."""
        return inside(self.folder, model)
