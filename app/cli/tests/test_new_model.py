"""`mlops new`: a table becomes a model file that trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.cli.errors import CommandError
from app.cli.new_model import examine, new_model
from app.testing.bucket import serving_bucket
from flows import dataset
from flows.catalog import load_model
from flows.train import fit

ROWS = 200


@pytest.fixture
def customers() -> pd.DataFrame:
    """Every kind of column; whether somebody leaves depends on the first two."""
    random = np.random.default_rng(0)
    age = random.integers(18, 80, ROWS).astype(float)
    plan = random.choice(["basic", "plus"], ROWS)
    frame = pd.DataFrame(
        {
            "id": np.arange(1, ROWS + 1),
            "name": [f"customer {i}" for i in range(ROWS)],
            "age": age,
            "plan": plan,
            "is new": random.random(ROWS) < 0.5,
            "country": "AT",
            "calls": random.integers(0, 9, ROWS),
            "leaves": np.where((age > 50) ^ (plan == "plus"), "yes", "no"),
        }
    )
    frame.loc[::7, "age"] = np.nan
    frame.loc[::11, "plan"] = None
    return frame


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path / "models"))
    return tmp_path / "models"


def made(folder: Path, frame: pd.DataFrame, target: str, name: str = "churn") -> list[str]:
    csv = folder.parent / "data.csv"
    frame.to_csv(csv, index=False)
    return list(new_model(name, str(csv), target, folder))


def test_a_table_becomes_a_model_that_trains(folder: Path, customers: pd.DataFrame) -> None:
    told = made(folder, customers, "leaves")
    assert told[0] == "200 rows, a classification of leaves"
    assert "numbers: age (some are missing), is new, calls" in told
    assert "categories: plan (some are missing)" in told
    assert [line for line in told if line.startswith("left out")] == [
        "left out: id, which counts the rows",
        "left out: name, which has 200 different values: a name, not a category",
        "left out: country, which has a single value",
    ]
    model = load_model("churn")
    rows = dataset.validate(model, model.load())
    assert list(rows) == ["age", "is new", "calls", "plan", "leaves"]
    assert set(model.nullable) == {"age", "plan"}
    assert 0.5 < model.gate.threshold < 1
    assert fit.fn(model, rows, 0).score(rows.drop(columns="leaves"), rows["leaves"]) > 0.9


def test_the_file_is_as_people_format_it(folder: Path, customers: pd.DataFrame) -> None:
    made(folder, customers.rename(columns={"calls": 'calls "in" a very long name ' + "x" * 80}), "leaves")
    ruff = [sys.executable, "-m", "ruff"]
    path = str(folder / "churn.py")
    for command in (
        ["check", "--isolated", "--select", "E4,E7,E9,F,I"],
        ["format", "--isolated", "--check", "--line-length", "120"],
    ):
        done = subprocess.run([*ruff, *command, path], capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{Path(path).read_text()}"


def test_a_table_in_s3_becomes_a_model_that_reads_it_there(
    folder: Path, customers: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_bucket(monkeypatch) as bucket:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bucket.server_port}")
        bucket.objects["customers.csv"] = customers.to_csv(index=False).encode()
        told = list(new_model("churn", "s3://bucket/customers.csv", "leaves", folder))
        assert told[0] == "200 rows, a classification of leaves"
        assert len(load_model("churn").load()) == ROWS


def test_numbers_are_a_regression(folder: Path, customers: pd.DataFrame) -> None:
    frame = customers.drop(columns="leaves").assign(price=np.linspace(1, 1000, ROWS))
    told = made(folder, frame, "price")
    assert told[0] == "200 rows, a regression of price"
    assert load_model("churn").gate.metric == "rmse"
    assert load_model("churn").gate.threshold > 0


def test_dates_are_found_and_are_numbers(folder: Path, customers: pd.DataFrame) -> None:
    joined = pd.Series(pd.date_range("2020-01-01", periods=ROWS, freq="11D").astype("str"))
    last = joined.where(np.arange(ROWS) % 5 > 0) + "T10:00:00Z"
    frame = customers.drop(columns=["age", "plan"]).assign(joined=joined, last_order_at=last)
    told = made(folder, frame.assign(leaves=np.where(joined > "2023-01-01", "yes", "no")), "leaves")
    assert "numbers: is new, calls, joined, last_order_at (some are missing)" in told
    assert "dates, which count as numbers: joined, last_order_at" in told
    model = load_model("churn")
    assert (model.dates, model.nullable) == (("joined", "last_order_at"), ("last_order_at",))
    assert model.gate.threshold > 0.8
    with pytest.raises(CommandError, match="the target 'joined' is a date, which cannot be predicted"):
        examine(frame, "joined")


def test_few_whole_numbers_are_classes(customers: pd.DataFrame) -> None:
    assert examine(customers.assign(stars=np.arange(ROWS) % 5), "stars").task == "classification"
    assert examine(customers.assign(visits=np.arange(ROWS)), "visits").task == "regression"


def test_text_is_learned_by_its_words(folder: Path) -> None:
    random = np.random.default_rng(0)
    words = [" ".join(random.choice(["good", "fine", "the", "a", "house"], 6)) for _ in range(ROWS // 2)]
    words += [" ".join(random.choice(["bad", "dirty", "the", "a", "house"], 6)) for _ in range(ROWS // 2)]
    frame = pd.DataFrame(
        {"review": words, "stars": random.normal(size=ROWS), "liked": [True] * (ROWS // 2) + [False] * (ROWS // 2)}
    )
    frame.loc[3, "review"] = None
    told = made(folder, frame, "liked")
    assert "texts: review" in told
    assert load_model("churn").gate.threshold > 0.8


@pytest.mark.parametrize(
    ("change", "target", "message"),
    [
        (lambda f: f, "leave", "there is no column 'leave'; the columns are: id, name, age"),
        (lambda f: f.assign(leaves=f["leaves"].where(f.index > 2)), "leaves", "3 rows have no leaves"),
        (lambda f: f[["id", "leaves"]], "leaves", "no column is left to predict from"),
        (lambda f: f.head(20), "leaves", "20 rows, the model churn needs at least 50"),
        (lambda f: f.head(0), "leaves", ""),
    ],
)
def test_what_cannot_be_learned_leaves_no_file(
    folder: Path, customers: pd.DataFrame, change: Any, target: str, message: str
) -> None:
    with pytest.raises(CommandError) as refused:
        made(folder, change(customers), target)
    assert message in str(refused.value)
    assert not list(folder.glob("*.py"))


def test_a_name_that_is_taken_or_none_is_refused(folder: Path, customers: pd.DataFrame) -> None:
    made(folder, customers, "leaves")
    before = (folder / "churn.py").read_text()
    with pytest.raises(CommandError, match="is there already"):
        made(folder, customers, "leaves")
    assert (folder / "churn.py").read_text() == before
    with pytest.raises(CommandError, match="is no name of a model"):
        made(folder, customers, "leaves", name="Churn!")


def test_a_name_of_another_folder_is_taken(folder: Path, customers: pd.DataFrame) -> None:
    with pytest.raises(CommandError, match="there is a model iris already"):
        made(folder, customers, "leaves", name="iris")
    assert not list(folder.glob("*.py"))


def test_parquet_is_read_as_parquet(folder: Path, customers: pd.DataFrame) -> None:
    customers.to_parquet(folder.parent / "data.parquet")
    list(new_model("churn", str(folder.parent / "data.parquet"), "leaves", folder))
    assert len(load_model("churn").load()) == ROWS


def test_the_command_says_what_it_did(folder: Path, customers: pd.DataFrame) -> None:
    csv = folder.parent / "data.csv"
    customers.to_csv(csv, index=False)
    command = [sys.executable, "-m", "app.cli", "new", "churn", "--csv", str(csv), "--target", "leaves"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=180)
    assert done.returncode == 0, done.stderr
    assert f"wrote {folder / 'churn.py'}; next: mlops train churn" in done.stdout
    other = [*command[:4], "other", "--csv", "none.csv", "--target", "leaves"]
    missing = subprocess.run(other, capture_output=True, text=True, timeout=180)
    assert missing.returncode == 1
    assert "the source 'none.csv' cannot be read" in missing.stderr
