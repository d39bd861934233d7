"""Which rows are held out, and the folds of a cross-validation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.vocabulary import Gate
from flows import dataset
from flows.catalog import load_model
from flows.evaluate import evaluate
from flows.feedback import select
from flows.model import GroupSplit, Model, ModelFileError, TimeSplit
from flows.report import Training, markdown
from flows.sources import DatasetError

ROWS = 400


def orders(rows: int = ROWS) -> pd.DataFrame:
    """Orders of customers over time; every customer has about ten."""
    random = np.random.default_rng(0)
    amount = random.normal(size=rows)
    return pd.DataFrame(
        {
            "amount": amount,
            "ordered": pd.Timestamp("2026-01-01") + pd.to_timedelta(random.permutation(rows), unit="h"),
            "customer": [f"c{number % (rows // 10)}" for number in range(rows)],
            "returned": np.where(amount + random.normal(size=rows) / 4 > 0, "yes", "no"),
        }
    )


def model_of(frame: pd.DataFrame, **fields: Any) -> Model:
    return replace(load_model("iris"), target="returned", load=lambda: frame, **fields)


by_time = model_of(orders().drop(columns="customer"), split=TimeSplit("ordered"))
by_customer = model_of(orders().drop(columns="ordered"), split=GroupSplit("customer"))


def split(model: Model, frame: pd.DataFrame | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    return dataset.split(model, dataset.validate(model, model.load() if frame is None else frame))


def amounts(rows: pd.DataFrame) -> set[float]:
    return set(rows["amount"])


# -- by time


def test_the_newest_rows_are_held_out_and_the_time_is_no_feature() -> None:
    training, held_out = split(by_time)
    assert list(training) == list(held_out) == ["amount", "returned"]
    assert (len(training), len(held_out)) == (300, 100)
    newest = by_time.load().nlargest(100, "ordered")
    assert amounts(held_out) == amounts(newest)


def test_rows_of_one_time_are_on_one_side() -> None:
    days = by_time.load().assign(ordered=lambda f: f["ordered"].dt.floor("4D"))
    training, held_out = split(by_time, days)
    sides = [set(days.loc[days["amount"].isin(side["amount"]), "ordered"]) for side in (training, held_out)]
    assert max(sides[0]) < min(sides[1])
    assert 60 <= len(held_out) <= 140


def test_text_and_datetimes_and_time_zones_are_the_same_times() -> None:
    frame = by_time.load()
    expected = dataset.validate(by_time, frame)
    text = frame.assign(ordered=frame["ordered"].map(lambda time: time.isoformat() + "Z"))
    vienna = frame.assign(ordered=frame["ordered"].dt.tz_localize("UTC").dt.tz_convert("Europe/Vienna"))
    for same in (text, vienna):
        pd.testing.assert_frame_equal(dataset.validate(by_time, same), expected)
        assert dataset.fingerprint(dataset.validate(by_time, same)) == dataset.fingerprint(expected)


def test_days_as_a_database_gives_them_are_times() -> None:
    dates = by_time.load().assign(ordered=lambda f: f["ordered"].dt.date)
    _, held_out = split(by_time, dates)
    assert 80 <= len(held_out) <= 120


def test_a_number_may_tell_the_time_and_be_a_feature() -> None:
    frame = by_time.load().assign(ordered=np.arange(ROWS))
    model = model_of(frame, split=TimeSplit("ordered", is_feature=True))
    training, held_out = split(model)
    assert list(training) == ["amount", "ordered", "returned"]
    assert training["ordered"].max() < held_out["ordered"].min()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: f.drop(columns="ordered"), "column 'ordered' is missing"),
        (lambda f: f.assign(ordered=f["ordered"].where(f.index != 7)), r"1 empty values \(NaN\), the first in row 7"),
        (lambda f: f.assign(ordered="soon"), "'ordered' has the value 'soon' in row 0"),
        (lambda f: f.assign(ordered=f["amount"] > 0), "'ordered' has the type bool"),
        (lambda f: f.assign(ordered=f["ordered"] - f["ordered"].min()), r"'ordered' has the value Timedelta\('7 days"),
        (lambda f: f.assign(ordered=f["amount"]), "'ordered' has the type float64, datetime64"),
        (lambda f: f.assign(ordered=f["ordered"].max()), "all rows have the same time in 'ordered'"),
        (
            lambda f: f.sort_values("ordered").assign(returned=["no"] * 300 + ["yes"] * 100),
            r"'yes' of 'returned' is in none of the 300 training rows of the split by time \(ordered\): take another",
        ),
        (
            lambda f: f.sort_values("ordered").assign(returned=["no", "yes"] * 150 + ["no"] * 100),
            "'yes' of 'returned' is in none of the 100 held-out rows",
        ),
    ],
)
def test_what_cannot_be_split_by_time_is_refused_with_the_reason(spoil: Any, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        split(by_time, spoil(by_time.load()))


def test_infinite_times_are_refused() -> None:
    frame = by_time.load().assign(ordered=np.arange(ROWS, dtype=float))
    model = model_of(frame, split=TimeSplit("ordered"))
    with pytest.raises(DatasetError, match=r"'ordered': infinite values \(row 3\)"):
        split(model, frame.assign(ordered=frame["ordered"].where(frame.index != 3, np.inf)))


def test_a_column_that_load_lacks_is_named() -> None:
    with pytest.raises(DatasetError, match=r"load\(\) of iris gives no column 'when', which splits its rows"):
        split(replace(by_time, split=TimeSplit("when")))


# -- by group


def test_no_customer_is_on_both_sides_and_the_customer_is_no_feature() -> None:
    frame = by_customer.load()
    training, held_out = split(by_customer)
    assert list(training) == ["amount", "returned"]
    assert 0.1 < len(held_out) / ROWS < 0.4
    customers = [set(frame.loc[frame["amount"].isin(side["amount"]), "customer"]) for side in (training, held_out)]
    assert not customers[0] & customers[1]


def test_a_customer_never_changes_sides_however_the_data_grows() -> None:
    frame = by_customer.load()
    first = frame[frame["customer"].isin([f"c{number}" for number in range(15)])]
    training, held_out = split(by_customer, first)
    assert amounts(held_out) <= amounts(split(by_customer, frame)[1])
    assert amounts(training) <= amounts(split(by_customer, frame)[0])
    assert amounts(split(replace(by_customer, split_seed=1), frame)[1]) != amounts(split(by_customer, frame)[1])


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_some_of_few_groups_are_held_out_and_some_are_not(number: int, seed: int) -> None:
    frame = by_customer.load().assign(customer=np.arange(ROWS) // 7 % number)
    training, held_out = split(replace(model_of(frame, split=GroupSplit("customer")), split_seed=seed))
    assert len(training)
    assert len(held_out)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: f.assign(customer="c"), "all rows are of one group in 'customer'; at least 2"),
        (
            lambda f: f.assign(customer=f["customer"].where(f.index != 5)),
            "'customer', which splits the rows, has 1 empty",
        ),
        (lambda f: f.assign(customer=3), "'customer' has the type int64, string is needed"),
        (
            lambda f: f.assign(returned=np.where(f["customer"].isin(["c1", "c2"]), "yes", "no")),
            r"'yes' of 'returned' is in none of the .* by group \(customer\): take another holdout or split_seed",
        ),
    ],
)
def test_what_cannot_be_split_by_group_is_refused_with_the_reason(spoil: Any, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        split(by_customer, spoil(by_customer.load()))


def test_times_are_no_groups() -> None:
    with pytest.raises(
        DatasetError, match=r"'ordered' has the type datetime64.*; numbers, booleans and text can be groups"
    ):
        split(replace(by_time, split=GroupSplit("ordered")))


def test_feedback_fits_a_model_whose_rows_are_split_by_a_column() -> None:
    training, held_out = split(by_customer)
    row = {"features": {"amount": 7.0}, "label": "yes", "prediction": "yes"}
    selected = select(by_customer, training, held_out, [row], trusted=True)
    assert (len(selected.training) + len(selected.comparison), selected.left_out) == (1, {})


def test_a_large_group_is_told_of() -> None:
    frame = by_customer.load()
    model = model_of(
        frame.assign(customer=frame["customer"].where(frame.index > 250, "c0")), split=GroupSplit("customer")
    )
    for seed in range(20):
        training, held_out = split(model := replace(model, split_seed=seed))
        if len(held_out) > 250:
            break
    assert "held out, where holdout is 25%" in dataset.notes_on_split(model, training, held_out)[0]


# -- rows that are the same


def test_a_class_of_equal_rows_is_trained_on_and_told_of() -> None:
    frame = pd.concat([orders()[["amount", "returned"]], pd.DataFrame({"amount": [9.0] * 40, "returned": "lost"})])
    model = model_of(frame)
    training, held_out = split(model)
    assert (training["returned"] == "lost").sum() == 40
    assert set(held_out["returned"]) == {"yes", "no"}
    assert dataset.notes_on_split(model, training, held_out) == [
        "no row of the class 'lost' is held out, as all of its rows are the same: the metrics say nothing about it"
    ]
    estimator = model.estimator(0).fit(training[["amount"]], training["returned"])
    assert evaluate(model, estimator, held_out, 0).metrics["accuracy"] > 0.7


def test_a_class_of_nearly_equal_rows_is_not_wholly_held_out() -> None:
    frame = orders()[["amount", "returned"]]
    for seed in range(10):
        nearly = pd.DataFrame({"amount": [9.0] * 39 + [8.0], "returned": "lost"})
        training, held_out = split(model_of(pd.concat([frame, nearly]), split_seed=seed))
        assert (training["returned"] == "lost").any()
        assert (held_out["returned"] == "lost").any()


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_equal_rows_alone_are_refused(task: Any) -> None:
    frame = pd.DataFrame({"amount": 1.0, "returned": [1, 0] * 50})
    frame = frame if task == "classification" else frame.assign(returned=1)
    gate = load_model("iris" if task == "classification" else "diabetes").gate
    with pytest.raises(DatasetError, match="the same: none can be held out"):
        split(model_of(frame, task=task, gate=gate))


# -- folds


def folds(model: Model) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    return list(dataset.folds(model, dataset.validate(model, model.load())))


def test_folds_are_of_the_training_rows_and_each_is_tested_once() -> None:
    model = model_of(orders()[["amount", "returned"]], folds=5)
    training, held_out = split(model)
    made = folds(model)
    assert len(made) == 5
    tested = [amount for _, rows in made for amount in rows["amount"]]
    assert sorted(tested) == sorted(training["amount"])
    assert not set(tested) & amounts(held_out)


def test_folds_by_time_test_on_newer_rows() -> None:
    times = by_time.load().set_index("amount")["ordered"].dt.floor("12h")
    for fitted, tested in folds(
        model_of(times.reset_index().assign(returned=orders()["returned"]), folds=4, split=TimeSplit("ordered"))
    ):
        assert times[fitted["amount"]].max() < times[tested["amount"]].min()


def test_folds_by_group_have_no_customer_on_both_sides() -> None:
    customer = by_customer.load().set_index("amount")["customer"]
    for fitted, tested in folds(replace(by_customer, folds=3)):
        assert not set(customer[fitted["amount"]]) & set(customer[tested["amount"]])
        assert list(tested) == ["amount", "returned"]


def test_a_regression_has_folds_too() -> None:
    numbers = orders().assign(returned=np.arange(ROWS, dtype=float))
    fields = {"task": "regression", "gate": load_model("diabetes").gate, "folds": 3}
    for kind in (None, GroupSplit("customer"), TimeSplit("ordered")):
        apart = {"customer", "ordered"} - {kind.column if kind else ""}
        assert len(folds(model_of(numbers.drop(columns=list(apart)), split=kind, **fields))) == 3


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (replace(by_customer, folds=20, holdout=0.75), "groups in 'customer', too few for folds=20"),
        (
            model_of(
                by_time.load().assign(ordered=lambda f: f["ordered"].dt.floor("5D")),
                split=TimeSplit("ordered"),
                folds=9,
            ),
            "times in 'ordered', too few for folds=9",
        ),
        (
            model_of(orders()[["amount"]].assign(returned=["rare"] * 6 + ["no"] * 394), folds=10),
            "there are [45] training rows of the class 'rare' for folds=10; take fewer folds",
        ),
        (
            model_of(
                by_time.load().sort_values("ordered").assign(returned=["no"] * 200 + ["no", "yes"] * 100),
                split=TimeSplit("ordered"),
                folds=4,
            ),
            "fold 1 of 4 has no row of the class 'yes' to fit; take fewer folds",
        ),
    ],
)
def test_folds_that_cannot_be_are_refused_with_the_reason(model: Model, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        folds(model)


# -- the model file


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"split": "time"}, r"split is 'time', not TimeSplit\(\"column\"\), GroupSplit"),
        ({"split": TimeSplit("")}, "split.column is '', not the name of a column"),
        ({"split": GroupSplit(3)}, "split.column is 3, not"),  # type: ignore[arg-type]
        ({"split": GroupSplit("returned")}, "split.column is 'returned', which is the target"),
        ({"folds": 1}, "folds is 1, not a whole number from 2 to 20, or 0"),
        ({"folds": True}, "folds is True"),
        ({"folds": 2.5}, "folds is 2.5"),
        ({"folds": 21}, "folds is 21"),
    ],
)
def test_a_split_that_cannot_be_is_refused_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason):
        model_of(orders(), **fields)


# -- the report


def report(metrics: dict[str, float] | None = None, notes: list[str] | None = None, **fields: Any) -> str:
    model = replace(by_customer, name="shop", **fields)
    training, held_out = split(model)
    evaluation = evaluate(model, model.estimator(0).fit(training[["amount"]], training["returned"]), held_out, 0)
    return markdown(Training(model, 400, "x", evaluation, "1", "2", "3", None, False, metrics or {}, notes or []))


def test_the_report_has_folds_and_notes() -> None:
    text = report({"cv_accuracy_mean": 0.9, "cv_accuracy_std": 0.01}, ["no class"], folds=3)
    assert "Cross-validation on the training rows, 3 folds; the gate does not go by it." in text
    assert "| accuracy | 0.9000 | 0.0100 |" in text
    assert "held out by group (customer)" in text
    assert "**Note**: no class." in text


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({}, "Gate: accuracy 0.5, at most 0.0 worse than production."),
        ({"min_shadow_rows": 5000}, "worse than production; 5,000 rows in the shadow."),
        (
            {"min_shadow_rows": 5000, "max_disagreement": 0.1},
            "5,000 rows in the shadow, with another answer than production for at most 10% of them.",
        ),
    ],
)
def test_the_report_says_all_that_the_gate_wants(gate: dict[str, Any], said: str) -> None:
    assert said in report(gate=Gate("accuracy", 0.5, **gate))
