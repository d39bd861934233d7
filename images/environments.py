"""Environments of programs whose packages fit nothing else: .tools/<name>-<hash of the lock>, made once per lock."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from images.build import ROOT


def programs(lock: Path, where: Path = ROOT / ".tools") -> Path:
    """The folder of the programs (python among them) of an environment of a lock, made where it is not there.

    Args:
        where: the folder of all environments.

    Raises:
        RuntimeError: what uv says where it cannot be installed.
    """
    folder = where / f"{lock.stem}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        uv = Path(sys.executable).with_name("uv")
        _run([uv, "venv", "-q", "--clear", "--python", sys.executable, folder])
        _run([uv, "pip", "sync", "-q", "--require-hashes", "--python", folder / "bin" / "python", lock])
        (folder / "complete").touch()
    return folder / "bin"


def program(name: str) -> Path:
    """The program of that name, in an environment of requirements/<name>.txt, which is made where it is not there.

    Raises:
        RuntimeError: what uv says where it cannot be installed.
    """
    return programs(ROOT / "requirements" / f"{name}.txt") / name


def _run(command: list[str | Path]) -> None:
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if result.returncode:
        raise RuntimeError(result.stderr.strip() or f"{command[0]} ended with {result.returncode}")
