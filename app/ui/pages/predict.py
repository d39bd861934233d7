"""Predict: a form made from the model's own signature, its answer, and the true label back."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from app.clients.errors import ServiceError
from app.clients.model_api import ModelApiClient
from app.contract import FeatureInfo, ModelInfo, Prediction, StoredFeedback
from app.registry.reference import OTHER
from app.ui import elements
from app.vocabulary import INTEGER, NUMERIC, Label

MAX_WHOLE = 2**53 - 1  # what a browser's number can hold
BUTTONS = 6  # classes; more go into a list
BARS = 12


@dataclass
class Asked:
    """The last question about a model, and what came of it."""

    row: dict[str, Any]
    answer: Prediction
    outside: list[str]
    stored: StoredFeedback | None = None
    problem: ServiceError | None = field(default=None)


def page() -> None:
    """The page."""
    api = elements.model_api()
    (place,) = elements.heading("Predict", "Ask the model in production, and tell it afterwards what was true.")
    try:
        served = api.models()
        if not served.models:
            _nothing(served.registry.error)
            return
        with place:
            name = elements.choose_model([model.name for model in served.models], served.default)
        info = api.model(name)
    except ServiceError as problem:
        elements.problem(problem)
        return
    _state_of(info)
    left, right = st.columns([1, 1], gap="large")
    with left:
        st.subheader("Features", anchor=False)
        _form(api, info)
    with right:
        st.subheader("Answer", anchor=False)
        _result(api, info)


def _nothing(registry_error: str) -> None:
    if registry_error:
        elements.problem(ServiceError(f"No model is in service, and the API cannot ask MLflow: {registry_error}"))
        return
    st.info(
        "No model is in production yet. Train one with `mlops train MODEL`; it is promoted if it is good enough.",
        icon=":material/info:",
    )


def _state_of(info: ModelInfo) -> None:
    """Say so where what serves is not what should."""
    failure = info.last_failure
    if failure and failure.version != info.version:
        st.warning(
            f"Version {elements.plain(failure.version)} is in production but cannot be loaded: "
            f"{elements.plain(failure.reason)}. Version {elements.plain(info.version)} answers instead. "
            "Promote another version, or roll back, on the page Models.",
            icon=":material/warning:",
        )
    elif not info.registry.ok:
        st.warning(
            f"The API cannot reach MLflow, so it goes on with version {elements.plain(info.version)}. "
            f"{elements.plain(info.registry.error)}",
            icon=":material/warning:",
        )


# -- the question ------------------------------------------------------------------------------------------------


def _form(api: ModelApiClient, info: ModelInfo) -> None:
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
        sent = st.form_submit_button("Predict", type="primary", width="stretch")
    if not sent:
        return
    empty = [name for name, value in row.items() if value is None]
    key = _key(info)
    try:
        if empty:
            raise ServiceError(f"Without a value: {', '.join(empty)}.", "Fill in every feature.")
        with st.spinner("Asking the model API"):
            answer = api.predict(info.name, row)
    except ServiceError as problem:
        st.session_state.pop(key, None)
        elements.problem(problem)
    else:
        unseen = [said for feature in info.features if (said := outside(feature, row[feature.name]))]
        st.session_state[key] = Asked(row, answer, unseen)


def _key(info: ModelInfo) -> str:
    return f"asked {info.name}"


def _field(feature: FeatureInfo, key: str) -> Any:
    label = elements.label(feature.name)
    if feature.dtype == "boolean":
        common = (feature.categories or ["False"])[0]
        return st.checkbox(label, value=common == "True", key=key, help="True or false")
    if feature.dtype not in NUMERIC:
        known = [name for name in feature.categories or [] if name != OTHER]
        about = "Text; these were in the training data, commonest first. Others may be typed."
        if not known:
            return st.text_input(label, key=key, help="Text")
        return st.selectbox(label, known, key=key, help=about, accept_new_options=True)
    low, high = feature.min, feature.max
    middle = feature.median if feature.median is not None else 0.0
    about = f"A number ({feature.dtype})"
    if low is not None and high is not None:
        places = 0 if feature.dtype in INTEGER else decimals(low, high)
        label += f" ({low:,.{places}f} to {high:,.{places}f})"
        about = f"Training data: {low:.6g} to {high:.6g}, median {middle:.6g} ({feature.dtype})"
    if feature.dtype in INTEGER:
        whole = max(-MAX_WHOLE, min(MAX_WHOLE, round(middle)))
        return st.number_input(label, value=whole, step=1, key=key, help=about)
    places = decimals(low, high)
    return st.number_input(
        label, value=round(middle, places), step=10.0 ** (1 - places), format=f"%.{places}f", key=key, help=about
    )


def decimals(low: float | None, high: float | None) -> int:
    """How many decimals show a value of this range to about three digits."""
    width = (high or 0.0) - (low or 0.0)
    if not math.isfinite(width) or width <= 0:
        return 2
    return max(1, min(10, 2 - math.floor(math.log10(width))))


def outside(feature: FeatureInfo, value: Any) -> str:
    """What to say of a value that training has not seen; "" for one that it has."""
    if feature.min is not None and feature.max is not None and not isinstance(value, str):
        # the field shows the range rounded, so what it shows must count as inside
        slack = 0.0 if feature.dtype in INTEGER else 0.5 * 10.0 ** -decimals(feature.min, feature.max)
        if feature.min - slack <= value <= feature.max + slack:
            return ""
        return f"{feature.name} is {value:.6g}, training saw {feature.min:.6g} to {feature.max:.6g}"
    known = feature.categories
    # the last share is that of all rarer categories: where it is not 0, an unlisted value may have been among them
    if known and str(value) not in known and not (feature.shares and feature.shares[-1] > 0):
        return f"{feature.name} is {value!r}, which training has not seen"
    return ""


# -- the answer --------------------------------------------------------------------------------------------------


def _result(api: ModelApiClient, info: ModelInfo) -> None:
    asked: Asked | None = st.session_state.get(_key(info))
    if asked is None:
        with st.container(border=True):
            st.markdown(":gray[Fill in the features and press **Predict**. They start at the training data's medians.]")
        return
    answer = asked.answer
    with st.container(border=True, key="answer", gap="xsmall"):
        st.caption(elements.plain(info.target))
        st.title(elements.plain(_spell(answer.prediction)), anchor=False)
        if answer.probabilities:
            _bars(answer.probabilities)
        st.caption(
            f"{elements.plain(answer.model)} version {elements.plain(answer.version)} · "
            f"{elements.run_link(answer.run_id)}"
        )
    if asked.outside:
        listed = "".join(f"\n- {elements.plain(line)}" for line in asked.outside)
        st.warning(
            f"Outside of what the model was trained on, so the answer may be a guess:\n{listed}",
            icon=":material/warning:",
        )
    _feedback(api, info, asked)


def _spell(label: Label) -> str:
    return elements.number(label) if isinstance(label, int | float) and not isinstance(label, bool) else str(label)


def _bars(probabilities: dict[str, float]) -> None:
    top = sorted(probabilities.items(), key=lambda item: -item[1])[:BARS]
    frame = pd.DataFrame(top, columns=["class", "probability"])
    base = alt.Chart(frame).encode(
        y=alt.Y(
            "class:N", sort=list(frame["class"]), title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8)
        ),
        x=alt.X("probability:Q", scale=alt.Scale(domain=[0, 1.12]), title=None, axis=None),
        tooltip=["class", alt.Tooltip("probability:Q", format=".2%")],
    )
    bars = base.mark_bar(cornerRadius=3, height=16, color=elements.BLUE)
    values = base.mark_text(align="left", dx=6, color=elements.GRAY).encode(
        text=alt.Text("probability:Q", format=".1%")
    )
    chart = bars + values
    st.altair_chart(chart.properties(height=30 * len(top) + 10), alt="Probability of each class")
    if len(probabilities) > len(top):
        st.caption(f"The {len(top)} most probable of {len(probabilities)} classes.")


# -- the truth ---------------------------------------------------------------------------------------------------


def _feedback(api: ModelApiClient, info: ModelInfo, asked: Asked) -> None:
    st.markdown(f"**What was the true {elements.plain(info.target)}?**")
    key = f"truth {asked.answer.prediction_id}"
    if info.task == "regression":
        left, right = st.columns([2, 1], vertical_alignment="bottom")
        value = left.number_input("True value", value=None, key=key, label_visibility="collapsed", placeholder="number")
        if right.button("Send", key=f"{key} send", width="stretch", disabled=value is None) and value is not None:
            _send(api, asked, value)
    elif len(info.classes) <= BUTTONS:
        with st.container(horizontal=True):
            for label in info.classes:
                if st.button(elements.plain(label), key=f"{key} {label!r}"):
                    _send(api, asked, label)
    else:
        left, right = st.columns([2, 1], vertical_alignment="bottom")
        chosen = left.selectbox(
            "True class", info.classes, index=None, key=key, label_visibility="collapsed", placeholder="class"
        )
        if right.button("Send", key=f"{key} send", width="stretch", disabled=chosen is None) and chosen is not None:
            _send(api, asked, chosen)
    if asked.problem:
        elements.problem(ServiceError(f"Not stored. {asked.problem.what}", asked.problem.cure))
    if asked.stored:
        st.success(_stored(asked.stored), icon=":material/check:")
    elif not asked.problem:
        st.caption("It is stored for the live accuracy, and training can learn from it.")


def _send(api: ModelApiClient, asked: Asked, label: Label) -> None:
    try:
        asked.stored, asked.problem = api.feedback(asked.answer.prediction_id, label), None
    except ServiceError as problem:
        asked.problem = problem


def _stored(stored: StoredFeedback) -> str:
    label = elements.plain(_spell(stored.label))
    if stored.correct is not None:
        return f"Stored: {label}. The prediction was {'right' if stored.correct else 'wrong'}."
    if stored.absolute_error is not None:
        return f"Stored: {label}. The prediction was off by {elements.plain(elements.number(stored.absolute_error))}."
    return f"Stored: {label}."
