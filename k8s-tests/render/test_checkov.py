"""checkov finds nothing in the manifests but what checkov.yaml explains."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from chart import ROOT, template
from profiles import PROFILES

LOCK = ROOT / "requirements" / "checkov.txt"
CONFIGURATION = Path(__file__).with_name("checkov.yaml")


@pytest.fixture(scope="module")
def checkov() -> Path:
    """The program, in an environment of its own under .tools, made once per lock."""
    folder = ROOT / ".tools" / f"checkov-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
        install = [uv, "pip", "sync", "-q", "--require-hashes", "--python", folder / "bin" / "python", LOCK]
        subprocess.run(install, check=True)
        (folder / "complete").touch()
    return folder / "bin" / "checkov"


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
