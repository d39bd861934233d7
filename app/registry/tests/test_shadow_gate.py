"""The check `shadow` of the gate with real versions, and the challenges that it begins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sklearn.dummy import DummyClassifier

from app.clients.mlflow import CHALLENGER, PRODUCTION, MlflowClient
from app.registry import shadow_record
from app.registry.challenger import challenge, end_challenge, shadow_of
from app.registry.ledger import SEQUENCE_TAG, Decision
from app.registry.promotion import history, promote, rollback
from app.registry.shadow_record import Beside, ShadowCounts
from app.testing.definitions import IRIS
from app.vocabulary import Definition

GATE: dict[str, Any] = {"min_shadow_rows": 100, "max_disagreement": 0.05}
WITH_SHADOW = replace(IRIS, gate=replace(IRIS.gate, **GATE))


@pytest.fixture
def model(registry: MlflowClient, name: str, new_version: Any) -> str:
    """Version 1 in production, and version 2."""
    new_version()
    assert promote(registry, name, definition=WITH_SHADOW, who="ada").outcome == "promoted", "nothing to compare with"
    new_version(**GATE)
    return name


def ask(registry: MlflowClient, model: str, version: str = "2", definition: Definition = WITH_SHADOW) -> Decision:
    return promote(registry, model, version, definition=definition, who="ada")


def count(registry: MlflowClient, model: str, production: str = "1", **counts: int) -> None:
    """A replica of the API has counted so much of version 2."""
    beside = Beside(model, "2", production, registry.model(model).tags[SEQUENCE_TAG])
    run = shadow_record.begin(registry, beside, "a replica")
    shadow_record.write(registry, run, ShadowCounts(**counts), ShadowCounts())


def test_a_version_that_lacks_rows_alone_becomes_the_challenger(registry: MlflowClient, model: str) -> None:
    decision = ask(registry, model)
    assert (decision.outcome, decision.check) == ("refused", "shadow")
    assert decision.reason == (
        "it has got 0 of the 100 rows of version 1 that the gate asks for in the shadow; it is the challenger now; "
        f"promote it when it has seen them: mlops promote {model} --version 2"
    )
    assert shadow_of(registry.model(model)) == ("2", 1.0)
    begin = history(registry, model)[1]
    assert (begin.action, begin.outcome, begin.version, begin.previous) == ("challenge", "started", "2", "1")
    assert (begin.who, begin.why) == ("ada", "it lacks nothing but rows in the shadow to be promoted")

    challenge(registry, model, "2", 0.5)
    count(registry, model, agree=40)
    count(registry, model, agree=30, failed=2)  # of another replica
    count(registry, model, production="7", agree=1000)
    decision = ask(registry, model)
    assert decision.reason.startswith("it has got 72 of the 100 rows")
    assert "; it is the challenger; promote it" in decision.reason
    assert decision.metrics["shadow_rows"] == 72
    assert shadow_of(registry.model(model)) == ("2", 0.5), "it goes on as it was"

    count(registry, model, agree=28)
    decision = ask(registry, model)
    assert decision.outcome == "promoted", decision.reason
    assert "it disagrees with version 1 on 2.00% of 100 rows in the shadow (2 of which it failed on)" in decision.reason
    assert decision.metrics["shadow_disagreement"] == 0.02
    assert registry.version_by_alias(model, CHALLENGER) is None
    back = rollback(registry, model, who="ada")
    assert (back.outcome, back.version) == ("promoted", "1"), "a rollback is not asked for rows"
    assert shadow_of(registry.model(model)) is None


def test_a_version_that_disagrees_is_refused_with_the_figures(registry: MlflowClient, model: str) -> None:
    count(registry, model, agree=150, disagree=50)
    decision = ask(registry, model)
    assert (decision.outcome, decision.check) == ("refused", "shadow")
    assert decision.reason == "it disagrees with version 1 on 25.00% of 200 rows in the shadow, allowed are 5.00%"
    assert shadow_of(registry.model(model)) is None
    assert registry.version_by_alias(model, PRODUCTION).version == "1"  # type: ignore[union-attr]
    assert ask(registry, model, definition=IRIS).outcome == "promoted", "by a gate that asks for no rows"


def test_checking_another_version_ends_no_challenge(registry: MlflowClient, model: str, new_version: Any) -> None:
    challenge(registry, model, "2", 0.5, who="grace", why="is it calmer?")
    new_version(DummyClassifier(strategy="most_frequent"))
    decision = ask(registry, model, "3")
    assert decision.check == "threshold", "what fails another check is not tried in the shadow"
    assert shadow_of(registry.model(model)) == ("2", 0.5)
    new_version()
    assert ask(registry, model, "4").check == "shadow"
    assert shadow_of(registry.model(model)) == ("4", 1.0)
    count(registry, model, agree=5)
    end_challenge(registry, model, who="grace", why="enough")
    end_challenge(registry, model, who="grace", why="there is none")
    entries = [(d.outcome, d.version, d.who, d.why) for d in history(registry, model) if d.action == "challenge"]
    assert [entries[0], entries[2]] == [("ended", "4", "grace", "enough"), ("started", "2", "grace", "is it calmer?")]
    assert len(entries) == 3
    assert "in place of version 2" in history(registry, model)[2].reason


def test_a_challenge_that_a_promotion_ended_is_not_taken_up_by_a_later_check(
    registry: MlflowClient, model: str
) -> None:
    challenge(registry, model, "2", 1.0)
    assert ask(registry, model, definition=IRIS).outcome == "promoted"
    rollback(registry, model, who="ada")
    stricter = replace(IRIS, gate=replace(IRIS.gate, threshold=1.0))
    assert ask(registry, model, definition=stricter).check == "threshold"
    assert registry.version_by_alias(model, CHALLENGER).version == "2"  # type: ignore[union-attr]
    assert shadow_of(registry.model(model)) is None
