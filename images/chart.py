"""The images that the chart asks for, by its values; read without PyYAML, as `make push` needs no .venv."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHART = Path(__file__).resolve().parents[1] / "charts" / "platform"


@dataclass(frozen=True)
class Image:
    """An image by the chart's values; one without a registry is ours."""

    registry: str
    repository: str
    tag: str

    @property
    def reference(self) -> str:
        """The name by which it is pulled where no setting says otherwise."""
        return f"{self.registry}/{self.repository}:{self.tag}"


def images() -> dict[tuple[str, ...], Image]:
    """Place in the values, such as (monitoring, prometheus, image) -> the image, where it has a name."""
    found: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for path in sorted(CHART.glob("charts/*/values.yaml")):
        for (*above, last), value in scalars(path.read_text()):
            found[(path.parent.name, *above)][last] = value
    return {
        place: Image(entry["registry"], entry["repository"], entry["tag"])
        for place, entry in found.items()
        if entry.get("repository")
    }


def scalars(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Keys and value of every line of a values.yaml that has both; maps and lists on one line stay as they are."""
    above: list[tuple[int, str]] = []
    for spaces, key, value in re.findall(r"^( *)([\w-]+):(?: +(.*))?$", text, re.MULTILINE):
        while above and above[-1][0] >= len(spaces):
            above.pop()
        above.append((len(spaces), key))
        if value:
            yield tuple(name for _, name in above), re.sub(r"\s+#.*$", "", value).strip("\"'")
