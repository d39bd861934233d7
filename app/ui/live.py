"""Live: what is asked of the model now, how fast it answers, and whether that still looks like its training data."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.registry.reference import bucket_labels
from app.ui import drift, show
from app.ui.api_client import ModelApi
from app.ui.figures import ApiSource, Buckets, Feedback, Mix, Source, Traffic
from app.ui.problems import Problem

EVERY = 2  # seconds
REFERENCE, LIVE = "training data", "live"
COLOURS = alt.Scale(domain=[REFERENCE, LIVE], range=[show.PALE, show.BLUE])
VERDICTS = {
    "stable": ("green", "stable", show.GREEN),
    "moderate": ("orange", "moderate drift", show.ORANGE),
    "strong": ("red", "strong drift", show.RED),
    "too few": ("gray", "too few rows", show.PALE),
    "unknown": ("gray", "unknown", show.PALE),
}


def page() -> None:
    """The page."""
    st.fragment(run_every=EVERY)(_figures)(_source())


def _source() -> Source:
    """The source of this visitor's figures; it holds their history."""
    api = show.model_api()
    found: ApiSource | None = st.session_state.get("figures")
    if found is None or found.api is not api:
        found = st.session_state["figures"] = ApiSource(api)
    return found


def _figures(source: Source) -> None:
    about = f"What the model API sees, read every {EVERY} seconds while this page is open."
    places = show.heading("Live", about, choices=2)
    try:
        source.refresh()
    except Problem as problem:
        show.problem(problem)
        if source.read_at:
            st.caption(f"The figures below were read at {show.clock(source.read_at)}.")
    if source.read_at is None:
        return
    models = source.models()
    if not models:
        st.info(
            "The API serves no model yet. Train one with `mlops train MODEL`; it is promoted if it is good enough.",
            icon=":material/info:",
        )
        return
    name, version = _choice(source, models, places)
    traffic = source.traffic(name)
    feedback = source.feedback(name, version)
    _headline(traffic, feedback)
    _charts(traffic)
    buckets = source.buckets(name, version)
    left, right = st.columns(2, gap="medium")
    with left:
        _mix(source.mix(name, version), feedback)
    with right:
        _drift(buckets, name, version)
    if source.since:
        st.caption(
            f"Counted since {show.clock(source.since)} on {show.moment(source.since).split(',')[0]}, "
            "when the API was started; a restart begins anew."
        )


def _choice(source: Source, models: dict[str, str], places: list[DeltaGenerator]) -> tuple[str, str]:
    left, right = places
    with left:
        name = show.choose_model(sorted(models))
    versions = source.versions(name) or [models[name]]
    serving = models[name]
    with right:
        version = st.selectbox(
            "Version",
            versions,
            index=versions.index(serving) if serving in versions else 0,
            format_func=lambda v: f"version {v}{', production' if v == serving else ''}",
            key=f"version {name} {serving} {versions}",
        )
    return name, version


def _headline(traffic: Traffic, feedback: Feedback | None) -> None:
    rate, p50, p99, failed, live = st.columns(5)
    when = "of the last minute" if traffic.recent else "since the API was started"
    rate.metric(
        "Requests per second",
        "…" if traffic.rate is None else f"{traffic.rate:.3g}",
        help=f"Prediction requests of the last minute; {traffic.requests:,} since the API was started.",
        border=True,
    )
    p50.metric("Latency p50", duration(traffic.p50), help=f"Half of the requests {when} were faster.", border=True)
    p99.metric("Latency p99", duration(traffic.p99), help=f"99 of 100 requests {when} were faster.", border=True)
    failed.metric(
        "Failed",
        "–" if traffic.failed is None else f"{traffic.failed:.1%}",
        help="Requests of the last minute that were answered with a status of 400 or above.",
        border=True,
    )
    if feedback and feedback.error is not None:
        live.metric("Live mean error", show.number(feedback.error), help=_feedback(feedback), border=True)
    else:
        accuracy = feedback.accuracy if feedback else None
        shown = "–" if accuracy is None else f"{accuracy:.1%}"
        live.metric("Live accuracy", shown, help=_feedback(feedback), border=True)


def duration(seconds: float | None) -> str:
    """0.00042 as 0.42 ms."""
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _charts(traffic: Traffic) -> None:
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("Requests per second", anchor=False)
        if len(traffic.points) < 2:
            st.caption("Collecting: the chart begins with the next readings.")
        else:
            frame = pd.DataFrame([(_when(p.time), p.rate) for p in traffic.points], columns=["time", "rate"])
            area = alt.Chart(frame).mark_area(
                line={"color": show.BLUE}, color=show.BLUE, opacity=0.15, interpolate="monotone"
            )
            top = max(1.0, float(frame["rate"].max()) * 1.1)
            height = alt.Y("rate:Q", title=None, scale=alt.Scale(domain=[0, top]), axis=alt.Axis(tickCount=4))
            st.altair_chart(
                area.encode(x=_time_axis(), y=height).properties(height=170),
                alt="Requests per second over time",
            )
    with right:
        st.subheader("Latency", anchor=False)
        rows = [
            (_when(point.time), name, value * 1000)
            for point in traffic.points
            for name, value in (("p50", point.p50), ("p99", point.p99))
            if value is not None
        ]
        if len(rows) < 4:
            st.caption("No requests while this page was open.")
        else:
            frame = pd.DataFrame(rows, columns=["time", "quantile", "ms"])
            colour = alt.Color(
                "quantile:N",
                scale=alt.Scale(domain=["p50", "p99"], range=[show.BLUE, show.ORANGE]),
                legend=alt.Legend(orient="top", title=None, offset=8, padding=0),
            )
            line = (
                alt.Chart(frame)
                .mark_line(point={"size": 12})
                .encode(x=_time_axis(), y=alt.Y("ms:Q", title="ms", axis=alt.Axis(tickCount=4)), color=colour)
            )
            st.altair_chart(line.properties(height=170), alt="Latency p50 and p99 over time, in milliseconds")


