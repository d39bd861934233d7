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


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.is_file(), link
        assert not anchor or anchor in _anchors(target), link


def test_what_the_threat_model_names_is_shown_by_tests_that_exist() -> None:
    table = (ROOT / "docs" / "security.md").read_text().partition("## Threat model")[2].partition("\n## ")[0]
    names = set(re.findall(r"`([\w/-]*test_\w+\.py)`", table))
    assert len(names) >= 10
    tests = subprocess.run(["git", "ls-files", "*test_*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    missing = [name for name in names if not any(path.endswith(name) for path in tests.stdout.split())]
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
            if not words:
                continue  # all of its commands are meant
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
