"""`mlops init`: a repository whose model trains and whose test passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli.main import main
from app.cli.new_repository import WINE
from app.testing.docs import ROOT, python_block
from flows.catalog import model_names
from flows.trial import trial


def test_its_model_passes_its_gate_and_so_says_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = CliRunner().invoke(main, ["init", str(tmp_path / "our-models")])
    assert made.exit_code == 0, made.output
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path / "our-models" / "models"))
    monkeypatch.setenv("MLOPS_EXAMPLES", "0")
    assert model_names() == ["wine"]
    tried = trial("wine")
    assert tried.passes
    assert tried.value > tried.baseline
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "our-models" / "tests")]
    result = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert "1 passed" in result.stdout, result.stdout + result.stderr


def test_its_model_is_that_of_the_readme() -> None:
    assert python_block(ROOT / "README.md") == WINE


def test_a_model_that_no_longer_passes_fails_its_test(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    assert CliRunner().invoke(main, ["init", str(folder)]).exit_code == 0
    wine = folder / "models" / "wine.py"
    wine.write_text(wine.read_text().replace("threshold=0.9", "threshold=1.1"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder / "tests")]
    result = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert "1 failed" in result.stdout, result.stdout + result.stderr


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    made = CliRunner().invoke(main, ["init", str(tmp_path)])
    assert made.exit_code == 1
    assert "README.md is there already" in made.output
    assert (tmp_path / "README.md").read_text() == "mine"
    assert not (tmp_path / "models").exists()
