"""How texts, numbers and times are written on the pages."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st


def escape_markdown(text: object) -> str:
    """The text, on one line, for a place that reads Markdown: every character stands for itself."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:@&^=])", r"\\\1", re.sub(r"\s+", " ", str(text)))


def escape_label(text: object) -> str:
    """The text for the label of an input: only what Markdown would take is escaped, as screen readers get it raw."""
    return re.sub(r"([\\`*\[\]<>$~]|(?<!\w)_|_(?!\w)|:(?=\w))", r"\\\1", re.sub(r"\s+", " ", str(text)))


def format_number(value: float) -> str:
    """A number with about four digits: 0.9211, 53.55, 12,345."""
    if value and abs(value) < 1e-4:
        return f"{value:.3g}"
    if abs(value) < 10:
        return f"{value:.4f}".rstrip("0").rstrip(".")
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) < 1e4 else f"{value:,.0f}"


def format_share(value: float | None) -> str:
    """0.973 as 97.3%, None as a dash."""
    return "–" if value is None else f"{value:.1%}"


def format_duration(seconds: float | None) -> str:
    """0.00042 as 0.42 ms, None as a dash."""
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def format_window(window: str) -> str:
    """A period in Prometheus' notation in words: 1h as the last hour, 30m as the last 30 minutes."""
    number, unit = window[:-1], window[-1]
    units = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "y": "year"}
    if not number.isdigit():
        return f"the last {window}"
    return f"the last {units[unit]}" if int(number) == 1 else f"the last {number} {units[unit]}s"


def format_date(seconds: float) -> str:
    """Seconds since 1970 as 23 Nov 2026, in the visitor's time zone."""
    return _local(seconds).strftime("%d %b %Y")


def format_time(seconds: float) -> str:
    """Seconds since 1970 as 14:05:30, in the visitor's time zone."""
    return _local(seconds).strftime("%H:%M:%S")


def format_moment(seconds: float) -> str:
    """Seconds since 1970 as 23 Nov 2026, 14:05, in the visitor's time zone; 0 is unknown."""
    return _local(seconds).strftime("%d %b %Y, %H:%M") if seconds else "unknown"


def _local(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone(_time_zone())


def _time_zone() -> tzinfo | None:
    """The visitor's time zone, as the browser says; None, the server's, where it does not."""
    try:
        return ZoneInfo(st.context.timezone) if st.context.timezone else None
    except (ZoneInfoNotFoundError, ValueError):
        return None
