"""`mlops backup` and `mlops restore`, as people run them."""

from __future__ import annotations

import re
import sys

from release import CONTEXT, Platform, run


def mlops(platform: Platform, command: str, *arguments: str) -> str:
    """What the command prints on this machine, as people run it."""
    where = ["--context", CONTEXT, "--namespace", platform.name, "--release", platform.release]
    return run([sys.executable, "-m", "app.cli", command, *arguments, *where])


def name_of(printed: str) -> str:
    """The name of the backup that was made."""
    found = re.search(r"`mlops restore (\S+)`", printed)
    assert found, printed
    return found[1]
