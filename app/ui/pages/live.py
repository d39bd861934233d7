"""The page Live: how many requests the model gets now, how fast it answers, and how far they are from its training."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.clients.errors import ServiceError
from app.clients.model_api import ModelApiClient
from app.registry.reference import bucket_labels
from app.ui import connections
from app.ui.elements import choose_model, heading, show_error
from app.ui.formatting import (
    escape_markdown,
    format_date,
    format_duration,
    format_moment,
    format_number,
    format_share,
    format_time,
    format_window,
)
from app.ui.links import runbook_link
from app.ui.live.api_source import ApiSource
from app.ui.live.data import (
    CanarySummary,
    ChallengerSummary,
    FeatureBuckets,
    FeedbackSummary,
    FiringAlert,
    LiveSource,
    PredictionShare,
    RequestWindow,
    Snapshot,
    Traffic,
)
from app.ui.live.drift import MODERATE, STRONG
from app.ui.pages.live_charts import drift_chart, latency_chart, rate_chart, share_chart, speed_chart

SHOWN_ALERTS = 5  # of each severity
SHOWN_FEATURES = 20
HISTORY = "15m"  # of Prometheus' figures, in its notation
NO_TRAFFIC = Traffic([], None, RequestWindow(0.0, {}, {}))


def page() -> None:
    """Draw the page, and again whenever its source has new figures."""
    source = _source()
    st.fragment(run_every=source.interval)(_figures)(source)


def _source() -> LiveSource:
    """Prometheus where there is one, for all visitors; otherwise the API, with a history of this visitor's own."""
    if prometheus := connections.prometheus_source():
        return prometheus
    api = connections.model_api()
    source: ApiSource | None = st.session_state.get("live source")
    if source is None or source.api is not api:
        source = st.session_state["live source"] = ApiSource(api)
    return source


def _figures(source: LiveSource) -> None:
    places = heading("Live", source.description, choices=2)
    try:
        source.refresh()
    except ServiceError as error:
        show_error(error)
        if source.snapshot:
            st.caption(f"The figures below were read at {format_time(source.snapshot.time)}.")
    if source.alerts is not None:
        _alerts(source.alerts)
    snapshot = source.snapshot
    if snapshot is None:
        return
    if not snapshot.models:
        st.info(
            "The API serves no model yet. Train one with `mlops train MODEL`; it is promoted if it is good enough.",
            icon=":material/info:",
        )
        return
    name, version = _choose_version(snapshot, places)
    traffic = snapshot.traffic.get(name, NO_TRAFFIC)
    feedback = snapshot.feedback(name, version)
    _headline(traffic, feedback, f"of {format_window(HISTORY)}" if snapshot.window else "since the API was started")
    _charts(traffic)
    if challenger := snapshot.challenger(name):
        _challenger(challenger)
    if canary := snapshot.canary(name):
        _canary(canary)
    left, right = st.columns(2, gap="medium")
    with left:
        _predictions(snapshot.prediction_shares(name, version), feedback)
    with right:
        _drift(snapshot.feature_buckets(name, version), snapshot.min_rows, name, version)
    _period(snapshot)


def _period(snapshot: Snapshot) -> None:
    """Say what period the counts are of."""
    if snapshot.since:
        st.caption(
            f"Counted since {format_time(snapshot.since)} on {format_date(snapshot.since)}, when the API was started. "
            "A restart begins anew."
        )
    if snapshot.window:
        st.caption(
            f"Predictions, feedback and drift are of {format_window(snapshot.window)}, of all replicas together. "
            "Prometheus estimates what came between two of its readings, so a count may be off by a few."
        )


def _choose_version(snapshot: Snapshot, places: list[DeltaGenerator]) -> tuple[str, str]:
    """The model and the version that the visitor chooses."""
    left, right = places
    with left:
        name = choose_model(sorted(snapshot.models), connections.default_model)
    serving = snapshot.models[name]
    versions = snapshot.versions(name) or [serving]
    with right:
        version = st.selectbox(
            "Version",
            versions,
            index=versions.index(serving) if serving in versions else 0,
            format_func=lambda number: f"version {number}{', production' if number == serving else ''}",
            key=f"version {name} {serving} {versions}",
        )
    return name, version


