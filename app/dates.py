"""Dates as features: people send ISO 8601 text, and a model gets a number, days since 1970-01-01 UTC.

Text becomes days where a request or a data source is read, and days become text where people read them; all between
knows numbers only.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

EXPECTED = "a date or time such as 2026-03-01 or 2026-03-01T10:00:00Z"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY, MICROSECOND = timedelta(days=1), timedelta(microseconds=1)
# What is taken, as far as datetime goes: the years 1 to 9999. As a float, the last microsecond is the end of the day.
_FIRST, _LAST = (moment.replace(tzinfo=UTC) - EPOCH for moment in (datetime.min, datetime.max))
FIRST, LAST = _FIRST / DAY, _LAST / DAY
EXACT = 2.0**15  # days, from 1880 to 2059, of which a float holds each microsecond; beyond, each millisecond
# Of all that ISO 8601 has, what databases, pandas and programs write; a space is theirs, too, and RFC 3339 has it.
_ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}(?::?\d{2})?)?)?", re.ASCII
)
Precision = Literal["days", "minutes", "seconds", "microseconds"]


def days_of(value: Any) -> float:
    """Days since 1970-01-01 UTC, with the time as a fraction.

    Args:
        value: ISO 8601 text, or a date or datetime; without an offset it is UTC.

    Raises:
        ValueError: it is none of these, there is no such day or time, or it is not within the years 1 to 9999.
    """
    if isinstance(value, str):
        if not _ISO.fullmatch(value):
            raise ValueError(f"this is not {EXPECTED}")
        value = datetime.fromisoformat(value)
    elif not isinstance(value, date):
        raise ValueError(f"a {type(value).__name__} is not {EXPECTED}")
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    since = value.replace(tzinfo=value.tzinfo or UTC) - EPOCH
    if not _FIRST <= since <= _LAST:
        raise ValueError("in UTC it is not within the years 1 to 9999")
    days: float = since / DAY
    return days


def is_date(value: Any) -> bool:
    """Whether `days_of` takes a value."""
    try:
        days_of(value)
    except ValueError:
        return False
    return True


def text_of(days: float) -> str:
    """The moment as ISO 8601 text in UTC, such as 2026-03-01T10:00:00Z, which `days_of` reads.

    Args:
        days: since 1970-01-01 UTC; the nearest moment of the years 1 to 9999 is taken for others.
    """
    return f"{moment_of(days).isoformat()}Z"


def shown(days: float, precision: Precision = "seconds") -> str:
    """The moment as people read it: 2026-03-01 10:00:00, or 2026-03-01 for the begin of a day.

    Args:
        days: as for `text_of`.
        precision: what is shown at most.
    """
    moment = moment_of(days)
    if precision == "days" or moment == datetime(moment.year, moment.month, moment.day):
        return moment.date().isoformat()
    return moment.isoformat(" ", precision)


def moment_of(days: float) -> datetime:
    """The moment in UTC, as a datetime without an offset. days: as for `text_of`."""
    if days < FIRST:
        return datetime.min
    if days >= LAST:
        return datetime.max
    unit = MICROSECOND if abs(days) < EXACT else 1000 * MICROSECOND
    return (EPOCH + min(round(days * (DAY / unit)) * unit, _LAST)).replace(tzinfo=None)
