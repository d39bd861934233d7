"""Live: what is asked of the model now, how fast it answers, and whether that still looks like its training data."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.clients.errors import ServiceError
from app.clients.model_api import ModelApiClient
from app.clients.prometheus import PrometheusClient
from app.registry.reference import bucket_labels
from app.ui import drift, elements
from app.ui.api_source import ApiSource
from app.ui.live_data import Buckets, Feedback, FiringAlert, Mix, Reading, RequestWindow, Source, Traffic
from app.ui.prometheus_source import PrometheusSource
from app.ui.settings import UiSettings

HEIGHT = 150  # pixels of a chart over time
SHOWN_ALERTS = 5  # of each severity
REFERENCE, LIVE = "training data", "live"
COLOURS = alt.Scale(domain=[REFERENCE, LIVE], range=[elements.PALE, elements.BLUE])
VERDICTS = {
    "stable": ("green", "stable", elements.GREEN),
    "moderate": ("orange", "moderate drift", elements.ORANGE),
    "strong": ("red", "strong drift", elements.RED),
    "too few": ("gray", "too few rows", elements.PALE),
    "unknown": ("gray", "unknown", elements.PALE),
}


def page() -> None:
    """The page."""
    source = _source()
    st.fragment(run_every=source.every)(_figures)(source)


def _source() -> Source:
    """Prometheus where there is one, for all visitors; else the API, with this visitor's own history of it."""
    settings = UiSettings()
    if settings.prometheus_url:
        return _prometheus(settings.prometheus_url, settings.ui_timeout)
    api = elements.model_api()
    found: ApiSource | None = st.session_state.get("figures")
    if found is None or found.api is not api:
        found = st.session_state["figures"] = ApiSource(api)
    return found


@st.cache_resource(show_spinner=False, max_entries=4)
def _prometheus(url: str, timeout: float) -> PrometheusSource:
    return PrometheusSource(PrometheusClient(url, timeout))


def _figures(source: Source) -> None:
    places = elements.heading("Live", source.about, choices=2)
    try:
        source.refresh()
    except ServiceError as problem:
        elements.problem(problem)
        if source.reading:
            st.caption(f"The figures below were read at {elements.clock(source.reading.time)}.")
    if source.alerts is not None:
        _alerts(source.alerts)
    reading = source.reading
    if reading is None:
        return
    if not reading.models:
        st.info(
            "The API serves no model yet. Train one with `mlops train MODEL`; it is promoted if it is good enough.",
            icon=":material/info:",
        )
        return
    name, version = _choice(reading, places)
    traffic = reading.traffic.get(name, Traffic([], None, RequestWindow(0.0, {}, {})))
    feedback = reading.feedback(name, version)
    _headline(traffic, feedback, _counted(reading))
    _charts(traffic)
    left, right = st.columns(2, gap="medium")
    with left:
        _mix(reading.mix(name, version), feedback)
    with right:
        _drift(reading.buckets(name, version), reading.min_rows, name, version)
    if reading.since:
        st.caption(
            f"Counted since {elements.clock(reading.since)} on {elements.moment(reading.since).split(',')[0]}, "
            "when the API was started; a restart begins anew."
        )
    if reading.window:
        st.caption(
            f"Predictions, feedback and drift are of {words(reading.window)}, of all replicas together. Prometheus "
            "estimates what came between two of its readings, so a count may be off by a few."
        )


def words(window: str) -> str:
    """1h as the last hour, 30m as the last 30 minutes."""
    number, unit = (
        window[:-1],
        {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "y": "year"}[window[-1]],
    )
    if not number.isdigit():
        return f"the last {window}"
    return f"the last {unit}" if int(number) == 1 else f"the last {number} {unit}s"


def _counted(reading: Reading) -> str:
    """What the whole of the requests is of."""
    return f"of {words('15m')}" if reading.window else "since the API was started"


def _alerts(alerts: list[FiringAlert]) -> None:
    if not alerts:
        st.caption(":material/check: No alert is firing.")
    for severity, box, icon in (("critical", st.error, "error"), ("warning", st.warning, "warning")):
        found = [alert for alert in alerts if (alert.severity == "critical") == (severity == "critical")]
        if found:
            lines = [
                f"**{elements.plain(alert.name)}** since {elements.moment(alert.since)}: "
                f"{elements.plain(alert.summary.removesuffix('.'))}. What to do: {elements.plain(alert.runbook)}"
                for alert in found[:SHOWN_ALERTS]
            ]
            if len(found) > SHOWN_ALERTS:
                lines.append(f"and {len(found) - SHOWN_ALERTS} more")
            box("\n\n".join(lines), icon=f":material/{icon}:")


def _choice(reading: Reading, places: list[DeltaGenerator]) -> tuple[str, str]:
    left, right = places
    with left:
        name = elements.choose_model(sorted(reading.models))
    serving = reading.models[name]
    versions = reading.versions(name) or [serving]
    with right:
        version = st.selectbox(
            "Version",
            versions,
            index=versions.index(serving) if serving in versions else 0,
            format_func=lambda v: f"version {v}{', production' if v == serving else ''}",
            key=f"version {name} {serving} {versions}",
        )
    return name, version


