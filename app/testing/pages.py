"""What the pages' tests share: pages that are run, and a real Prometheus."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from app.runtime.processes import START_SECONDS, ChildProcess, free_port, wait_for_url
from app.ui import elements

SCRIPT = "from app.ui.pages import {page}\n{page}.page()"


def open_page(page: str, model: str = "", **state: Any) -> AppTest:
    """Run a page as a new visitor who has chosen the model; whatever happens, it must not raise."""
    app = AppTest.from_string(SCRIPT.format(page=page), default_timeout=60)
    if model:
        app.session_state[elements.CHOICE] = model
    for key, value in state.items():
        app.session_state[key] = value
    return ran(app)


def ran(app: AppTest) -> AppTest:
    """Run the page again; whatever happens, it must not raise."""
    app.run()
    assert not app.exception, [item.value for item in app.exception]
    return app


def click(app: AppTest, label: str) -> AppTest:
    """Press the button with this label, and run the page again."""
    buttons = [button for button in app.button if button.label == label]
    assert buttons, f"no button {label!r}, there are: {[button.label for button in app.button]}"
    buttons[0].click()
    return ran(app)


def read(elements: Any) -> str:
    """What people read of these elements: Markdown's escapes are gone."""
    return "\n".join(re.sub(r"\\(.)", r"\1", str(element.value)) for element in elements)


@contextmanager
def prometheus(folder: Path, config: str, *, rules: str = "", history: str = "") -> Iterator[str]:
    """A Prometheus with this configuration; yields its URL.

    Args:
        folder: an empty one.
        config: prometheus.yml.
        rules: a rule file, which the configuration may name as rules.yml.
        history: samples from before its start, in the OpenMetrics format.
    """
    for program in ("prometheus", "promtool"):
        assert shutil.which(program), (
            f"{program} is not on PATH, and this needs a real one: `make test` builds it, in .tools/bin"
        )
    (folder / "prometheus.yml").write_text(config)
    (folder / "rules.yml").write_text(rules)
    if history:
        (folder / "history").write_text(history)
        create = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "-q", str(folder / "history")]
        result = subprocess.run([*create, str(folder / "data")], capture_output=True, text=True)  # noqa: S603
        assert result.returncode == 0, result.stderr
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--web.listen-address=127.0.0.1:{port}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", "--storage.tsdb.retention.time=100y"]
    server = ChildProcess("prometheus", command, {}, folder)
    try:
        assert wait_for_url(f"{url}/-/ready", START_SECONDS, lambda: server.ended), server.tail(40)
        yield url
    finally:
        server.stop()
