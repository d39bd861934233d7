"""Which archives are old enough to be removed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from app.backup.store import Entry


def outdated(entries: Iterable[Entry], origin: str, component: str, last: int, days: int, now: datetime) -> list[Entry]:
    """The archives of this origin and component that are neither among the last ones nor young.

    Args:
        last: how many of the newest stay, whatever their age: 1 or more, so the newest always does.
        days: what is younger stays, however many there are.
    """
    own = sorted(entry for entry in entries if (entry.origin, entry.component) == (origin, component))
    return [entry for entry in own[: -max(last, 1)] if entry.made < now - timedelta(days=days)]
