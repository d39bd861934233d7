"""What a training makes of feedback, from rows alone; test_train.py has it with real servers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows import dataset
from flows.catalog import load_model
from flows.feedback import Feedback, FeedbackRefused, select
from flows.model import FeedbackRules, Gate, Model, ModelFileError

iris = load_model("iris")


def _flower(label: Any = "setosa", predicted: Any = "setosa", client: str = "app", **features: Any) -> dict[str, Any]:
    """A stored row of feedback on Iris, which is no row of the data."""
    row = {"sepal_length": 5.05, "sepal_width": 3.4, "petal_length": 1.5, "petal_width": 0.2}
    return {"client": client, "features": {**row, **features}, "label": label, "prediction": predicted}


def _counts() -> pd.DataFrame:
    """A regression's data of whole numbers, text and booleans."""
    n = np.arange(60)
    return pd.DataFrame({"rooms": n % 7, "street": [f"s{i % 3}" for i in n], "new": n % 2 == 0, "price": 100 + n})


homes = replace(iris, task="regression", target="price", load=_counts, gate=Gate("r2", 0.1), name="homes")


def _home(label: Any = 120.0, predicted: float = 121.0, **features: Any) -> dict[str, Any]:
    row = {"rooms": 8, "street": "s1", "new": True, **features}
    return {"client": "app", "features": row, "label": label, "prediction": predicted}


def _select(model: Model, rows: list[dict[str, Any]], trusted: bool = False) -> Feedback:
    training, held_out = dataset.split(model, model.load())
    return select(model, training, held_out, rows, trusted)


def _used(feedback: Feedback) -> pd.DataFrame:
    return pd.concat([feedback.training, feedback.comparison], ignore_index=True)


def _many(number: int, client: str = "app", start: int = 0, **values: Any) -> list[dict[str, Any]]:
    """Rows that differ in their sepal_length, which tells their age: the larger, the newer."""
    return [_flower(client=client, sepal_length=100.0 + start + i, **values) for i in range(number)]


def test_feedback_without_a_value_is_used_where_the_feature_may_lack_it() -> None:
    lenient = replace(iris, nullable=("petal_width",))
    absent = _flower(petal_width=None)
    del absent["features"]["petal_width"]
    used = _used(_select(lenient, [_flower(petal_width=None, sepal_width=9.0), absent]))
    assert used["petal_width"].isna().tolist() == [True, True]
    assert used["petal_width"].dtype == "float64"
    refused = _select(iris, [_flower(petal_width=None)])
    assert refused.left_out == {"petal_width should be double": 1}


@pytest.mark.parametrize(
    ("model", "row"),
    [(iris, _flower()), (iris, _flower(petal_width=1)), (iris, _flower(colour="red")), (homes, _home()),
     (homes, _home(rooms=9.0)), (homes, _home(label=130))],
)  # fmt: skip
def test_feedback_that_fits_or_can_be_cast_is_used_in_the_models_types(model: Model, row: dict[str, Any]) -> None:
    feedback = _select(model, [row])
    assert feedback.left_out == {}
    used, own = _used(feedback), model.load()
    assert len(used) == 1
    both = pd.concat([own, used], ignore_index=True)
    pd.testing.assert_frame_equal(dataset.validate(model, both).head(len(own)), own)


@pytest.mark.parametrize(
    ("model", "row", "reason"),
    [
        (iris, _flower(label="tulip"), "the label is no class of species any more"),
        (iris, _flower(label=True), "the label is no class of species any more"),
        (iris, _flower(petal_width="wide"), "petal_width should be double"),
        (iris, _flower(petal_width=None), "petal_width should be double"),
        (iris, _flower(petal_width=10**400), "petal_width should be double"),
        (iris, {**_flower(), "features": {"sepal_length": 5.0}}, "it has no sepal_width"),
        (homes, _home(label=120.5), "price should be long"),
        (homes, _home(label=2.0**70), "price should be long"),
        (homes, _home(rooms=3.5), "rooms should be long"),
        (homes, _home(rooms=True), "rooms should be long"),
        (homes, _home(street=5), "street should be string"),
        (homes, _home(new=1), "new should be boolean"),
    ],
)
def test_feedback_that_no_longer_fits_is_left_out_and_counted(model: Model, row: dict[str, Any], reason: str) -> None:
    good = _home() if model is homes else _flower()
    feedback = _select(model, [row, good, row])
    assert feedback.left_out == {reason: 2}
    assert len(_used(feedback)) == 1


def test_feedback_is_cast_to_the_models_types_whatever_its_source_has() -> None:
    """A CSV with whole numbers where the model has fractions does not keep fractions out."""
    whole = iris.load().assign(petal_width=lambda frame: frame["petal_width"].astype(int))
    training, held_out = dataset.split(iris, dataset.validate(iris, whole))
    assert _used(select(iris, training, held_out, [_flower()]))["petal_width"].tolist() == [0.2]


def test_no_feedback_is_no_rows() -> None:
    feedback = _select(iris, [])
    assert feedback.counts == {"feedback_rows": 0, "feedback_rows_to_compare": 0, "feedback_rows_left_out": 0}
    assert list(feedback.training.columns) == list(iris.load().columns)


