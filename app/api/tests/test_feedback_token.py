from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.feedback_token import FeedbackTokens, InvalidFeedbackToken
from app.testing.model_api import SETOSA
from app.vocabulary import Label

tokens = FeedbackTokens(b"key")
text = st.text(st.characters(codec="utf-8"))
value = text | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


@given(model=text, features=st.dictionaries(text, value), prediction=value)
def test_what_goes_in_comes_out(model: str, features: dict, prediction: Label) -> None:
    record = tokens.open(tokens.make("id", model, "3", "classification", features, prediction))
    assert (record.prediction_id, record.model, record.version, record.task) == ("id", model, "3", "classification")
    assert record.features == features
    assert record.prediction == prediction
    assert type(record.prediction) is type(prediction)


def test_nobody_reads_the_features_in_it() -> None:
    token = tokens.make("id", "iris", "1", "classification", {"name": "Ada Lovelace"}, "setosa")
    raw = base64.urlsafe_b64decode(token + "==")
    assert b"Ada" not in raw
    assert b"setosa" not in raw


def test_another_key_does_not_open_it() -> None:
    token = tokens.make("id", "iris", "1", "regression", SETOSA, 1.5)
    assert FeedbackTokens(b"key").open(token).prediction == 1.5
    with pytest.raises(InvalidFeedbackToken, match="altered"):
        FeedbackTokens(b"other").open(token)


def test_no_altered_character_goes_unnoticed() -> None:
    token = tokens.make("id", "iris", "1", "classification", SETOSA, "setosa")
    for i, character in enumerate(token.rstrip("=")):
        with pytest.raises(InvalidFeedbackToken):
            tokens.open(token[:i] + ("A" if character != "A" else "B") + token[i + 1 :])


@pytest.mark.parametrize("change", [lambda t: t[:-5], lambda t: t[8:], lambda t: t + t])
def test_no_part_and_no_more_of_one_is_taken(change: Callable[[str], str]) -> None:
    with pytest.raises(InvalidFeedbackToken):
        tokens.open(change(tokens.make("id", "iris", "1", "classification", SETOSA, "setosa")))


@given(token=st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_nonsense_is_no_token(token: str) -> None:
    with pytest.raises(InvalidFeedbackToken):
        tokens.open(token)
