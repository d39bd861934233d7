"""Prints what an image has installed, as JSON: for images/sbom.py, which runs this inside the image."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

STATUS = Path("/var/lib/dpkg/status")
DOCS = Path("/usr/share/doc")


def debian(status: Path = STATUS, docs: Path = DOCS) -> Iterator[dict[str, Any]]:
    """Name, version, architecture, source and licences of each installed package of Debian's.

    Licences are those that the package's copyright file names in Debian's machine-readable form; others name none.
    """
    for paragraph in status.read_text(errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.+)$", paragraph, re.MULTILINE))
        if not fields.get("Status", "").endswith(" installed"):
            continue
        copyright_file = docs / fields["Package"] / "copyright"
        text = copyright_file.read_text(errors="replace") if copyright_file.is_file() else ""
        licences = re.findall(r"^License: *(\S.*)$", text, re.MULTILINE) if text.startswith("Format:") else []
        yield {
            "name": fields["Package"],
            "version": fields["Version"],
            "architecture": fields["Architecture"],
            "source": str(fields.get("Source", fields["Package"])).split(" ")[0],
            "licences": sorted({licence.strip() for licence in licences}),
        }


def python() -> Iterator[dict[str, Any]]:
    """Name, version and licences of each installed Python package, as its metadata have them."""
    for found in metadata.distributions():
        about = found.metadata
        classified = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if "License ::" in line]
        # older packages have the whole text there
        short = [text for text in about.get_all("License") or [] if text and "\n" not in text and len(text) < 80]
        (expression,) = about.get_all("License-Expression") or [""]
        yield {
            "name": re.sub(r"[-_.]+", "-", about["Name"]).lower(),
            "version": found.version,
            "expression": expression,
            "licences": [] if expression else sorted(set(classified)) or short,
        }


if __name__ == "__main__":
    print(json.dumps({"debian": list(debian()), "python": list(python())}))
