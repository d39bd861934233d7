"""The commands and the code of the Markdown pages, which tests run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def shell_commands(page: Path, fence: str = "sh") -> list[str]:
    """The lines of a Markdown page's sh blocks, which are for the demo; bash blocks are for Kubernetes."""
    blocks = re.findall(rf"```{fence}\n(.*?)```", page.read_text(), re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def python_block(page: Path) -> str:
    """The first python block of a Markdown page."""
    block = re.search(r"```python\n(.*?)```", page.read_text(), re.S)
    assert block, f"{page} has no python block"
    return block[1]
