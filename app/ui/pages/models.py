"""The page Models: what is in production and what challenges it, every version and every decision."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app.clients.errors import ServiceError
from app.clients.mlflow import CHALLENGER, PRODUCTION, ModelVersion
from app.registry.gate_metrics import BY_TASK, LOWER_IS_BETTER
from app.registry.ledger import Decision
from app.ui import connections
from app.ui.elements import choose_model, heading, show_error
from app.ui.formatting import escape_markdown, format_moment, format_number, format_share
from app.ui.links import run_link, run_url, version_url
from app.ui.mlflow_errors import readable_mlflow_errors
from app.ui.pages.decision_dialog import show_decision_buttons, show_last_decision
from app.ui.pages.model_overview import ModelOverview, read_model
from app.vocabulary import Gate

SHOWN_DECISIONS = 10
SHOWN_METRICS = 3  # of a version
OUTCOME_COLOURS = {"promoted": "green", "refused": "red", "started": "blue"}
KNOWN_METRICS = [name for metrics in BY_TASK.values() for name in metrics]
NO_VERSION = {
    PRODUCTION: "No version is in production: the API has nothing to serve. Promote one below.",
    CHALLENGER: "No version is being tried. A version becomes the challenger by `mlops challenge`, or when it is "
    "checked for promotion, and remains it when it is refused.",
}


def page() -> None:
    """Draw the page."""
    (place,) = heading("Models", "Which model version serves, which one is being tried, and who decided that.")
    try:
        registry = connections.registry()
        with readable_mlflow_errors():
            models = {model.name: model for model in registry.models()}
    except ServiceError as error:
        show_error(error)
        return
    if not models:
        st.info("No model is registered yet. Train one with `mlops train MODEL`.", icon=":material/info:")
        return
    with place:
        name = choose_model(sorted(models), connections.default_model)
    # what comes and goes has a place of its own: elements that move are drawn twice for a moment
    with st.container():
        overview = read_model(registry, models[name])
        for problem in overview.errors:
            show_error(problem)
        show_last_decision(name)
    with st.container():
        _cards(overview)
    with st.container():
        show_decision_buttons(overview)
    with st.container():
        st.subheader("Versions", anchor=False)
        _versions(overview)
    st.subheader("Promotion history", anchor=False)
    _history(overview)


# -- production and challenger -----------------------------------------------------------------------------------


def _cards(overview: ModelOverview) -> None:
    left, right = st.columns(2, gap="medium")
    for column, title, alias in ((left, "Production", PRODUCTION), (right, "Challenger", CHALLENGER)):
        with column, st.container(border=True, height="stretch"):
            version = overview.version_at(alias)
            if version is None:
                st.markdown(f"**{title}**")
                st.markdown(f":gray[{NO_VERSION[alias]}]")
                continue
            colour = "green" if alias == PRODUCTION else "blue"
            st.markdown(f"**{title}** :{colour}-badge[version {version.version}]")
            _card(overview, version, overview.last_comparison(version) if alias == CHALLENGER else None)
            if overview.gate and alias == PRODUCTION:
                st.caption(_gate_text(overview.gate))
            if overview.canary and alias == PRODUCTION:
                number, share = overview.canary
                st.caption(
                    f"Its canary, version {number}, answers {format_share(share)} of the requests; the page Live shows "
                    "whether it was returned."
                )


def _card(overview: ModelOverview, version: ModelVersion, comparison: Decision | None) -> None:
    metrics = overview.metrics.get(version.version, {})
    names = _metric_order(metrics, overview.gate)[:SHOWN_METRICS]
    if names:
        for column, name in zip(st.columns(SHOWN_METRICS), names, strict=False):
            with column:
                _metric(name, metrics[name], comparison)
    else:
        st.markdown(":gray[Its run has no metrics in MLflow.]")
    mlflow_link = f"[in MLflow]({version_url(version.name, version.version)})"
    st.caption(f"{format_moment(version.created)} · {_serving(version)} · {run_link(version.run_id)} · {mlflow_link}")
    if comparison and comparison.refused:
        st.caption(
            f"Refused by the check **{escape_markdown(comparison.check)}**: {escape_markdown(comparison.reason)}."
        )


def _metric(name: str, value: float, comparison: Decision | None) -> None:
    """One metric of a version, with the difference to production where the gate measured both on the same rows."""
    # a version's own metric is of its own held-out rows: it cannot be compared with another version's
    both = comparison.metrics if comparison else {}
    candidate, production = both.get(f"candidate_{name}"), both.get(f"production_{name}")
    delta, about = None, "On the version's held-out rows."
    if candidate is not None and production is not None:
        delta = f"{candidate - production:+.4f}"
        about = "On the version's held-out rows, and the difference to production on the same rows."
    st.metric(
        _spaced(name),
        format_number(value if candidate is None else candidate),
        delta=delta,
        delta_color="inverse" if name in LOWER_IS_BETTER else "normal",
        help=about,
    )


def _metric_order(metrics: dict[str, float], gate: Gate | None) -> list[str]:
    """The gate's metric first, then the usual ones, then others."""
    first = [*([gate.metric] if gate else []), *KNOWN_METRICS]
    return sorted(metrics, key=lambda name: (first.index(name) if name in first else len(first), name))


