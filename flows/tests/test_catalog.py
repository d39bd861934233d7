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
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    with pytest.raises(ModelFileError, match=reason):
        load_model("bad")
