"""The form of the page Predict: one field for each feature of the model's signature."""

from __future__ import annotations

import hashlib
import math
from datetime import date, datetime
from typing import Any

import streamlit as st

from app.contract.models import FeatureInfo, ModelInfo
from app.dates import days_of, moment_of, shown
from app.registry.reference import OTHER
from app.ui.formatting import escape_label
from app.vocabulary import INTEGER, NUMERIC

MAX_WHOLE = 2**53 - 1  # what a browser's number can hold
DAY_FORMAT = "YYYY-MM-DD"
MINUTE = 1 / 1440  # of a day, the shortest time that the form knows
OLDEST, NEWEST = datetime(1000, 1, 1), datetime(9999, 12, 31)  # that it offers
MAY_BE_EMPTY = " It may be left empty."


def ask_for_row(info: ModelInfo) -> dict[str, Any] | None:
    """Show the form.

    Returns:
        the values by feature, None for an empty field, once the visitor has sent the form; None until then.
    """
    # another signature is another form; the same one keeps what was typed when a new version comes in
    signature = hashlib.sha256(repr([(f.name, f.dtype) for f in info.features]).encode()).hexdigest()[:8]
    prefix = f"{info.name} {signature}"
    with st.form(f"form {prefix}", border=True):
        row: dict[str, Any] = {}
        for i, feature in enumerate(info.features):
            if i % 2 == 0:  # a row at a time, so that the tab key follows the signature
                columns = st.columns(2)
            with columns[i % 2]:
                row[feature.name] = _field(feature, f"{prefix} {feature.name}")
        submitted = st.form_submit_button("Predict", type="primary", width="stretch")
    return row if submitted else None


def warn_of_unseen(feature: FeatureInfo, value: Any) -> str:
    """A warning about a value that was not in the training data; "" for one that may have been."""
    if value is None:
        return "" if feature.missing else f"{feature.name} is empty, which it never was in the training data"
    if feature.dtype == "datetime" and feature.min is not None and feature.max is not None:
        days = days_of(value)
        if feature.min - MINUTE <= days <= feature.max + MINUTE:
            return ""
        low, high = shown(feature.min), shown(feature.max)
        return f"{feature.name} is {shown(days)}, but ranged from {low} to {high} in training"
    if feature.min is not None and feature.max is not None and not isinstance(value, str):
        # the field shows the range rounded, so what it shows must count as inside
        slack = 0.0 if feature.dtype in INTEGER else 0.5 * 10.0 ** -decimals(feature.min, feature.max)
        if feature.min - slack <= value <= feature.max + slack:
            return ""
        return f"{feature.name} is {value:.6g}, but ranged from {feature.min:.6g} to {feature.max:.6g} in training"
    categories = feature.categories
    # the last share is that of all rarer categories: where it is not 0, an unlisted value may have been among them
    if categories and str(value) not in categories and not (feature.shares and feature.shares[-1] > 0):
        return f"{feature.name} is {value!r}, which was not in the training data"
    return ""


def decimals(low: float | None, high: float | None) -> int:
    """How many decimals show a value of this range to about three digits."""
    width = (high or 0.0) - (low or 0.0)
    if not math.isfinite(width) or width <= 0:
        return 2
    return max(1, min(10, 2 - math.floor(math.log10(width))))


def _field(feature: FeatureInfo, key: str) -> Any:
    if feature.dtype == "boolean":
        commonest = (feature.categories or ["False"])[0]
        label = escape_label(feature.name)
        return st.checkbox(label, value=commonest == "True", key=key, help="True or false")
    if feature.dtype == "datetime":
        return _date_field(feature, key)
    return _number_field(feature, key) if feature.dtype in NUMERIC else _text_field(feature, key)


def _text_field(feature: FeatureInfo, key: str) -> str | None:
    label = escape_label(feature.name)
    categories = [name for name in feature.categories or [] if name != OTHER]
    if not categories:
        return st.text_input(label, key=key, help="Text") or (None if feature.missing is not None else "")
    about = "Text. These were in the training data, the commonest first; others may be typed."
    if feature.only:
        categories = [*(name for name in categories if name in feature.only), *sorted({*feature.only} - {*categories})]
        about = "One of these; the model takes no others."
    others = not feature.only
    if feature.missing is not None:
        about += MAY_BE_EMPTY
        return st.selectbox(
            label, categories, index=None, placeholder="missing", key=key, help=about, accept_new_options=others
        )
    return st.selectbox(label, categories, key=key, help=about, accept_new_options=others)


def _date_field(feature: FeatureInfo, key: str) -> str | None:
    """A day, or a day and a time where the training data begins or ends within a day, as ISO 8601 text in UTC."""
    low, high = feature.min or 0.0, feature.max or 0.0
    median = moment_of(feature.median or 0.0).replace(second=0, microsecond=0)
    label = f"{escape_label(feature.name)} ({shown(low, 'days')} to {shown(high, 'days')})"
    about = f"Training data: {shown(low)} to {shown(high)}, median {shown(feature.median or 0.0)} (UTC)"
    value: datetime | None = min(max(median, OLDEST), NEWEST)
    if feature.missing is not None:
        value, about = None, f"{about}.{MAY_BE_EMPTY}"
    picked: date | None
    if low.is_integer() and high.is_integer():  # edges are between values
        day, first, last = value.date() if value else None, OLDEST.date(), NEWEST.date()
        picked = st.date_input(label, day, first, last, key=key, help=about, format=DAY_FORMAT)
    else:
        picked = st.datetime_input(label, value, OLDEST, NEWEST, key=key, help=about, format=DAY_FORMAT)
    return picked.isoformat() if picked else None


def _number_field(feature: FeatureInfo, key: str) -> float | None:
    label, about = escape_label(feature.name), f"A number ({feature.dtype})"
    low, high = feature.min, feature.max
    start = feature.median if feature.median is not None else 0.0
    whole = feature.dtype in INTEGER
    places = 0 if whole else decimals(low, high)
    if low is not None and high is not None:
        label += f" ({low:,.{places}f} to {high:,.{places}f})"
        about = f"Training data: {low:.6g} to {high:.6g}, median {start:.6g} ({feature.dtype})"
    if whole:
        value = max(-MAX_WHOLE, min(MAX_WHOLE, round(start)))
        return st.number_input(label, value=value, step=1, key=key, help=about)
    step, form = 10.0 ** (1 - places), f"%.{places}f"
    if feature.missing is not None:  # it starts empty, as a field that starts with a value cannot be emptied
        about += f".{MAY_BE_EMPTY}"
        return st.number_input(label, value=None, step=step, format=form, key=key, help=about, placeholder="missing")
    return st.number_input(label, value=round(start, places), step=step, format=form, key=key, help=about)
