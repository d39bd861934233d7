"""What the strict loader knows is what the pinned versions of scikit-learn and skops have."""

import json
import zipfile
from pathlib import Path

from sklearn.utils import all_estimators
from skops import io as skops

from app.registry import trusted_types
from app.registry.skops_file import PROTOCOL


def test_the_estimators_are_those_of_the_pinned_scikit_learn() -> None:
    """A new version's new estimators are looked at before they are trusted: may their attributes name code or files?"""
    there = {f"{kind.__module__}.{kind.__name__}" for _, kind in all_estimators()}
    assert there - {"sklearn.cluster._birch.Birch"} == trusted_types.ESTIMATORS


def test_every_trusted_name_exists() -> None:
    for name in frozenset().union(*trusted_types.BY_NODE.values()):
        module, _, attribute = name.rpartition(".")
        assert hasattr(__import__(module, fromlist=[attribute]), attribute), name


def test_the_protocol_is_that_of_the_pinned_skops(tmp_path: Path) -> None:
    skops.dump([1], tmp_path / "x.skops")
    with zipfile.ZipFile(tmp_path / "x.skops") as archive:
        assert json.loads(archive.read("schema.json"))["protocol"] == PROTOCOL
