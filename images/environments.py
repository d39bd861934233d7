"""Environments of programs whose packages fit nothing else: .tools/<name>-<hash of the lock>, made once per lock."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from images.build import ROOT


def program(name: str) -> Path:
    """The program of that name, in an environment of requirements/<name>.txt, which is made where it is not there."""
    lock = ROOT / "requirements" / f"{name}.txt"
    folder = ROOT / ".tools" / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
        install = ["pip", "sync", "-q", "--require-hashes", "--python"]
        subprocess.run([uv, *install, folder / "bin" / "python", lock], check=True)
        (folder / "complete").touch()
    return folder / "bin" / name
