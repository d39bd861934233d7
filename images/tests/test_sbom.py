"""The bill of materials of an image: what is installed in it, with hashes and licences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from images import build, sbom, sbom_inside
from images.offline.steps import Failure

STATUS = """\
Package: zlib1g
Status: install ok installed
Architecture: amd64
Source: zlib (1:1.3.dfsg-4)
Version: 1:1.3.dfsg+really1.3.1-1+b1
Description: library
 Package: not this

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2026b-0+deb13u1
"""
COPYRIGHT = "Format: https://www.debian.org/...\n\nFiles: *\nLicense: Zlib\n\nFiles: a\nLicense: MIT\n\nLicense: MIT\n"


@pytest.fixture
def packages(tmp_path: Path) -> list[dict[str, Any]]:
    """Debian's packages of a made-up image: one with a copyright file that programs can read, one with another."""
    (tmp_path / "status").write_text(STATUS)
    for name, text in (("zlib1g", COPYRIGHT), ("tzdata", "This is in the public domain.\nLicense: none\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "copyright").write_text(text)
    return list(sbom_inside.debian(tmp_path / "status", tmp_path))


def installed(name: str) -> Iterator[dict[str, Any]]:
    """What of this machine's Python packages the image has, too: the development lock has the images' versions."""
    locks = sbom.locked(name)
    return (found for found in sbom_inside.python() if (found["name"], found["version"]) in locks)


def test_debian_s_packages_have_version_source_and_licences(packages: list[dict[str, Any]]) -> None:
    assert [package["name"] for package in packages] == ["zlib1g", "tzdata"]
    zlib, tzdata = (sbom.debian_component(package) for package in packages)
    assert zlib["purl"] == "pkg:deb/debian/zlib1g@1%3A1.3.dfsg%2Breally1.3.1-1%2Bb1?arch=amd64&upstream=zlib"
    assert [entry["license"]["name"] for entry in zlib["licenses"]] == ["MIT", "Zlib"]
    assert "licenses" not in tzdata


@pytest.mark.parametrize("name", build.names())
def test_the_document_has_the_form_that_tools_read(name: str, packages: list[dict[str, Any]]) -> None:
    inside = {"debian": packages, "python": list(installed(name))}
    made = sbom.document(name, inside)
    assert made == sbom.document(name, inside), "the same image is the same document"
    assert (made["bomFormat"], made["specVersion"], made["version"]) == ("CycloneDX", "1.6", 1)
    assert made["serialNumber"].startswith("urn:uuid:")
    about = made["metadata"]["component"]
    assert (about["type"], about["name"], about["version"]) == ("container", f"mlops/{name}", build.content_tag(name))
    references = [component["bom-ref"] for component in made["components"]]
    assert len(references) == len(set(references)) > 20
    for component in made["components"]:
        assert component["type"] == "library"
        assert component["name"]
        assert component["version"]
        assert component["purl"].startswith(("pkg:pypi/", "pkg:deb/debian/"))
        if component["purl"].startswith("pkg:pypi/"):
            assert component["hashes"], component["name"]
            assert all(len(entry["content"]) == 64 for entry in component["hashes"])
        for entry in component.get("licenses", []):
            assert entry.get("expression") or entry["license"]["name"]
    python = [component for component in made["components"] if component["purl"].startswith("pkg:pypi/")]
    without = [component["name"] for component in python if "licenses" not in component]
    assert len(without) < len(python) / 10, without


def test_serial_numbers_tell_images_apart() -> None:
    inside: dict[str, list[dict[str, Any]]] = {"debian": [], "python": []}
    assert len({sbom.document(name, inside)["serialNumber"] for name in build.names()}) == len(build.names())


def test_a_package_that_no_lock_has_is_named() -> None:
    foreign = {"name": "left-pad", "version": "1.0", "expression": "", "licences": []}
    with pytest.raises(Failure, match=r"mlops/api:.* has left-pad 1.0, which its locks do not have: `make images`"):
        sbom.document("api", {"debian": [], "python": [foreign]})
