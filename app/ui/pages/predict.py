"""The page Predict: a form made of the model's own signature, the answer, and feedback with the true label."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import altair as alt
import pandas as pd
import streamlit as st

from app.clients.errors import ServiceError
from app.clients.model_api import ModelApiClient
from app.contract.explanation import Explained
from app.contract.feedback import StoredFeedback
from app.contract.models import ModelInfo
from app.contract.predictions import Prediction
from app.ui import connections
from app.ui.elements import BLUE, GRAY, choose_model, heading, show_error
from app.ui.formatting import escape_markdown, format_number
from app.ui.links import run_link
from app.ui.pages.explanation import show_explanation
from app.ui.pages.prediction_file import ask_for_file
from app.ui.pages.prediction_form import ask_for_row, warn_of_unseen
from app.vocabulary import Label

SHOWN_BUTTONS = 6  # classes; more go into a list
SHOWN_BARS = 12  # classes


@dataclass
class Answer:
    """The last prediction of a model that the visitor asked for, and what came of its feedback.

    warnings: about values that were not in the training data.
    explained: what each feature contributed; None where the API could not tell.
    """

    prediction: Prediction
    warnings: list[str]
    explained: Explained | None = None
    stored: StoredFeedback | None = None
    error: ServiceError | None = None


def page() -> None:
    """Draw the page."""
    api = connections.model_api()
    (place,) = heading("Predict", "Ask the model in production, and tell it afterwards what was true.")
    try:
        in_service = api.models()
        if not in_service.models:
            _no_model(in_service.registry.error)
            return
        with place:
            name = choose_model([model.name for model in in_service.models], lambda: in_service.default)
        info = api.model(name)
    except ServiceError as error:
        show_error(error)
        return
    _warn_of_state(info)
    left, right = st.columns([1, 1], gap="large")
    with left:
        st.subheader("Features", anchor=False)
        _ask(api, info)
        ask_for_file(api, info)
    with right:
        st.subheader("Answer", anchor=False)
        _show_answer(api, info)


def _no_model(registry_error: str) -> None:
    if registry_error:
        show_error(ServiceError(f"No model is in service, and the API cannot reach MLflow: {registry_error}"))
        return
    st.info(
        "No model is in production yet. Train one with `mlops train MODEL`; it is promoted if it is good enough.",
        icon=":material/info:",
    )


def _warn_of_state(info: ModelInfo) -> None:
    """Warn where the version in service is not the one in production, or may not be for long."""
    failure = info.last_failure
    version = escape_markdown(info.version)
    if failure and failure.version != info.version:
        st.warning(
            f"Version {escape_markdown(failure.version)} is in production but cannot be loaded: "
            f"{escape_markdown(failure.reason)}. Version {version} answers instead. "
            "Promote another version, or roll back, on the page Models.",
            icon=":material/warning:",
        )
    elif not info.registry.ok:
        st.warning(
            f"The API cannot reach MLflow, so it goes on with version {version}. "
            f"{escape_markdown(info.registry.error)}",
            icon=":material/warning:",
        )


def _key(info: ModelInfo) -> str:
    """Where the session keeps the last answer of the model."""
    return f"answer {info.name}"


def _ask(api: ModelApiClient, info: ModelInfo) -> None:
    """Show the form, and keep the answer when it was sent."""
    row = ask_for_row(info)
    if row is None:
        return
    empty = [feature.name for feature in info.features if row[feature.name] is None and feature.missing is None]
    try:
        if empty:
            raise ServiceError(f"Without a value: {', '.join(empty)}.", "Fill in every feature.")
        with st.spinner("Asking the model API"):
            prediction = api.predict(info.name, row)
    except ServiceError as error:
        st.session_state.pop(_key(info), None)
        show_error(error)
    else:
        warnings = [warn_of_unseen(feature, row[feature.name]) for feature in info.features]
        answer = Answer(prediction, [warning for warning in warnings if warning])
        with suppress(ServiceError), st.spinner("Asking why"):  # the answer stands without it
            answer.explained = api.explain(info.name, row)
        st.session_state[_key(info)] = answer


# -- the answer --------------------------------------------------------------------------------------------------


def _show_answer(api: ModelApiClient, info: ModelInfo) -> None:
    answer: Answer | None = st.session_state.get(_key(info))
    if answer is None:
        with st.container(border=True):
            st.markdown(":gray[Fill in the features and press **Predict**. They start at the training data's medians.]")
        return
    prediction = answer.prediction
    with st.container(border=True, key="answer", gap="xsmall"):
        st.caption(escape_markdown(info.target))
        st.title(_label_text(prediction.prediction), anchor=False)
        if prediction.probabilities:
            _probabilities(prediction.probabilities)
        st.caption(
            f"{escape_markdown(prediction.model)} version {escape_markdown(prediction.version)} · "
            f"{run_link(prediction.run_id)}"
        )
    if answer.explained and len(answer.explained.contributions) > 1:
        show_explanation(answer.explained, info)
    if answer.warnings:
        listed = "".join(f"\n- {escape_markdown(warning)}" for warning in answer.warnings)
        st.warning(
            f"Outside of what the model was trained on, so the answer may be a guess:\n{listed}",
            icon=":material/warning:",
        )
    _feedback(api, info, answer)


def _label_text(label: Label) -> str:
    """A label or value, for a place that reads Markdown."""
    if isinstance(label, bool | str):
        return escape_markdown(label)
    return escape_markdown(format_number(label))


def _probabilities(probabilities: dict[str, float]) -> None:
    top = sorted(probabilities.items(), key=lambda item: -item[1])[:SHOWN_BARS]
    frame = pd.DataFrame(top, columns=["class", "probability"])
    base = alt.Chart(frame).encode(
        y=alt.Y(
            "class:N", sort=list(frame["class"]), title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8)
        ),
        x=alt.X("probability:Q", scale=alt.Scale(domain=[0, 1.12]), title=None, axis=None),
        tooltip=["class", alt.Tooltip("probability:Q", format=".2%")],
    )
    bars = base.mark_bar(cornerRadius=3, height=16, color=BLUE)
    values = base.mark_text(align="left", dx=6, color=GRAY).encode(text=alt.Text("probability:Q", format=".1%"))
    chart = bars + values
    st.altair_chart(chart.properties(height=30 * len(top) + 10), alt="Probability of each class")
    if len(probabilities) > len(top):
        st.caption(f"The {len(top)} most probable of {len(probabilities)} classes.")


# -- feedback ----------------------------------------------------------------------------------------------------


def _feedback(api: ModelApiClient, info: ModelInfo, answer: Answer) -> None:
    """Ask for the true label, store it when it was sent, and show what came of it."""
    st.markdown(f"**What was the true {escape_markdown(info.target)}?**")
    label = _ask_for_label(info, f"truth {answer.prediction.prediction_id}")
    if label is not None:
        try:
            answer.stored, answer.error = api.feedback(answer.prediction.feedback_token or "", label), None
        except ServiceError as error:
            answer.error = error
    if answer.error:
        show_error(ServiceError(f"Not stored. {answer.error.what}", answer.error.cure))
    if answer.stored:
        st.success(_stored_text(answer.stored), icon=":material/check:")
    elif not answer.error:
        st.caption("It counts for the live accuracy, and training can learn from it.")


def _ask_for_label(info: ModelInfo, key: str) -> Label | None:
    """The label, once the visitor has sent it: by a button for each class, or a field and a button to send."""
    if info.task == "classification" and len(info.classes) <= SHOWN_BUTTONS:
        with st.container(horizontal=True):
            pressed = [label for label in info.classes if st.button(escape_markdown(label), key=f"{key} {label!r}")]
        return pressed[0] if pressed else None
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    value: Label | None
    if info.task == "regression":
        value = left.number_input("True value", value=None, key=key, label_visibility="collapsed", placeholder="number")
    else:
        value = left.selectbox(
            "True class", info.classes, index=None, key=key, label_visibility="collapsed", placeholder="class"
        )
    sent = right.button("Send", key=f"{key} send", width="stretch", disabled=value is None)
    return value if sent else None


def _stored_text(stored: StoredFeedback) -> str:
    label = _label_text(stored.label)
    if stored.correct is not None:
        return f"Stored: {label}. The prediction was {'right' if stored.correct else 'wrong'}."
    if stored.absolute_error is not None:
        return f"Stored: {label}. The prediction was off by {escape_markdown(format_number(stored.absolute_error))}."
    return f"Stored: {label}."
