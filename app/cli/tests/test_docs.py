"""README and docs say what is so: links lead somewhere, targets and commands exist.

The shell commands themselves are run against a running demo by test_demo.py, the Python of the README by
flows/tests/test_train.py.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from app.cli.main import main
from app.testing.docs import ROOT, shell_commands

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
IMAGES = ROOT / "docs" / "images"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).is_file()]
    assert not missing


def test_make_targets_exist() -> None:
    targets = {name for page in PAGES for name in re.findall(r"`?\bmake ([a-z][a-z0-9-]+)", page.read_text())}
    assert {"demo", "test", "lock", "bench"} <= targets
    for target in targets - {"sure"}:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_commands_and_options_exist() -> None:
    commands = {line for page in PAGES for line in re.findall(r"`(mlops [^`]+)`", page.read_text())}
    commands |= {line for page in PAGES for line in shell_commands(page) if line.startswith("mlops ")}
    assert commands
    for line in commands:
        name, *words = line.split()[1:]
        command = main.commands.get(name)
        assert command, f"{line}: there is no command {name}"
        if isinstance(command, click.Group):
            group, name = command, words.pop(0)
            command = group.commands.get(name)
            assert command, f"{line}: there is no command {name}"
        known = {option for parameter in command.params for option in parameter.opts}
        assert isinstance(command, click.Command)
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, line


def test_no_download_address_is_recorded() -> None:
    tracked = subprocess.run(
        ["git", "grep", "-lIE", r"files\.pythonhosted|://pypi|registry\.npmjs|proxy\.golang"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert [name for name in tracked.stdout.split() if not name.endswith("test_docs.py")] == []
