"""What locks have in common, for the image layers that images share: `make lock` writes these files from the others."""

from __future__ import annotations

import re
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements"
# The file, and the locks that it is the intersection of.
SHARED = {"common": ("mlflow", "flows", "ui"), "tracking": ("mlflow", "flows")}
PACKAGE = re.compile(r"^(\S.*?) \\\n((?:    --hash=\S+(?: \\)?\n)+)", re.MULTILINE)


def packages(lock: str) -> dict[str, str]:
    """Of a lock's text: package with version and marker -> its hashes, as they are written."""
    return dict(PACKAGE.findall(lock))


def shared(locks: list[str]) -> str:
    """The lock of the packages that all these locks have, in this version and with these hashes."""
    first, *others = map(packages, locks)
    common = [name for name, hashes in first.items() if all(other.get(name) == hashes for other in others)]
    return "".join(f"{name} \\\n{first[name]}" for name in common)


def expected(name: str) -> str:
    """What requirements/<name>.txt should be."""
    return shared([(REQUIREMENTS / f"{other}.txt").read_text() for other in SHARED[name]])


if __name__ == "__main__":
    for name in SHARED:
        (REQUIREMENTS / f"{name}.txt").write_text(expected(name))
