from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.testing.pages import read
from app.ui.__main__ import arguments
from app.ui.formatting import escape_label, format_number
from app.ui.links import run_url, version_url
from app.ui.pages.prediction_form import decimals
from app.ui.settings import UiSettings


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
    ("low", "high", "places"), [(4.3, 7.9, 2), (-0.1, 0.1, 3), (0, 300, 1), (0, 1e6, 1), (1.0, 1.0, 2), (0, 1e-30, 10)]
)
def test_decimals_fit_the_range(low: float, high: float, places: int) -> None:
    assert decimals(low, high) == places


def test_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_UI_PORT", "9000")
    made = arguments(UiSettings(), ["--server.port=9001"])
    assert made[:2] == ["run", made[1]]
    assert made[1].endswith("app/ui/main.py")
    assert "--server.address=127.0.0.1" in made
    assert "--browser.gatherUsageStats=false" in made
    assert made.index("--server.port=9000") < made.index("--server.port=9001")


def test_links_go_where_the_browser_can_reach_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert run_url("a/b") == "http://mlflow:5000/#/runs/a%2Fb"
    monkeypatch.setenv("MLOPS_MLFLOW_PUBLIC_URL", "http://mlflow.localhost:8080/")
    assert version_url("iris", "3") == "http://mlflow.localhost:8080/#/models/iris/versions/3"


def test_the_app_starts_with_its_first_page(served: Any) -> None:
    app = AppTest.from_file("../main.py", default_timeout=60).run()
    assert not app.exception
    assert read(app.title) == "Predict"
