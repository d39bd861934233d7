from __future__ import annotations

from app.testing.pages import open_page, read
from app.ui.pages.alerts import runbook


def test_every_alert_has_a_section_under_its_anchor() -> None:
    app = open_page("alerts")
    assert read(app.title) == "Alerts"
    assert {heading.value: heading.anchor for heading in app.subheader} == {name: name.lower() for name in runbook()}
    for text in runbook().values():
        assert text in [element.value for element in app.markdown]


def test_nothing_of_the_installation_and_no_link_that_the_page_does_not_have() -> None:
    assert "ApiDown" in runbook()
    for text in runbook().values():
        assert "receivers" not in text
        assert "](" not in text