def _when(seconds: float) -> float:
    """As Vega has it: milliseconds, shown in the browser's time zone."""
    return seconds * 1000


def _time_axis() -> alt.X:
    return alt.X("time:T", title=None, axis=alt.Axis(format="%H:%M:%S", tickCount=5, grid=False, labelOverlap=True))


def _pairs(labels: list[str], reference: list[float], rows: list[float]) -> pd.DataFrame:
    total = sum(rows)
    frame = pd.DataFrame({"bucket": labels, REFERENCE: reference, LIVE: [n / total if total else 0.0 for n in rows]})
    return frame.melt("bucket", var_name="of", value_name="share")


def _share_chart(frame: pd.DataFrame, labels: list[str], alt_text: str) -> None:
    chart = (
        alt.Chart(frame)
        .mark_bar(cornerRadiusTopLeft=2, cornerRadiusTopRight=2)
        .encode(
            x=alt.X("bucket:N", sort=labels, title=None, axis=alt.Axis(labelAngle=0 if len(labels) < 6 else -40)),
            xOffset=alt.XOffset("of:N", sort=[REFERENCE, LIVE]),
            y=alt.Y("share:Q", title=None, axis=alt.Axis(format="%", tickCount=4)),
            color=alt.Color("of:N", scale=COLOURS, legend=alt.Legend(orient="top", title=None, offset=8, padding=0)),
            tooltip=["bucket", "of", alt.Tooltip("share:Q", format=".1%")],
        )
    )
    st.altair_chart(chart.properties(height=200), alt=alt_text)


def _mix(mix: list[Mix], feedback: Feedback | None) -> None:
    st.subheader("Predictions", anchor=False)
    shown = [item for item in mix if item.reference or item.rows]
    total = sum(item.rows for item in shown)
    if not total:
        st.caption("This version has predicted nothing yet.")
        return
    labels = [item.label for item in shown]
    frame = _pairs(labels, [item.reference for item in shown], [item.rows for item in shown])
    _share_chart(frame, labels, "Share of each prediction, live and in the training data")
    st.caption(f"Share of each prediction among {total:,.0f} rows. {_feedback(feedback)}")


def _feedback(feedback: Feedback | None) -> str:
    if not feedback or not feedback.labels:
        return "No label was fed back for this version yet: send one on the page Predict, or to /feedback."
    if feedback.accuracy is not None:
        right = round(feedback.accuracy * feedback.labels)
        return f"Of {feedback.labels:,} labels that were fed back, {right:,} were predicted right."
    off = show.plain(show.number(feedback.error or 0.0))
    return f"Over {feedback.labels:,} labels that were fed back, the prediction was off by {off} on average."


def _drift(buckets: list[Buckets], name: str, version: str) -> None:
    st.subheader("Feature drift", anchor=False)
    found = sorted((item.drift for item in buckets), key=lambda d: -1.0 if d.psi is None else d.psi, reverse=True)
    rows = max((item.rows for item in found), default=0)
    if not rows:
        st.caption("No rows to compare with the training data yet.")
        return
    if rows < drift.MIN_ROWS:
        st.caption(f"{rows:,} rows so far: drift is judged from {drift.MIN_ROWS} rows on. Below, it is mostly chance.")
    frame = pd.DataFrame(
        [
            (item.feature, item.psi, VERDICTS[item.verdict][1], VERDICTS[item.verdict][2])
            for item in found[:20]
            if item.psi is not None
        ],
        columns=["feature", "psi", "verdict", "colour"],
    )
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
    values = base.mark_text(align="left", dx=5, color=show.GRAY).encode(text=alt.Text("psi:Q", format=".2f"))
    lines = alt.Chart(pd.DataFrame({"at": [drift.MODERATE, drift.STRONG]})).mark_rule(
        strokeDash=[4, 4], color=show.GRAY
    )
    chart = bars + values + lines.encode(x="at:Q")
    st.altair_chart(chart.properties(height=28 * len(frame) + 50), alt="Population stability index of each feature")
    if len(found) > 20:
        st.caption(f"The 20 features with the most drift, of {len(found)}.")
    st.caption(
        f"PSI, the population stability index, compares {rows:,} rows with the training data: below {drift.MODERATE} "
        f"stable, {drift.MODERATE} to {drift.STRONG} moderate drift, above strong drift."
    )
    _one_feature(buckets, [item.feature for item in found], name, version)


def _one_feature(buckets: list[Buckets], order: list[str], name: str, version: str) -> None:
    with st.expander("One feature, bucket by bucket"):
        feature = st.selectbox("Feature", sorted(order), key=f"feature {name} {version}")
        chosen = next(item for item in buckets if item.feature == feature)
        labels = _bucket_names(show.model_api(), name, version).get(feature)
        if not labels or len(labels) != len(chosen.reference):
            labels = [f"bucket {i + 1}" for i in range(len(chosen.reference))]
        _share_chart(
            _pairs(labels, chosen.reference, chosen.rows), labels, f"Shares of {feature}, live and in the training data"
        )


@st.cache_data(show_spinner=False, ttl=60, max_entries=100, hash_funcs={ModelApi: lambda api: api.url})
def _bucket_names(api: ModelApi, name: str, version: str) -> dict[str, list[str]]:
    """Readable buckets by feature; none for a version that is not served, or when the API does not say."""
    try:
        info = api.model(name)
    except Problem:
        return {}
    if info.version != version:
        return {}
    return {f.name: bucket_labels(f.model_dump(exclude_none=True)) for f in info.features}