def _headline(traffic: Traffic, feedback: Feedback | None, counted: str) -> None:
    rate, failed, median, fast, p90, live = st.columns([5, 4, 4, 4, 4, 4])
    now = traffic.now
    recent = now is not None and now.asked > 0
    shown = now if now and recent else traffic.whole
    when = "of the last minute" if recent else counted
    rate.metric(
        "Requests per minute",
        "…" if now is None else f"{now.per_minute(now.asked):,.0f}",
        help=f"Prediction requests of the last minute; {traffic.whole.asked:,.0f} {counted}.",
        border=True,
    )
    failed.metric(
        "Failed",
        _share(shown.failed),
        help=f"Requests {when} that were answered with a status of 400 or above.",
        border=True,
    )
    median.metric(
        "Median latency", duration(shown.latency(0.5)), help=f"Half of the requests {when} were faster.", border=True
    )
    fast.metric("Under 100 ms", _share(shown.fast), help=f"Share of the requests {when} that took less.", border=True)
    p90.metric("p90 latency", duration(shown.latency(0.9)), help=f"9 of 10 requests {when} were faster.", border=True)
    if feedback and feedback.error is not None:
        live.metric("Live mean error", elements.number(feedback.error), help=_feedback(feedback), border=True)
    else:
        accuracy = feedback.accuracy if feedback else None
        live.metric("Live accuracy", _share(accuracy), help=_feedback(feedback), border=True)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def duration(seconds: float | None) -> str:
    """0.00042 as 0.42 ms."""
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _charts(traffic: Traffic) -> None:
    if len(traffic.points) < 2:
        st.caption("Collecting: the charts begin with the next readings.")
        return
    with st.container():
        left, right = st.columns(2, gap="medium")
        with left:
            _per_minute(traffic.points)
        with right:
            _line("Median latency", "ms", [(at, _ms(requests.latency(0.5))) for at, requests in traffic.points])
        left, right = st.columns(2, gap="medium")
        with left:
            _line("Requests under 100 ms", "%", [(at, requests.fast) for at, requests in traffic.points])
        with right:
            _line("p90 latency", "ms", [(at, _ms(requests.latency(0.9))) for at, requests in traffic.points])


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _per_minute(points: list[tuple[float, RequestWindow]]) -> None:
    st.subheader("Requests per minute", anchor=False)
    seen = sorted({status for _, requests in points for status, count in requests.statuses.items() if count > 0})
    rows = [
        (_when(at), status, requests.per_minute(requests.statuses.get(status, 0.0)))
        for at, requests in points
        for status in seen or ["200"]
    ]
    frame = pd.DataFrame(rows, columns=["time", "status", "per minute"])
    statuses = list(frame["status"].unique())
    colours = alt.Scale(domain=statuses, range=[_colour(status) for status in statuses])
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
    st.altair_chart(chart.properties(height=HEIGHT), alt="Requests per minute by status, over time")


def _colour(status: str) -> str:
    return elements.BLUE if status < "400" else elements.ORANGE if status < "500" else elements.RED


def _line(title: str, unit: str, values: list[tuple[float, float | None]]) -> None:
    """A chart of one figure over time; where nobody asked, it has a gap."""
    st.subheader(title, anchor=False)
    frame = pd.DataFrame([(_when(at), value) for at, value in values], columns=["time", "value"]).astype(float)
    if frame["value"].count() < 2:
        st.caption("No requests in this time.")
        return
    share = unit == "%"
    axis = alt.Axis(tickCount=4, format=".0%") if share else alt.Axis(tickCount=4)
    scale = alt.Scale(domain=[0, 1]) if share else alt.Scale(zero=True)
    line = (
        alt.Chart(frame)
        .mark_line(point={"size": 12, "color": elements.BLUE}, color=elements.BLUE)
        .encode(
            x=_time_axis(),
            y=alt.Y("value:Q", title=None if share else unit, scale=scale, axis=axis),
            tooltip=[alt.Tooltip("value:Q", title=unit, format=".1%" if share else ".3~r")],
        )
    )
    st.altair_chart(line.properties(height=HEIGHT), alt=f"{title} over time")


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
        return f"Of {feedback.labels:,} labels that were fed back, {feedback.right:,} were predicted right."
    off = elements.plain(elements.number(feedback.error or 0.0))
    return f"Over {feedback.labels:,} labels that were fed back, the prediction was off by {off} on average."


def _drift(buckets: list[Buckets], min_rows: int, name: str, version: str) -> None:
    st.subheader("Feature drift", anchor=False)
    found = sorted((item.drift for item in buckets), key=lambda d: -1.0 if d.psi is None else d.psi, reverse=True)
    rows = max((item.rows for item in found), default=0)
    if not rows:
        st.caption("No rows to compare with the training data yet.")
        return
    if rows < min_rows:
        st.caption(f"{rows:,} rows so far: drift is judged from {min_rows:,} rows on. Below, it is mostly chance.")
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
    values = base.mark_text(align="left", dx=5, color=elements.GRAY).encode(text=alt.Text("psi:Q", format=".2f"))
    lines = alt.Chart(pd.DataFrame({"at": [drift.MODERATE, drift.STRONG]})).mark_rule(
        strokeDash=[4, 4], color=elements.GRAY
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
        labels = _bucket_names(elements.model_api(), name, version).get(feature)
        if not labels or len(labels) != len(chosen.reference):
            labels = [f"bucket {i + 1}" for i in range(len(chosen.reference))]
        _share_chart(
            _pairs(labels, chosen.reference, chosen.rows), labels, f"Shares of {feature}, live and in the training data"
        )


@st.cache_data(show_spinner=False, ttl=60, max_entries=100, hash_funcs={ModelApiClient: lambda api: api.url})
def _bucket_names(api: ModelApiClient, name: str, version: str) -> dict[str, list[str]]:
    """Readable buckets by feature; none for a version that is not served, or when the API does not say."""
    try:
        info = api.model(name)
    except ServiceError:
        return {}
    if info.version != version:
        return {}
    return {f.name: bucket_labels(f.reference()) for f in info.features}
