"""What stops a command."""

from __future__ import annotations

import click


class CommandError(click.ClickException):
    """A command cannot go on. Click prints it as one line on standard error, and ends with exit code 1.

    Args:
        what: the problem.
        cure: what to do now; "" where there is nothing to advise.
    """

    def __init__(self, what: str, cure: str = "") -> None:
        super().__init__(f"{what}; {cure}" if cure else what)
        self.what, self.cure = what, cure
