"""What is in each of the platform's images, for `make sbom`: a CycloneDX file per image, in sbom/.

Python packages with the hashes of the lock that they were installed from, Debian's with the version that dpkg has; both
with their licences, as far as they say them in a form that a program can read.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from images import build
from images.build import ROOT
from images.offline.steps import Failure
from images.registry import run

FOLDER = ROOT / "sbom"
INSIDE = ROOT / "images" / "sbom_inside.py"
Component = dict[str, Any]


def locked(name: str) -> dict[tuple[str, str], list[str]]:
    """(Package, version) -> its sha256 hashes, of all locks that an image and what it stands on are installed from."""
    packages: dict[tuple[str, str], list[str]] = {}
    locks = {source for image in build.with_parents([name]) for source in build.sources(image)}
    for lock in sorted(source for source in locks if source.startswith("requirements/")):
        for entry in re.split(r"^(?=\w)", (ROOT / lock).read_text(), flags=re.MULTILINE):
            pin = re.match(r"([\w.-]+)==(\S+)", entry)
            if pin:
                hashes = re.findall(r"--hash=sha256:(\w+)", entry)
                packages[re.sub(r"[-_.]+", "-", pin[1]).lower(), pin[2]] = hashes
    return packages


def python_component(found: dict[str, Any], hashes: list[str]) -> Component:
    """A Python package. The lock has the hash of each of its files; which one was installed depends on the machine."""
    purl = f"pkg:pypi/{found['name']}@{quote(found['version'], safe='')}"
    licences = [{"license": {"name": name}} for name in found["licences"]]
    return _component(found, purl, [{"expression": found["expression"]}] if found["expression"] else licences) | {
        "hashes": [{"alg": "SHA-256", "content": content} for content in hashes]
    }


def debian_component(found: dict[str, Any]) -> Component:
    """A package of Debian's."""
    purl = f"pkg:deb/debian/{quote(found['name'], safe='')}@{quote(found['version'], safe='')}"
    qualified = f"{purl}?arch={found['architecture']}&upstream={quote(found['source'], safe='')}"
    return _component(found, qualified, [{"license": {"name": name}} for name in found["licences"]])


def _component(found: dict[str, Any], purl: str, licences: list[dict[str, Any]]) -> Component:
    component = {"type": "library", "name": found["name"], "version": found["version"], "purl": purl, "bom-ref": purl}
    return component | ({"licenses": licences} if licences else {})


def document(name: str, inside: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The CycloneDX document of an image, the same for the same content.

    Args:
        name: of the image.
        inside: what images/sbom_inside.py prints in it.

    Raises:
        Failure: the image has a Python package in a version that no lock has.
    """
    locks = locked(name)
    foreign = [f"{p['name']} {p['version']}" for p in inside["python"] if (p["name"], p["version"]) not in locks]
    if foreign:
        raise Failure(f"{build.tag(name)} has {', '.join(sorted(foreign))}, which its locks do not have: `make images`")
    components = [python_component(found, locks[found["name"], found["version"]]) for found in inside["python"]]
    components += [debian_component(found) for found in inside["debian"]]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, build.key(name))}",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": f"mlops/{name}", "version": build.content_tag(name)}},
        "components": sorted(components, key=lambda component: component["purl"]),
    }


def write(name: str, folder: Path) -> str:
    """Write the file of an image that is built here; a line about it. Raises Failure, with what to do."""
    if not build.has(build.tag(name)):
        raise Failure(f"{build.tag(name)} is not built on this machine: `make images`")
    command = ["docker", "run", "--rm", "--interactive", "--network=none", build.tag(name), "python", "-"]
    made = document(name, json.loads(run(command, INSIDE.read_text())))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.cdx.json"
    path.write_text(json.dumps(made, indent=1) + "\n")
    named = sum("licenses" in component for component in made["components"])
    return f"{path.relative_to(folder.parent)}: {len(made['components'])} components, {named} with a licence"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m images.sbom", description="A CycloneDX file for each image.")
    parser.add_argument("names", nargs="*", help="images, by default all")
    names, known = parser.parse_args().names, build.names()
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"there is no image {', '.join(unknown)}; known are: {', '.join(known)}")
    try:
        for name in names or build.names():
            print(write(name, FOLDER))
    except Failure as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