def test_a_held_out_row_that_is_fed_back_is_not_trained_on() -> None:
    """Else whoever sees the held-out rows could teach the model to say there what they like."""
    _, held_out = dataset.split(iris, iris.load())
    row = {str(name): value for name, value in held_out.drop(columns="species").iloc[0].items()}
    feedback = _select(iris, [_flower(label="virginica", **row)])
    assert feedback.left_out == {"its features are those of a held-out row, which grades": 1}
    assert len(_used(feedback)) == 0


def test_feedback_is_at_most_its_share_of_what_is_trained_on_and_the_newest_of_it() -> None:
    training, held_out = dataset.split(iris, iris.load())
    feedback = _select(iris, _many(1000))
    assert len(feedback.training) == len(training) // 4
    assert len(feedback.comparison) == len(held_out)
    left_out = 1000 - len(training) // 4 - len(held_out)
    assert feedback.left_out == {
        "it is older than what makes up 20% of the training rows (feedback.max_share)": left_out
    }
    assert feedback.training["sepal_length"].min() > 100 + 1000 - 2 * len(feedback.training)
    half = replace(iris, feedback=FeedbackRules(max_share=0.5))
    assert len(_select(half, _many(1000)).training) == len(training)
    none = replace(iris, feedback=FeedbackRules(max_share=0.0))
    assert len(_select(none, _many(100)).training) == 0


def test_a_client_who_sends_much_takes_no_place_of_one_who_sends_little() -> None:
    quiet, loud = _many(16, client="quiet", start=10_000), _many(5000, client="loud")  # whose are all newer
    used = _used(_select(iris, [*quiet, *loud]))
    assert (used["sepal_length"] >= 10_000).sum() == 16


def test_what_is_compared_with_is_not_trained_on_and_stays_so() -> None:
    before, after = _select(iris, _many(30)), _select(iris, _many(50))
    assert 0 < len(before.comparison) < len(before.training)
    trained = set(after.training["sepal_length"])
    assert not trained & set(before.comparison["sepal_length"])


def test_a_client_who_contradicts_production_stops_the_training_until_a_person_has_looked() -> None:
    rows = [*_many(40, client="honest"), *_many(40, client="liar", start=500, label="virginica")]
    with pytest.raises(FeedbackRefused) as refusal:
        _select(iris, rows)
    assert "40 of the last 40 labels of the client 'liar' contradict what iris answered; more than 80%" in str(
        refusal.value
    )
    assert "honest" not in str(refusal.value)
    assert "mlops train iris --feedback --trust-feedback" in str(refusal.value)
    assert "virginica" in set(_used(_select(iris, rows, trusted=True))["species"])
    without = replace(iris, feedback=FeedbackRules(ignore=("liar",)))
    feedback = _select(without, rows)
    assert feedback.left_out["the model file ignores the client 'liar'"] == 40
    assert set(_used(feedback)["species"]) == {"setosa"}


@pytest.mark.parametrize(
    ("wrong", "right", "stops"), [(19, 0, False), (20, 0, True), (80, 20, False), (81, 19, True), (500, 900, True)]
)
def test_more_than_four_fifths_of_twenty_labels_or_more_have_to_contradict(wrong: int, right: int, stops: bool) -> None:
    """Of the newest 500."""
    rows = [*_many(right, start=500, client=""), *_many(wrong, label="virginica", client="")]
    if stops:
        judged = min(wrong + right, 500)
        with pytest.raises(FeedbackRefused, match=f"{wrong} of the last {judged} labels of clients without a key"):
            _select(iris, rows)
    else:
        assert len(_used(_select(iris, rows))) > 0


def test_a_value_contradicts_a_regression_when_it_is_far_off() -> None:
    spread = _counts()["price"].std()
    near = [_home(label=120 + i % 9, predicted=120 + 2.9 * spread, rooms=100 + i) for i in range(30)]
    assert len(_used(_select(homes, near))) > 0
    far = [_home(label=120, predicted=120 + 3.2 * spread, rooms=100 + i) for i in range(30)]
    with pytest.raises(FeedbackRefused, match="30 of the last 30 labels of the client 'app'"):
        _select(homes, far)


def test_rows_of_before_clients_had_names_are_those_of_clients_without_a_key() -> None:
    row = {key: value for key, value in _flower().items() if key != "client"}
    assert len(_used(_select(iris, [row]))) == 1
    ignoring = replace(iris, feedback=FeedbackRules(ignore=("",)))
    assert _select(ignoring, [row]).left_out == {"the model file ignores clients without a key": 1}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (FeedbackRules(max_share=1.0), "feedback.max_share is 1.0"),
        (FeedbackRules(max_share=-0.1), "feedback.max_share is -0.1"),
        (FeedbackRules(max_share=float("nan")), "feedback.max_share is nan"),
        (FeedbackRules(max_disagreement=1.5), "feedback.max_disagreement is 1.5"),
        (FeedbackRules(ignore="app"), r"feedback.ignore is 'app', not a tuple of names: \('app',\)"),  # type: ignore[arg-type]
    ],
)
def test_rules_that_cannot_be_kept_are_refused(rules: FeedbackRules, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        replace(iris, feedback=rules)
