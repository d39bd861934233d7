"""checkov finds nothing in the manifests but what checkov.yaml explains."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from chart import template
from profiles import PROFILES

from images import environments

CONFIGURATION = Path(__file__).with_name("checkov.yaml")


@pytest.fixture(scope="module")
def checkov() -> Path:
    """The program, in an environment of its own."""
    return environments.program("checkov")


def test_nothing_is_found_but_what_is_explained(checkov: Path, tmp_path: Path) -> None:
    rendered = tmp_path / "all.yaml"
    rendered.write_text(template({"backup": PROFILES["backup"]["backup"]}).stdout)
    # everything that is in this file, and nothing from the network
    command = [checkov, "--config-file", CONFIGURATION, "--file", rendered, "--skip-download", "--quiet", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 500, report["summary"]
    failed = [
        f"{check['check_id']} {check['resource']}: {check['check_name']}"
        for check in report["results"]["failed_checks"]
    ]
    assert not failed
