from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.prediction_id import InvalidPredictionId, Signer
from app.testing.model_api import SETOSA
from app.vocabulary import Label

signer = Signer(b"key")
text = st.text(st.characters(codec="utf-8"))


value = text | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


@given(model=text, features=st.dictionaries(text, value), prediction=value)
def test_what_goes_in_comes_out(model: str, features: dict, prediction: Label) -> None:
    record = signer.open(signer.make(model, "3", "classification", features, prediction))
    assert (record.model, record.version, record.task) == (model, "3", "classification")
    assert record.features == features
    assert record.prediction == prediction
    assert type(record.prediction) is type(prediction)


def test_another_key_does_not_open_it() -> None:
    token = signer.make("iris", "1", "regression", SETOSA, 1.5)
    assert Signer(b"key").open(token).prediction == 1.5
    with pytest.raises(InvalidPredictionId, match="altered"):
        Signer(b"other").open(token)


def test_no_altered_character_goes_unnoticed() -> None:
    token = signer.make("iris", "1", "classification", SETOSA, "setosa")
    for i, character in enumerate(token):
        with pytest.raises(InvalidPredictionId):
            signer.open(token[:i] + ("A" if character != "A" else "B") + token[i + 1 :])


@pytest.mark.parametrize(
    "change",
    [lambda t: t + "=", lambda t: t + "\n", lambda t: " " + t, lambda t: t[:-1], lambda t: t[:8] + "!" + t[8:]],
)
def test_no_other_spelling_is_taken(change) -> None:
    with pytest.raises(InvalidPredictionId):
        signer.open(change(signer.make("iris", "1", "classification", SETOSA, "setosa")))


@given(token=st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_nonsense_is_no_prediction_id(token: str) -> None:
    with pytest.raises(InvalidPredictionId):
        signer.open(token)
