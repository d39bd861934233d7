from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from app.testing.pages import read
from app.ui.formatting import escape_label, format_number, format_window


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.9211, "0.9211"),
        (1.0, "1"),
        (53.5469, "53.55"),
        (1234.5, "1,234.5"),
        (12345.6, "12,346"),
        (0.0, "0"),
        (2e-7, "2e-07"),
    ],
)
def test_numbers_are_short(value: float, expected: str) -> None:
    assert format_number(value) == expected


@pytest.mark.parametrize("text", ["*a* [b](c)", ":red[x] $y$", "a_b <i>", "line\nline", "`code`", "# head"])
def test_nothing_of_others_is_markdown(text: str) -> None:
    def script(text: str) -> None:
        import streamlit as st

        from app.ui.formatting import escape_markdown

        st.markdown(escape_markdown(text))

    app = AppTest.from_function(script, args=(text,)).run()
    assert read(app.markdown) == " ".join(text.split())
    assert all(f"\\{c}" in app.markdown[0].value for c in "*[]:$<`#" if c in text)


def test_labels_keep_ordinary_names_as_they_are() -> None:
    assert escape_label("sepal_length (cm): x") == "sepal_length (cm): x"
    assert escape_label("_a_ *b* [c]") == r"\_a\_ \*b\* \[c\]"


@pytest.mark.parametrize(
    ("window", "expected"), [("1h", "the last hour"), ("30m", "the last 30 minutes"), ("1h30m", "the last 1h30m")]
)
def test_windows_in_words(window: str, expected: str) -> None:
    assert format_window(window) == expected