def _alerts(alerts: list[FiringAlert]) -> None:
    if not alerts:
        st.caption(":material/check: No alert is firing.")
    critical = [alert for alert in alerts if alert.severity == "critical"]
    others = [alert for alert in alerts if alert.severity != "critical"]
    for group, box, icon in ((critical, st.error, ":material/error:"), (others, st.warning, ":material/warning:")):
        lines = [_alert_text(alert) for alert in group[:SHOWN_ALERTS]]
        if len(group) > SHOWN_ALERTS:
            lines.append(f"and {len(group) - SHOWN_ALERTS} more")
        if lines:
            box("\n\n".join(lines), icon=icon)


def _alert_text(alert: FiringAlert) -> str:
    return (
        f"**{escape_markdown(alert.name)}** since {format_moment(alert.since)}: "
        f"{escape_markdown(alert.summary.removesuffix('.'))}. {runbook_link(alert.runbook)}"
    )


# -- requests ----------------------------------------------------------------------------------------------------


def _headline(traffic: Traffic, feedback: FeedbackSummary | None, counted: str) -> None:
    """The figures at the top: of the last minute, or of everything where the last minute had no requests.

    Args:
        counted: what everything is, such as "since the API was started".
    """
    last_minute, whole = traffic.last_minute, traffic.whole
    if last_minute and last_minute.count > 0:
        shown, when = last_minute, "of the last minute"
    else:
        shown, when = whole, counted
    if feedback and feedback.error is not None:
        quality, quality_value = "Live mean error", format_number(feedback.error)
    else:
        quality, quality_value = "Live accuracy", format_share(feedback.accuracy if feedback else None)
    rate = "…" if last_minute is None else f"{last_minute.per_minute(last_minute.count):,.0f}"
    figures = [
        ("Requests per minute", rate, f"Prediction requests of the last minute; {whole.count:,.0f} {counted}."),
        (
            "Failed",
            format_share(shown.failed_share),
            f"Share of the requests {when} that were answered with a status of 400 or above.",
        ),
        ("Median latency", format_duration(shown.latency(0.5)), f"Half of the requests {when} were faster."),
        (
            "Under 100 ms",
            format_share(shown.fast_share),
            f"Share of the requests {when} that took less than 100 ms.",
        ),
        ("p90 latency", format_duration(shown.latency(0.9)), f"Nine of ten requests {when} were faster."),
        (quality, quality_value, _feedback_text(feedback)),
    ]
    for column, (label, value, about) in zip(st.columns([5, 4, 4, 4, 4, 4]), figures, strict=True):
        column.metric(label, value, help=about, border=True)


def _charts(traffic: Traffic) -> None:
    """Four charts of the requests over time."""
    if len(traffic.points) < 2:
        st.caption("Collecting: the charts begin with the next readings.")
        return
    with st.container():
        left, right = st.columns(2, gap="medium")
        with left:
            rate_chart("Requests per minute", traffic.points)
        with right:
            latency_chart("Median latency", traffic.points, 0.5)
        left, right = st.columns(2, gap="medium")
        with left:
            speed_chart("Requests under 100 ms", traffic.points)
        with right:
            latency_chart("p90 latency", traffic.points, 0.9)


# -- the challenger ----------------------------------------------------------------------------------------------


def _challenger(challenger: ChallengerSummary) -> None:
    st.subheader(f"Challenger: version {challenger.version}", anchor=False)
    figures = [
        ("Agrees", format_share(challenger.agreement), "Share of the rows that it answered as production did."),
        ("Rows compared", f"{challenger.rows:,.0f}", "Copies of production's rows that both answered."),
        ("Median time", format_duration(challenger.latency(0.5)), "Half of its batches, of up to 256 rows, took less."),
        ("p90 time", format_duration(challenger.latency(0.9)), "Nine of ten of its batches took less."),
        ("Rows failed", f"{challenger.failed:,.0f}", "Rows that it could not answer: the API's log has the reason."),
        ("Rows dropped", f"{challenger.dropped:,.0f}", "Rows that it did not get, because too many waited."),
    ]
    for column, (label, value, about) in zip(st.columns(len(figures)), figures, strict=True):
        column.metric(label, value, help=about, border=True)
    st.caption(f"It predicts copies of production's rows: nobody gets its answers. {_graded_text(challenger)}")


def _graded_text(challenger: ChallengerSummary) -> str:
    own, productions = challenger.feedback, challenger.production_feedback
    if own is None or productions is None:
        return "No true label came for these rows yet."
    if own.accuracy is not None:
        return (
            f"Of {own.labels:,} rows whose true label came, it was right on {format_share(own.accuracy)}, and "
            f"production on {format_share(productions.accuracy)}."
        )
    errors = [escape_markdown(format_number(summary.error or 0.0)) for summary in (own, productions)]
    return (
        f"On {own.labels:,} rows whose true value came, it was off by {errors[0]} on average, and production by "
        f"{errors[1]}."
    )


