from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.testing.pages import read
from app.ui.__main__ import arguments
from app.ui.settings import UiSettings


def test_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_UI_PORT", "9000")
    made = arguments(UiSettings(), ["--server.port=9001"])
    assert made[:2] == ["run", made[1]]
    assert made[1].endswith("app/ui/main.py")
    assert "--server.address=127.0.0.1" in made
    assert "--browser.gatherUsageStats=false" in made
    assert made.index("--server.port=9000") < made.index("--server.port=9001")


def test_the_app_starts_with_its_first_page(served: Any) -> None:
    app = AppTest.from_file("../main.py", default_timeout=60).run()
    assert not app.exception
    assert read(app.title) == "Predict"