def _spaced(metric: str) -> str:
    return metric.replace("_", " ")


def _gate_text(gate: Gate) -> str:
    side = "at most" if gate.metric in LOWER_IS_BETTER else "at least"
    text = (
        f"Gate: {escape_markdown(_spaced(gate.metric))} {side} {format_number(gate.threshold)}, and no more than "
        f"{format_number(gate.max_regression)} worse than production on the same rows."
    )
    if gate.min_shadow_rows:
        text += (
            f" As the challenger it must have got {gate.min_shadow_rows:,} rows, and have disagreed on at most "
            f"{format_share(gate.max_disagreement)} of them."
        )
    return text


def _serving(version: ModelVersion) -> str:
    serving = version.tags.get("serving", "")
    return {"onnx": "ONNX", "skops": "skops (slower)"}.get(serving, escape_markdown(serving) or "not a bundle")


# -- tables ------------------------------------------------------------------------------------------------------


def _versions(overview: ModelOverview) -> None:
    if not overview.versions:
        st.markdown(":gray[No versions to show.]")
        return
    names = _metric_order({name: 0.0 for metrics in overview.metrics.values() for name in metrics}, overview.gate)
    shown = names[:SHOWN_METRICS]
    rows = [
        {
            "Version": int(version.version),
            "Alias": ", ".join(alias for alias, number in overview.aliases.items() if number == version.version),
            **{_spaced(name): overview.metrics.get(version.version, {}).get(name) for name in shown},
            "Created": format_moment(version.created),
            "Serving": version.tags.get("serving", "") or "not a bundle",
            "MLflow": version_url(overview.name, version.version),
        }
        for version in overview.versions
    ]
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height=min(36 * (len(rows) + 1) + 2, 400),
        column_config={
            **{_spaced(name): st.column_config.NumberColumn(format="%.4f") for name in shown},
            "Version": st.column_config.NumberColumn(width="small"),
            "MLflow": st.column_config.LinkColumn(display_text="open", width="small"),
        },
    )


def _history(overview: ModelOverview) -> None:
    decisions = overview.decisions
    if decisions is None:
        st.markdown(":gray[No decisions to show.]")
        return
    if not decisions:
        st.markdown(":gray[Nothing was decided about this model yet.]")
        return
    show_all = len(decisions) <= SHOWN_DECISIONS or st.toggle(
        f"All {len(decisions)} decisions", key=f"all {overview.name}"
    )
    shown = decisions if show_all else decisions[:SHOWN_DECISIONS]
    st.table(pd.DataFrame([_decision_row(decision) for decision in shown]), border="horizontal", hide_index=True)


def _decision_row(decision: Decision) -> dict[str, str]:
    version = decision.version or "none"
    if decision.outcome == "promoted" and decision.version:
        version = f"{decision.previous or 'none'} → {decision.version}"
    outcome = f"{decision.outcome} by {decision.check}" if decision.check else decision.outcome
    causes = dict.fromkeys(text for text in (decision.why, decision.cause) if text)
    return {
        "When": f"[{escape_markdown(format_moment(decision.time))}]({run_url(decision.run_id)})",
        "Action": escape_markdown("moved by hand" if decision.action == "outside" else decision.action),
        "Version": escape_markdown(version),
        "Outcome": f":{OUTCOME_COLOURS.get(decision.outcome, 'gray')}-badge[{escape_markdown(outcome)}]",
        "Reason": escape_markdown(decision.reason),
        "Who": escape_markdown(decision.who or "unknown"),
        "Why, cause": escape_markdown("; ".join(causes)),
    }
