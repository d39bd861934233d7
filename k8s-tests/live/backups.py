"""`mlops backup` and `mlops restore`, as docs/operations.md has them."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

from release import CONTEXT, ROOT, Platform, run

from app.testing.docs import shell_commands

PAGE = ROOT / "docs" / "operations.md"
# What stands in the docs for a backup's name, a key's file, and its public half.
NAME, KEY, RECIPIENT = "mlops.mlops-20261127T021700Z", "~/mlops-key.txt", "age1..."


def documented(line: str, name: str = NAME, key: Path | str = KEY, recipient: str = RECIPIENT) -> list[str]:
    """The words of a command that is in the docs, with others in place of what stands there for them."""
    assert line in shell_commands(PAGE, "bash"), f"{PAGE.name} does not have the command {line}"
    for there, given in ((NAME, name), (KEY, str(key)), (RECIPIENT, recipient)):
        line = line.replace(there, given)
    return shlex.split(line)


def backup(platform: Platform) -> str:
    """Make a backup; its name."""
    printed = mlops(platform, "mlops backup")
    found = re.search(r"`mlops restore (\S+)`", printed)
    assert found, printed
    return found[1]


def restore(platform: Platform, name: str, identity: Path | None = None) -> str:
    """Restore a backup, with the passwords where there is a key; what is printed."""
    line = f"mlops restore {NAME} --identity {KEY}" if identity else f"mlops restore {NAME}"
    return mlops(platform, line, "--yes", name=name, key=identity or "")


def mlops(platform: Platform, line: str, *options: str, **given: Any) -> str:
    """What a command of the docs prints on this machine, about this platform."""
    where = ["--context", CONTEXT, "--namespace", platform.name, "--release", platform.release]
    return run([sys.executable, "-m", "app.cli", *documented(line, **given)[1:], *options, *where])
