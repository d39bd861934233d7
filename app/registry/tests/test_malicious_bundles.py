"""What an attacker may put into a bundle, and what becomes of it: a sentence, and nothing else."""

from pathlib import Path

import pytest

from app.registry.bundle import BundleError, read_bundle
from app.registry.predictor import load_predictor
from app.testing.malice import CASES, plant


@pytest.mark.parametrize("name", CASES)
def test_a_malicious_bundle_is_refused_by_name_of_file_and_reason(name: str, bundle_copy: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    plant(name, bundle_copy, canary)
    with pytest.raises(BundleError, match=CASES[name].says):
        load_predictor(read_bundle(bundle_copy))
    assert not canary.exists()
