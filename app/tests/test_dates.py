"""Dates as text and as days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dates import days_of, moment_of, shown, text_of

MARCH = 20513.0  # 2026-03-01


@pytest.mark.parametrize(
    ("value", "days"),
    [
        ("1970-01-01", 0.0),
        ("2026-03-01", MARCH),
        ("2026-03-01T00:00", MARCH),
        ("2026-03-01T12:00:00Z", MARCH + 0.5),
        ("2026-03-01 12:00:00", MARCH + 0.5),  # as pandas and databases write it
        ("2026-03-01T12:00:00.000000000+00", MARCH + 0.5),
        ("2026-03-01T14:00:00+02:00", MARCH + 0.5),
        ("2026-03-01T08:30-0330", MARCH + 0.5),
        ("2026-03-01T06:00:00.250Z", MARCH + 0.25 + 0.25 / 86_400),
        ("1969-12-31T12:00Z", -0.5),
        ("0001-01-01", -719_162.0),
        ("9999-12-31T23:59:59Z", 2_932_897 - 1 / 86_400),
        ("9999-12-31 23:59:59.9999999", 2_932_897.0),  # which some databases have for never
        ("1600-02-29", -135_081.0),  # before the nanoseconds of pandas begin
        (date(2026, 3, 1), MARCH),
        (datetime(2026, 3, 1, 12), MARCH + 0.5),
        (datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=-12))), MARCH + 1),
    ],
)
def test_dates_are_days(value: Any, days: float) -> None:
    assert days_of(value) == pytest.approx(days, abs=1e-9)


@pytest.mark.parametrize(
    "value",
    [
        "", "yesterday", "2026", "2026-03", "20260301", "2026-W09-7", "2026-02-30", "2026-13-01", "2026-03-01T",
        "2026-03-01T25:00", "2026-03-01T10:00:60Z", "2026-03-01T10:00:00+25:00", "2026-03-01T10:00Z ", " 2026-03-01",
        "01.03.2026", "3/1/2026", "0000-01-01", "10000-01-01", "2026-03-01\n", "٢٠٢٦-٠٣-٠١",
        "2026-03-01T10:00:00 02:00", "0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00",
        None, 5, 5.5, float("nan"), True, [], b"2026-03-01",
    ],
)  # fmt: skip
def test_all_else_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"is not a date or time such as 2026-03-01|out of range|must be|UTC|offset"):
        days_of(value)


@given(st.datetimes(datetime(1881, 1, 1), datetime(2059, 1, 1)))
def test_days_become_the_same_text_again(moment: datetime) -> None:
    days = days_of(moment)
    assert text_of(days) == f"{moment.isoformat()}Z"
    assert days_of(text_of(days)) == days


@given(st.datetimes())
def test_in_all_years_to_the_millisecond(moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert text_of(days_of(moment)) == f"{moment.isoformat()}Z"


@given(st.floats(allow_nan=False))
def test_any_number_can_be_shown(days: float) -> None:
    assert days_of(text_of(days)) <= days_of(datetime.max)
    assert moment_of(days).replace(tzinfo=UTC).isoformat()[:10] == shown(days, "days")


def test_people_see_the_day_or_the_time_too() -> None:
    assert (shown(MARCH), shown(MARCH + 0.5)) == ("2026-03-01", "2026-03-01 12:00:00")
    assert (shown(MARCH + 0.5, "days"), shown(MARCH + 0.5, "minutes")) == ("2026-03-01", "2026-03-01 12:00")
