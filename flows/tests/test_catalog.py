import os
import sys
from pathlib import Path

import pytest

from flows.catalog import load_model, model_names
from flows.model import ModelFileError


def test_the_models_of_the_repository_are_found() -> None:
    assert {"iris", "diabetes"} <= set(model_names())
    assert load_model("iris").description.startswith("Iris")


@pytest.mark.parametrize("name", ["rose", "", "../iris", "iris.py", "IRIS"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ModelFileError, match="diabetes, iris"):
        load_model(name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "defines no `model"),
        ("import nothing_like_it", "ModuleNotFoundError"),
        (
            "from flows.model import *; model = Model('clustering', 'y', None, None, Gate('r2', 1))",
            "task is 'clustering'",
        ),
        (
            "from flows.model import *; model = Model('regression', 'y', None, None, Gate('auc', 1))",
            "gate.metric is 'auc'",
        ),
        ("model = ", "SyntaxError"),
        ("import sys; sys.exit(1)", "SystemExit"),
        (
            "from flows.model import *; model = Model('regression', 'y', None, None, Gate('r2', 1), schedule='daily')",
            "schedule is 'daily'",
        ),
        *(
            (f"from flows.model import *; model = Model('regression', 'y', None, None, Gate('r2', 1, {gate}))", reason)
            for gate, reason in {
                "min_shadow_rows=-1": "gate.min_shadow_rows is -1, not a whole number from 0",
                "min_shadow_rows=True": "gate.min_shadow_rows is True",
                "min_shadow_rows=9, max_disagreement=1.5": "gate.max_disagreement is 1.5, not a share from 0 to 1",
                "min_shadow_rows=9, max_disagreement=float('nan')": "gate.max_disagreement is nan",
                "max_disagreement=0.1": "counts from gate.min_shadow_rows on: set that, too",
            }.items()
        ),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    with pytest.raises(ModelFileError, match=reason):
        load_model("bad")


MODEL = """
from flows.model import Gate, Model

model = Model("regression", "y", load=None, estimator=None, gate=Gate("r2", {threshold}))
"""


def test_a_change_within_the_same_second_and_of_the_same_size_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    for threshold in (0.5, 0.6):
        (tmp_path / "house.py").write_text(MODEL.format(threshold=threshold))
        os.utime(tmp_path / "house.py", (1, 1))
        assert load_model("house").gate.threshold == threshold


def test_own_files_come_before_the_examples_which_may_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "iris.py").write_text(MODEL.format(threshold=0.5))
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    assert load_model("iris").task == "regression"
    assert "diabetes" in model_names()
    monkeypatch.setenv("MLOPS_EXAMPLES", "0")
    assert model_names() == ["iris"]


def test_a_model_file_imports_what_is_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_thresholds.py").write_text("HOUSE = 0.7")
    (tmp_path / "house.py").write_text("from _thresholds import HOUSE" + MODEL.format(threshold="HOUSE"))
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    monkeypatch.setattr("sys.path", [*sys.path])
    assert load_model("house").gate.threshold == 0.7
    assert "_thresholds" not in model_names()
