"""The checks of the gate, from values alone; test_promotion.py has them with real versions."""

from __future__ import annotations

import math

import pytest

from app.registry.gate import Refused, TooFewRows, check_better, check_regression, check_shadow, check_threshold
from app.registry.shadow_record import ShadowCounts
from app.vocabulary import Gate

ACCURACY = Gate("accuracy", threshold=0.85, max_regression=0.02)
ERROR = Gate("rmse", threshold=70.0, max_regression=2.0)  # lower is better


@pytest.mark.parametrize(("gate", "value"), [(ACCURACY, 0.85), (ACCURACY, 0.9), (ERROR, 70.0), (ERROR, 1.0)])
def test_the_threshold_itself_is_good_enough(gate: Gate, value: float) -> None:
    assert check_threshold(gate, value) == f"{gate.metric} {value:.4f} passes the threshold {gate.threshold:.4f}"


@pytest.mark.parametrize(
    ("gate", "value", "side"), [(ACCURACY, 0.849, "below"), (ERROR, 70.1, "above"), (ACCURACY, math.nan, "below")]
)
def test_a_value_on_the_wrong_side_of_the_threshold_is_refused(gate: Gate, value: float, side: str) -> None:
    with pytest.raises(Refused, match=f"{value:.4f} is {side} the threshold") as refusal:
        check_threshold(gate, value)
    assert refusal.value.check == "threshold"


@pytest.mark.parametrize(("gate", "value", "production"), [(ACCURACY, 0.93, 0.94), (ERROR, 61.5, 60.0)])
def test_a_little_worse_than_production_passes_regression_and_not_better(
    gate: Gate, value: float, production: float
) -> None:
    assert check_regression(gate, value, production, "3").startswith(f"production's (version 3) {production:.4f}")
    with pytest.raises(Refused, match="nothing to gain") as refusal:
        check_better(gate, value, production, "3")
    assert refusal.value.check == "better"


@pytest.mark.parametrize(
    ("gate", "value", "production"),
    [(ACCURACY, 0.91, 0.94), (ERROR, 62.5, 60.0), (ACCURACY, math.nan, 0.9), (ACCURACY, 0.9, math.nan)],
)
def test_more_than_the_margin_worse_than_production_is_refused(gate: Gate, value: float, production: float) -> None:
    with pytest.raises(Refused, match="is worse than production's") as refusal:
        check_regression(gate, value, production, "3")
    assert refusal.value.check == "regression"


@pytest.mark.parametrize(("gate", "value", "production"), [(ACCURACY, 0.95, 0.94), (ERROR, 59.0, 60.0)])
def test_better_than_production_passes_both(gate: Gate, value: float, production: float) -> None:
    assert check_regression(gate, value, production, "3")
    assert "is better than production's" in check_better(gate, value, production, "3")


@pytest.mark.parametrize(
    ("gate", "value", "production", "fed_back"),
    [(ACCURACY, 0.94, 0.94, (0.9, 0.4)), (ACCURACY, 0.93, 0.94, (0.9, 0.4)), (ERROR, 61.0, 60.0, (50.0, 90.0))],
)
def test_as_good_as_production_and_better_on_feedback_is_a_gain(
    gate: Gate, value: float, production: float, fed_back: tuple[float, float]
) -> None:
    reason = check_better(gate, value, production, "3", fed_back)
    assert f"{fed_back[0]:.4f} on feedback is better than production's {fed_back[1]:.4f}" in reason


@pytest.mark.parametrize(
    ("fed_back", "value", "check"),
    [
        ((0.4, 0.4), 0.94, "better"),
        ((math.nan, 0.4), 0.94, "better"),
        ((0.9, math.nan), 0.94, "better"),
        ((1.0, 0.0), 0.91, "regression"),
    ],
)
def test_feedback_makes_up_for_nothing_that_the_held_out_rows_say(
    fed_back: tuple[float, float], value: float, check: str
) -> None:
    with pytest.raises(Refused) as refusal:
        check_better(ACCURACY, value, 0.94, "3", fed_back)
    assert refusal.value.check == check


SHADOW = Gate("accuracy", 0.85, min_shadow_rows=100, max_disagreement=0.05)


def test_enough_rows_in_the_shadow_and_few_that_differ_pass() -> None:
    reason = check_shadow(SHADOW, ShadowCounts(agree=95, disagree=5, dropped=50), "3")
    assert reason == "it disagrees with version 3 on 5.00% of 100 rows in the shadow, allowed are 5.00%"


def test_too_few_rows_in_the_shadow_are_told_from_too_many_that_differ() -> None:
    with pytest.raises(TooFewRows, match="it has got 99 of the 100 rows of version 3") as few:
        check_shadow(SHADOW, ShadowCounts(disagree=99, dropped=50), "3")
    assert few.value.check == "shadow"
    with pytest.raises(Refused, match=r"6\.00% of 100 rows in the shadow, allowed are 5\.00%") as differ:
        check_shadow(SHADOW, ShadowCounts(agree=94, disagree=6), "3")
    assert (differ.value.check, isinstance(differ.value, TooFewRows)) == ("shadow", False)


def test_a_row_that_it_failed_on_is_one_that_differs() -> None:
    with pytest.raises(Refused, match=r"6\.00% of 100 rows in the shadow \(5 of which it failed on\)"):
        check_shadow(SHADOW, ShadowCounts(agree=94, disagree=1, failed=5), "3")
