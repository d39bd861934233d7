"""What the pages' tests share: pages that are run."""

from __future__ import annotations

import re
from typing import Any

from streamlit.testing.v1 import AppTest

from app.ui import show

SCRIPT = "from app.ui import {page}\n{page}.page()"


def open_page(page: str, model: str = "", **state: Any) -> AppTest:
    """Run a page as a new visitor who has chosen the model; whatever happens, it must not raise."""
    app = AppTest.from_string(SCRIPT.format(page=page), default_timeout=60)
    if model:
        app.session_state[show.CHOICE] = model
    for key, value in state.items():
        app.session_state[key] = value
    return ran(app)


def ran(app: AppTest) -> AppTest:
    """Run the page again."""
    app.run()
    assert not app.exception, [item.value for item in app.exception]
    return app


def click(app: AppTest, label: str) -> AppTest:
    """Press the button and run the page."""
    found = [button for button in app.button if button.label == label]
    assert found, f"no button {label!r}, there are: {[button.label for button in app.button]}"
    found[0].click()
    return ran(app)


def read(elements: Any) -> str:
    """What people read of these elements: Markdown's escapes are gone."""
    return "\n".join(re.sub(r"\\(.)", r"\1", str(element.value)) for element in elements)
