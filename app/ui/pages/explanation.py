"""On the page Predict: what each feature contributed to the answer, as bars."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from app.contract.explanation import Contribution, Explained
from app.contract.models import ModelInfo
from app.ui.elements import BLUE, GRAY, RED
from app.ui.formatting import format_number

SHOWN = 10  # features; the others are one bar


def show_explanation(explained: Explained, info: ModelInfo) -> None:
    """Draw the features that moved the prediction most, and say what they moved it from and to."""
    frame = bars(explained)
    limit = max(frame["contribution"].abs().max(), 1e-12) * 1.25
    base = alt.Chart(frame).encode(
        y=alt.Y(
            "feature:N",
            sort=list(frame["feature"]),
            title=None,
            axis=alt.Axis(ticks=False, domain=False, labelLimit=200),
        ),
        x=alt.X("contribution:Q", scale=alt.Scale(domain=[-limit, limit]), title=None, axis=None),
        tooltip=["feature", alt.Tooltip("contribution:Q", format="+.4f")],
    )
    colour = alt.condition("datum.contribution < 0", alt.value(RED), alt.value(BLUE))
    drawn = base.mark_bar(cornerRadius=3, height=14).encode(color=colour)
    right = base.mark_text(align="left", dx=5, color=GRAY).encode(text=alt.Text("contribution:Q", format="+.3g"))
    left = base.mark_text(align="right", dx=-5, color=GRAY).encode(text=alt.Text("contribution:Q", format="+.3g"))
    chart = drawn + right.transform_filter("datum.contribution >= 0") + left.transform_filter("datum.contribution < 0")
    st.markdown("**Why**")
    st.altair_chart(chart.properties(height=24 * len(frame) + 10), alt="What each feature contributed")
    st.caption(sentence(explained, info))


def bars(explained: Explained) -> pd.DataFrame:
    """The columns feature (with its value) and contribution, the largest first; what is left over is one row."""
    ranked = sorted(explained.contributions, key=lambda one: -abs(one.contribution))
    shown = [(_label(one), one.contribution) for one in ranked[:SHOWN]]
    if len(ranked) > SHOWN:
        rest = ranked[SHOWN:]
        shown.append((f"{len(rest)} others", sum(one.contribution for one in rest)))
    return pd.DataFrame(shown, columns=["feature", "contribution"])


def sentence(explained: Explained, info: ModelInfo) -> str:
    """What the contributions add up to."""
    start, end = format_number(explained.base), format_number(explained.value)
    if info.task == "regression":
        return f"From {start}, the mean for rows of the training data, to {end}."
    return f"Of its probability: from {start}, the mean for rows of the training data, to {end}."


def _label(one: Contribution) -> str:
    value = "missing" if one.value is None else format_number(one.value) if isinstance(one.value, float) else one.value
    return f"{one.feature} = {value}"[:60]
