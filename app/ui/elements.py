"""What stands on every page: the heading, the choice of the model, errors; and the colours of the charts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.clients.errors import ServiceError
from app.ui.formatting import escape_markdown

CHOICE = "chosen_model"
# readable on light and dark
BLUE, GRAY, PALE, GREEN, ORANGE, RED = "#2F6F9F", "#7B8794", "#A9B4C0", "#3E9B6E", "#D98E2B", "#C8503C"


def show_error(error: ServiceError) -> None:
    """Show what is wrong and what to do."""
    # the remedy is our own text, with `code` in it; the problem may quote what a service answered
    what = escape_markdown(error.what)
    st.error(f"{what}\n\n{error.cure}" if error.cure else what, icon=":material/error:")


def heading(title: str, description: str, choices: int = 1) -> list[DeltaGenerator]:
    """The heading of a page, with places on its right.

    Args:
        choices: how many places.

    Returns:
        the places, for what is chosen on the page, such as the model.
    """
    left, *places = st.columns([4 - choices, *[1] * choices], vertical_alignment="bottom")
    with left:
        st.title(title, anchor=False)
        st.caption(description)
    return places


def choose_model(names: Sequence[str], default: Callable[[], str | None]) -> str:
    """A selector of the model; what is chosen on one page is chosen on the others.

    Args:
        names: at least one.
        default: tells what is chosen at first, where it is one of the names.
    """
    options = list(names)
    start = st.session_state.get(CHOICE)
    if start not in options:
        start = default()
    if start not in options:
        start = options[0]
    chosen: str = st.selectbox("Model", options, index=options.index(start), key=f"model of {options}")
    st.session_state[CHOICE] = chosen
    return chosen
