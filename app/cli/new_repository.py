"""`mlops init`: writes a repository for model files, with one model and a test of all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from app.cli.errors import CommandError

WINE = '''"""Wine: the grower of a wine from thirteen measurements."""

from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flows.model import Gate, Model


def load():
    bunch = load_wine(as_frame=True)
    return bunch.data.assign(grower=bunch.target_names[bunch.target])


def estimator(seed):
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed))


model = Model("classification", "grower", load, estimator, Gate("f1_macro", threshold=0.9))
'''
TEST = '''"""Every model of this repository trains on its own data and passes its gate."""

import os
from pathlib import Path

import pytest

os.environ["MLOPS_MODELS_PATH"] = str(Path(__file__).parents[1] / "models")
os.environ["MLOPS_EXAMPLES"] = "0"

from flows.catalog import model_names  # noqa: E402
from flows.trial import trial  # noqa: E402


@pytest.mark.parametrize("name", model_names())
def test_the_model_passes_its_gate(name: str) -> None:
    tried = trial(name)
    assert tried.passes, tried
'''
README = """# {title}

Model files for the MLOps platform: each file of `models/` is a model, named after the file. Files that begin with `_`
are no models; models import them by name.

On a laptop, from here to the folder of the platform, in which `make demo` was run once:

    export MLOPS_MODELS_PATH=$PWD/models
    cd ../mlops-platform
    .venv/bin/python -m pytest $MLOPS_MODELS_PATH/../tests
    make demo ARGS=wine

On Kubernetes the platform follows this repository:

    helm upgrade mlops charts/platform -n mlops --reset-then-reuse-values \\
      --set prefect-worker.models.git.url=https://git.example.com/team/models,prefect-worker.models.git.path=models

From then on a commit is all that a new model takes: within a minute `train/NAME` is on Prefect.
"""


def new_repository(folder: Path) -> Iterator[str]:
    """Write a model, a test and a README into a folder.

    Yields:
        what was written, and what comes next, a line each.

    Raises:
        CommandError: the folder has such files already.
    """
    models, tests = folder / "models", folder / "tests"
    files = {
        models / "wine.py": WINE,
        tests / "test_models.py": TEST,
        folder / "README.md": README.format(title=folder.resolve().name),
        folder / ".gitignore": "__pycache__/\n.pytest_cache/\n",
    }
    taken = [str(path) for path in files if path.exists()]
    if taken:
        raise CommandError(f"{', '.join(taken)} is there already", "take another folder, or add files to its models/")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        yield f"wrote {path}"
    yield f"next: export MLOPS_MODELS_PATH={models.resolve()}, then mlops train wine; `git init` and commit it"