# -- the canary --------------------------------------------------------------------------------------------------


def _canary(canary: CanarySummary) -> None:
    st.subheader(f"Canary: version {canary.version}", anchor=False)
    if canary.returned:
        replicas = f"{canary.returned} replica{'s' if canary.returned > 1 else ''} of the API"
        st.warning(
            f"{replicas} returned it to production, as it failed or could not be loaded: the API's log and "
            "`/models/MODEL` say why. `mlops promote MODEL --canary 0` ends it.",
            icon=":material/warning:",
        )
    figures = [
        ("Canary's requests", f"{canary.requests:,.0f}", "Requests that fell to it."),
        ("Canary failed", format_share(canary.failed_share), "Share of them that production had to answer."),
    ]
    for column, (label, value, about) in zip(st.columns(len(figures)), figures, strict=True):
        column.metric(label, value, help=about, border=True)
    st.caption("It answers a share of the requests; where it fails, production answers.")


# -- predictions and feedback ------------------------------------------------------------------------------------


def _predictions(shares: list[PredictionShare], feedback: FeedbackSummary | None) -> None:
    st.subheader("Predictions", anchor=False)
    shown = [share for share in shares if share.reference or share.rows]
    total = sum(share.rows for share in shown)
    if not total:
        st.caption("This version has predicted nothing yet.")
        return
    share_chart(
        [share.label for share in shown],
        [share.reference for share in shown],
        [share.rows for share in shown],
        "Share of each prediction, live and in the training data",
    )
    st.caption(f"Share of each prediction among {total:,.0f} rows. {_feedback_text(feedback)}")


def _feedback_text(feedback: FeedbackSummary | None) -> str:
    if not feedback or not feedback.labels:
        return "No feedback for this version yet: send a true label on the page Predict, or to /feedback."
    if feedback.accuracy is not None:
        return f"Of {feedback.labels:,} predictions with feedback, {feedback.right:,} were right."
    error = escape_markdown(format_number(feedback.error or 0.0))
    return f"{feedback.labels:,} predictions with feedback were off by {error} on average."


# -- drift -------------------------------------------------------------------------------------------------------


def _drift(features: list[FeatureBuckets], min_rows: int, name: str, version: str) -> None:
    st.subheader("Feature drift", anchor=False)
    drifts = sorted(
        (feature.drift for feature in features), key=lambda d: -1.0 if d.psi is None else d.psi, reverse=True
    )
    rows = max((drift.rows for drift in drifts), default=0)
    if not rows:
        st.caption("No rows to compare with the training data yet.")
        return
    if rows < min_rows:
        st.caption(f"{rows:,} rows so far: drift is judged from {min_rows:,} rows on. Below, it is mostly chance.")
    drift_chart(drifts[:SHOWN_FEATURES])
    if len(drifts) > SHOWN_FEATURES:
        st.caption(f"The {SHOWN_FEATURES} features with the most drift, of {len(drifts)}.")
    st.caption(
        f"PSI, the population stability index, compares {rows:,} rows with the training data: below {MODERATE} "
        f"stable, {MODERATE} to {STRONG} moderate drift, above strong drift."
    )
    with st.expander("One feature, bucket by bucket"):
        _one_feature(features, name, version)


def _one_feature(features: list[FeatureBuckets], name: str, version: str) -> None:
    by_name = {feature.feature: feature for feature in features}
    feature = by_name[st.selectbox("Feature", sorted(by_name), key=f"feature {name} {version}")]
    labels = _bucket_labels(connections.model_api(), name, version).get(feature.feature)
    if not labels or len(labels) != len(feature.reference):
        labels = [f"bucket {i + 1}" for i in range(len(feature.reference))]
    share_chart(labels, feature.reference, feature.rows, f"Shares of {feature.feature}, live and in the training data")


@st.cache_data(show_spinner=False, ttl=60, max_entries=100, hash_funcs={ModelApiClient: lambda api: api.url})
def _bucket_labels(api: ModelApiClient, name: str, version: str) -> dict[str, list[str]]:
    """Readable buckets by feature; none for a version that is not in service, or when the API does not answer."""
    try:
        info = api.model(name)
    except ServiceError:
        return {}
    if info.version != version:
        return {}
    return {feature.name: bucket_labels(feature.reference()) for feature in info.features}
