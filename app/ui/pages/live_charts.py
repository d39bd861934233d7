"""The charts of the page Live."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from app.ui.elements import BLUE, GRAY, GREEN, ORANGE, PALE, RED
from app.ui.live.data import RequestWindow
from app.ui.live.drift import MODERATE, STRONG, Drift, Verdict

Points = list[tuple[float, RequestWindow]]  # of app.ui.live.data.Traffic

HEIGHT = 150  # pixels of a chart over time
REFERENCE, LIVE = "training data", "live"
VERDICTS: dict[Verdict, tuple[str, str]] = {  # text and colour
    "stable": ("stable", GREEN),
    "moderate": ("moderate drift", ORANGE),
    "strong": ("strong drift", RED),
    "too few": ("too few rows", PALE),
    "unknown": ("unknown", PALE),
}


def rate_chart(title: str, points: Points) -> None:
    """Draw the requests per minute over time, by status."""
    st.subheader(title, anchor=False)
    seen = sorted({status for _, requests in points for status, count in requests.statuses.items() if count > 0})
    rows = [
        (_milliseconds(at), status, requests.per_minute(requests.statuses.get(status, 0.0)))
        for at, requests in points
        for status in seen or ["200"]
    ]
    frame = pd.DataFrame(rows, columns=["time", "status", "per minute"])
    statuses = list(frame["status"].unique())
    colours = alt.Scale(domain=statuses, range=[_status_colour(status) for status in statuses])
    top = max(1.0, float(frame.groupby("time")["per minute"].sum().max()) * 1.1)
    chart = (
        alt.Chart(frame)
        .mark_area(opacity=0.6, interpolate="monotone")
        .encode(
            x=_time_axis(),
            y=alt.Y("per minute:Q", title=None, scale=alt.Scale(domain=[0, top]), axis=alt.Axis(tickCount=4)),
            color=alt.Color(
                "status:N", scale=colours, legend=alt.Legend(orient="right", title=None, offset=8, padding=0)
            ),
            tooltip=["status", alt.Tooltip("per minute:Q", format=",.3~r")],
        )
    )
    st.altair_chart(chart.properties(height=HEIGHT), alt=f"{title} by status, over time")


def latency_chart(title: str, points: Points, q: float) -> None:
    """Draw a quantile (0 to 1) of the durations over time."""
    latencies = [(at, requests.latency(q)) for at, requests in points]
    values = [(at, None if seconds is None else seconds * 1000) for at, seconds in latencies]
    _line_chart(
        title,
        values,
        alt.Y("value:Q", title="ms", scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=4)),
        alt.Tooltip("value:Q", title="ms", format=".3~r"),
    )


def speed_chart(title: str, points: Points) -> None:
    """Draw the share of fast requests over time."""
    axis = alt.Axis(tickCount=4, format=".0%")
    _line_chart(
        title,
        [(at, requests.fast_share) for at, requests in points],
        alt.Y("value:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=axis),
        alt.Tooltip("value:Q", title="%", format=".1%"),
    )


def share_chart(labels: list[str], reference: list[float], rows: list[float], description: str) -> None:
    """Draw live shares beside those of the training data.

    Args:
        labels: of the bars, in order.
        reference: shares of the training rows, same length.
        rows: live rows, same length.
        description: for screen readers.
    """
    total = sum(rows)
    live = [count / total if total else 0.0 for count in rows]
    frame = pd.DataFrame({"bucket": labels, REFERENCE: reference, LIVE: live})
    colours = alt.Scale(domain=[REFERENCE, LIVE], range=[PALE, BLUE])
    chart = (
        alt.Chart(frame.melt("bucket", var_name="of", value_name="share"))
        .mark_bar(cornerRadiusTopLeft=2, cornerRadiusTopRight=2)
        .encode(
            x=alt.X("bucket:N", sort=labels, title=None, axis=alt.Axis(labelAngle=0 if len(labels) < 6 else -40)),
            xOffset=alt.XOffset("of:N", sort=[REFERENCE, LIVE]),
            y=alt.Y("share:Q", title=None, axis=alt.Axis(format="%", tickCount=4)),
            color=alt.Color("of:N", scale=colours, legend=alt.Legend(orient="top", title=None, offset=8, padding=0)),
            tooltip=["bucket", "of", alt.Tooltip("share:Q", format=".1%")],
        )
    )
    st.altair_chart(chart.properties(height=200), alt=description)


def drift_chart(drifts: list[Drift]) -> None:
    """Draw the population stability index of each feature, in the order given; features without one are left out."""
    rows = [(drift.feature, drift.psi, *VERDICTS[drift.verdict]) for drift in drifts if drift.psi is not None]
    frame = pd.DataFrame(rows, columns=["feature", "psi", "verdict", "colour"])
    top = max(0.3, float(frame["psi"].max()) * 1.15)
    base = alt.Chart(frame).encode(
        y=alt.Y(
            "feature:N",
            sort=list(frame["feature"]),
            title=None,
            axis=alt.Axis(ticks=False, domain=False, labelPadding=8),
        ),
        x=alt.X("psi:Q", title="PSI", scale=alt.Scale(domain=[0, top]), axis=alt.Axis(grid=False, tickCount=5)),
    )
    bars = base.mark_bar(cornerRadius=3, height=14).encode(
        color=alt.Color("colour:N", scale=None), tooltip=["feature", alt.Tooltip("psi:Q", format=".3f"), "verdict"]
    )
    values = base.mark_text(align="left", dx=5, color=GRAY).encode(text=alt.Text("psi:Q", format=".2f"))
    limits = alt.Chart(pd.DataFrame({"at": [MODERATE, STRONG]})).mark_rule(strokeDash=[4, 4], color=GRAY)
    chart = bars + values + limits.encode(x="at:Q")
    st.altair_chart(chart.properties(height=28 * len(frame) + 50), alt="Population stability index of each feature")


def _line_chart(title: str, values: list[tuple[float, float | None]], y: alt.Y, tooltip: alt.Tooltip) -> None:
    """A chart of one figure over time; where there were no requests, it has a gap."""
    st.subheader(title, anchor=False)
    frame = pd.DataFrame([(_milliseconds(at), value) for at, value in values], columns=["time", "value"]).astype(float)
    if frame["value"].count() < 2:
        st.caption("No requests in this time.")
        return
    line = (
        alt.Chart(frame)
        .mark_line(point={"size": 12, "color": BLUE}, color=BLUE)
        .encode(x=_time_axis(), y=y, tooltip=[tooltip])
    )
    st.altair_chart(line.properties(height=HEIGHT), alt=f"{title} over time")


def _status_colour(status: str) -> str:
    return BLUE if status < "400" else ORANGE if status < "500" else RED


def _milliseconds(seconds: float) -> float:
    """A time as Vega takes it: in milliseconds since 1970, shown in the browser's time zone."""
    return seconds * 1000


def _time_axis() -> alt.X:
    return alt.X("time:T", title=None, axis=alt.Axis(format="%H:%M:%S", tickCount=5, grid=False, labelOverlap=True))
