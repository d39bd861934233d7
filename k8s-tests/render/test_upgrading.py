"""docs/upgrading.md has every part that is pinned, in the version that is in use, with a source for its support."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
import yaml
from chart import CHART, ROOT

from images.offline import images, tools

HEAD = "| part | version | supported until | moved in |"
CHART_VALUES = "the chart's values"


class Row(NamedTuple):
    """One line of the table. `parts` are the names in backticks: of images, programs and packages."""

    parts: list[str]
    version: str
    support: str
    moved: str


@cache
def table() -> list[Row]:
    lines = (ROOT / "docs/upgrading.md").read_text().splitlines()
    begin = lines.index(HEAD) + 2
    end = lines.index("", begin)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin:end]]
    return [Row(re.findall(r"`([^`]+)`", part), version, support, moved) for part, version, support, moved in cells]


def plain(tag: str) -> str:
    """A tag as the table has it: v3.16.0 is 3.16.0, trixie-20260101-slim is trixie."""
    return re.sub(r"^v|-slim$|-\d{8}(?=-|$)", "", tag)


def chart_images(values: Any) -> Iterator[tuple[str, str]]:
    """Name and tag of each image in a chart's values; those without a tag are our own."""
    if isinstance(values, dict):
        if values.get("tag"):
            yield values["repository"].rpartition("/")[2], str(values["tag"])
        for value in values.values():
            yield from chart_images(value)


def in_use() -> list[tuple[str, str, str]]:
    """Where a version is pinned, of what, and which."""
    pins = []
    for path in CHART.rglob("values.yaml"):
        pins += [(CHART_VALUES, *image) for image in chart_images(yaml.safe_load(path.read_text()))]
    pins += [("tools.toml", tool.name, tool.version) for tool in tools.load().values()]
    for dockerfile in ROOT.glob("images/*/Dockerfile"):
        for name, tag in re.findall(r"^FROM (?:\S+/)?(\w+):(\S+)", dockerfile.read_text(), re.MULTILINE):
            pins.append((str(dockerfile.relative_to(ROOT)), name, tag))
    pins += [("images.toml", "debian", image.suite) for image in images.load().values() if image.suite]
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE))
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    ours = {name: group for name, group in groups.items() if not name.startswith("bench-")}  # the API's peers are not
    wanted = [entry for group in ours.values() for entry in group if isinstance(entry, str)]
    held = {re.split(r"\W*[\[=<]", entry)[0] for entry in wanted if re.search(r"==|<", entry)}
    pins += [("requirements/dev.txt", name, locked[name]) for name in held]
    return sorted({(where, name, plain(version)) for where, name, version in pins})


@pytest.mark.parametrize(("where", "name", "version"), in_use())
def test_what_is_in_use_is_in_the_table(where: str, name: str, version: str) -> None:
    rows = [row for row in table() if name in row.parts]
    assert rows, f"docs/upgrading.md says nothing of {name} {version}, which {where} has: add a line"
    assert version in {row.version for row in rows}, f"docs/upgrading.md: {name} is not {version}, as {where} has it"


def test_there_is_something_to_compare() -> None:
    places = {where for where, _, _ in in_use()}
    assert {CHART_VALUES, "tools.toml", "images.toml", "requirements/dev.txt", "images/python/Dockerfile"} <= places
    assert len(in_use()) > 40


def test_nothing_in_the_table_is_out_of_use() -> None:
    known = {(name, version) for _, name, version in in_use()}
    for row in table():
        for name in row.parts:
            assert (name, row.version) in known, f"docs/upgrading.md: nothing uses {name} {row.version}"


@pytest.mark.parametrize("row", table(), ids=lambda row: "-".join(row.parts))
def test_a_line_names_its_source_and_the_place_to_change(row: Row) -> None:
    assert re.search(r"\]\(https://[^)]+\)", row.support), f"{row.parts}: no link to what upstream says"
    assert row.moved, f"{row.parts}: where is it moved?"
