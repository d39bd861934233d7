"""What stops a backup or a restore."""

from __future__ import annotations


class BackupError(Exception):
    """A backup or a restore cannot go on; where nothing else is said, nothing was changed.

    Args:
        what: the problem.
        cure: what to do now; "" where there is nothing to advise.
    """

    def __init__(self, what: str, cure: str = "") -> None:
        super().__init__(f"{what}; {cure}" if cure else what)
        self.what, self.cure = what, cure
