import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.registry.reference import (
    OTHER,
    bucket_counts,
    bucket_labels,
    bucket_shares,
    categorical_reference,
    numeric_reference,
    psi,
)

shares = st.lists(st.floats(0, 1e6), min_size=2, max_size=20).filter(lambda values: sum(values) > 0)
numbers = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200)


@given(shares)
def test_psi_of_the_same_shares_is_zero(values: list[float]) -> None:
    assert psi(values, values) == 0


@given(st.data())
def test_psi_is_symmetric_finite_and_never_negative(data: st.DataObject) -> None:
    a = data.draw(shares)
    b = data.draw(st.lists(st.floats(0, 1e6), min_size=len(a), max_size=len(a)).filter(lambda v: sum(v) > 0))
    value = psi(a, b)
    assert math.isfinite(value)
    assert value >= 0
    assert value == pytest.approx(psi(b, a))


def test_psi_of_a_known_case() -> None:
    # (0.5-0.8) ln(0.5/0.8) + (0.5-0.2) ln(0.5/0.2)
    assert psi([0.8, 0.2], [0.5, 0.5]) == pytest.approx(0.3 * math.log(1.6) + 0.3 * math.log(2.5))


@pytest.mark.parametrize(
    ("expected", "actual"),
    [([0.5, 0.5], [1.0]), ([], []), ([0, 0], [1, 1]), ([1, 1], [0, 0]), ([1, -1], [1, 1]), ([1, math.nan], [1, 1])],
)
def test_psi_refuses_what_has_no_meaning(expected: list[float], actual: list[float]) -> None:
    with pytest.raises(ValueError, match="share"):
        psi(expected, actual)


@given(numbers)
def test_training_data_is_counted_as_the_reference_did(values: list[float]) -> None:
    reference = numeric_reference(values, "double")
    counts = bucket_counts(reference, values)
    assert (counts / len(values)).tolist() == reference.shares
    assert len(set(bucket_labels(reference))) == len(counts)


@given(st.lists(st.text(max_size=3), min_size=1, max_size=60))
def test_categories_and_the_rest_sum_to_one(values: list[str]) -> None:
    reference = categorical_reference(values, "string")
    assert sum(reference.shares) == pytest.approx(1)
    assert reference.categories[-1] == OTHER


def test_an_unknown_category_falls_into_other() -> None:
    reference = categorical_reference(["a", "a", "b"], "string")
    assert bucket_counts(reference, ["new", "b", "a", "new", "b", "newer"]).tolist() == [1, 2, 3]


def test_a_constant_feature_has_one_bucket() -> None:
    reference = numeric_reference([3.0] * 10, "double")
    assert reference.edges == []
    assert reference.shares == [1.0]
    assert bucket_labels(reference) == ["all"]


def test_missing_numbers_are_the_last_bucket() -> None:
    reference = numeric_reference([1.0, 2.0, None, float("nan")], "double", nullable=True)
    assert (reference.min, reference.max, reference.missing) == (1.0, 2.0, 0.5)
    assert sum(bucket_shares(reference)) == pytest.approx(1)
    assert bucket_labels(reference)[-1] == "(missing)"
    counts = bucket_counts(reference, [1.0, None, float("nan"), 5.0])
    assert counts.tolist()[-1] == 2
    assert counts.sum() == 4
    assert bucket_counts(reference, []).sum() == 0


def test_missing_text_is_the_last_bucket() -> None:
    reference = categorical_reference(["a", None, "b", float("nan"), "a"], "string", nullable=True)
    assert reference.categories == ["a", "b", "(other)"]
    assert bucket_shares(reference) == pytest.approx([0.4, 0.2, 0, 0.4])
    assert bucket_labels(reference) == ["a", "b", "(other)", "(missing)"]
    assert bucket_counts(reference, ["b", None, "new"]).tolist() == [0, 1, 1, 1]


def test_edges_of_dates_are_dates_as_exact_as_need_be() -> None:
    by_day = numeric_reference([20513.0 + i for i in range(100)], "datetime")
    assert bucket_labels(by_day)[0] == "<= 2026-03-10"
    assert bucket_labels(by_day)[-1] == "> 2026-05-29"
    by_minute = numeric_reference([20513.0 + i / 100 for i in range(100)], "datetime", nullable=True)
    assert bucket_labels(by_minute)[0] == "<= 2026-03-01 02:22"
    assert bucket_labels(by_minute)[-1] == "(missing)"


@given(numbers)
def test_labels_of_dates_differ_whatever_a_bundle_says(values: list[float]) -> None:
    reference = numeric_reference(values, "datetime")
    assert len(set(bucket_labels(reference))) == len(reference.shares)
