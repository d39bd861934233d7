"""Passwords and keys in a backup: encrypted by age for a key of the user's, which is nowhere in the cluster."""

from __future__ import annotations

import os
from pathlib import Path

import pyrage

from app.backup.errors import BackupError


def encrypted(content: bytes, recipient: str) -> bytes:
    """Encrypt for an age public key, as text.

    Raises:
        BackupError: it is no such key.
    """
    try:
        key = pyrage.x25519.Recipient.from_str(recipient.strip())
    except pyrage.RecipientError as error:
        raise BackupError(
            f"{recipient[:100]!r} is not a public key of age ({error})",
            "give one that begins with age1; `mlops backup --new-identity FILE` makes one",
        ) from error
    return bytes(pyrage.encrypt(content, [key], armored=True))


def decrypted(content: bytes, identity: Path) -> bytes:
    """Decrypt by the private key in a file, as `age-keygen` writes it.

    Raises:
        BackupError: the file has no key, or not the one that this was encrypted for.
    """
    try:
        lines = [line.strip() for line in identity.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise BackupError(f"{identity} cannot be read ({error})", "name the file that has the private key") from error
    try:
        keys = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
        if not keys:
            raise BackupError(f"{identity} has no private key in it", "name the file that has AGE-SECRET-KEY-1...")
        return bytes(pyrage.decrypt(content, keys))
    except pyrage.IdentityError as error:
        raise BackupError(f"{identity} is not a private key of age", "it begins with AGE-SECRET-KEY-1") from error
    except pyrage.DecryptError as error:
        raise BackupError(
            f"the key in {identity} does not open the secrets of this backup ({error})",
            "name the file of the key that was backup.recipient when it was made",
        ) from error


def new_identity(path: Path) -> str:
    """Make a key: the private half in a new file that only its owner reads. Returns the public half.

    Raises:
        BackupError: the file exists, or cannot be written.
    """
    identity = pyrage.x25519.Identity.generate()
    public = str(identity.to_public())
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise BackupError(f"{path} cannot be made ({error.strerror})", "name a file that is not there yet") from error
    with os.fdopen(number, "w") as file:
        file.write(f"# public key: {public}\n{identity}\n")
    return public
