"""Clients of the model API with keys, as tests make and send them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.runtime.api_keys import Client, Scope, key_digest, new_key


def add_client(folder: Path, name: str, *scopes: Scope, **limits: Any) -> str:
    """Write a client's file, replacing one of this name; returns its key. limits: as in `Client`."""
    key = new_key()
    folder.mkdir(exist_ok=True)
    draft = folder / f"..{name}"
    draft.write_text(Client(scopes=list(scopes), sha256=[key_digest(key)], **limits).text())
    draft.replace(folder / name)
    return key


def bearer(key: str) -> dict[str, str]:
    """The header that a key is sent in."""
    return {"Authorization": f"Bearer {key}"}
