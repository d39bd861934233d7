from __future__ import annotations

import time
from itertools import pairwise

import pytest

from app.api.prediction_id import PredictionIds
from app.registry.prediction_id import model_digest


def test_an_id_tells_model_version_replica_and_time() -> None:
    before = int(time.time() * 1000)
    (made,) = PredictionIds("mlops-model-api-7d9f8c6b5-x7k2p").make(model_digest("iris"), "12", 1)
    model, version, replica, millis, _ = made.split(".")
    assert (model, version, replica) == (model_digest("iris"), "12", "x7k2p")
    assert before <= int(millis, 16) <= int(time.time() * 1000)


@pytest.mark.parametrize("host", ["a-very-long-name.of.some.host.example.com", "x", "É", "", None])
def test_an_id_has_at_most_40_characters(host: str | None) -> None:
    made = PredictionIds(host).make(model_digest("m" * 250), "9999999", 300)
    assert max(map(len, made)) <= 40
    assert all(part for name in made for part in name.split("."))


def test_no_two_are_equal() -> None:
    one, other = PredictionIds("a"), PredictionIds("a")
    made = [name for _ in range(50) for ids in (one, other) for name in ids.make("12345", "1", 100)]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("number", [1, 2, 255, 256, 257, 10_000])
def test_counts_follow_each_other(number: int) -> None:
    ids = PredictionIds("a")
    made = [name for _ in range(3) for name in ids.make("12345", "1", number)]
    counts = [int(name.rpartition(".")[2], 16) for name in made]
    assert [after - before for before, after in pairwise(counts)] == [1] * (3 * number - 1)
