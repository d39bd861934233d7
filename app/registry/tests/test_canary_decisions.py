"""A canary starts through the gate, moves nothing, and ends by whatever moves production."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.dummy import DummyClassifier

from app.clients.mlflow import PRODUCTION, MlflowClient, MlflowError, NotFound, RegisteredModel
from app.registry import canary as canaries
from app.registry.canary import CANARY_TAG, canary_of
from app.registry.ledger import Decision, Ledger
from app.registry.promotion import history, promote, rollback
from app.testing.definitions import IRIS


@pytest.fixture
def production(registry: MlflowClient, name: str, new_version: Any) -> str:
    """A model with version 1 in production and a good version 2."""
    for _ in range(2):
        new_version()
    promote(registry, name, "1", definition=IRIS, who="ada")
    return name


def canary(registry: MlflowClient, name: str) -> tuple[str, float] | None:
    return canary_of(registry.model(name))


def start(registry: MlflowClient, name: str, version: str | None = None, share: float = 0.1, **more: Any) -> Decision:
    return promote(registry, name, version, definition=IRIS, who="ada", canary=share, **more)


def test_it_starts_moves_nothing_and_is_in_the_ledger(registry: MlflowClient, production: str) -> None:
    decision = start(registry, production, why="try it")
    assert (decision.action, decision.outcome, decision.version, decision.previous) == ("canary", "started", "2", "1")
    assert decision.reason.startswith("it answers 0.1 of the requests; ")
    assert canary(registry, production) == ("2", 0.1)
    assert registry.model(production).aliases[PRODUCTION] == "1"
    newest, first = history(registry, production)
    assert (newest.action, newest.outcome, newest.why) == ("canary", "started", "try it")
    assert newest.metrics["candidate_accuracy"] == decision.metrics["candidate_accuracy"]
    assert first.outcome == "promoted"
    assert start(registry, production, share=0.5).outcome == "started"
    assert canary(registry, production) == ("2", 0.5)


def test_its_promotion_ends_it(registry: MlflowClient, production: str) -> None:
    start(registry, production)
    assert promote(registry, production, "2", definition=IRIS, who="ada").outcome == "promoted"
    model = registry.model(production)
    assert (model.aliases[PRODUCTION], model.tags[CANARY_TAG], canary_of(model)) == ("2", "", None)


def test_what_moves_production_ends_it_and_what_does_not_leaves_it(
    registry: MlflowClient, production: str, new_version: Any
) -> None:
    new_version(DummyClassifier(strategy="most_frequent"))
    new_version()
    start(registry, production, "2")
    assert promote(registry, production, "3", definition=IRIS, who="ada").outcome == "refused"
    assert promote(registry, production, "1", definition=IRIS, who="ada").outcome == "unchanged"
    assert rollback(registry, production, who="ada").outcome == "refused"
    assert canary(registry, production) == ("2", 0.1)
    assert promote(registry, production, "4", definition=IRIS, who="ada").outcome == "promoted"
    assert canary(registry, production) is None
    start(registry, production, "2")
    assert rollback(registry, production, who="ada").outcome == "promoted"
    assert canary(registry, production) is None


def test_it_is_ended_by_command(registry: MlflowClient, production: str) -> None:
    with pytest.raises(
        MlflowError, match=f"has no canary: `mlops promote {production} --version VERSION --canary 0.1`"
    ):
        canaries.end(registry, production, who="ada")
    start(registry, production)
    decision = canaries.end(registry, production, who="eve", why="slow")
    assert (decision.action, decision.outcome, decision.version) == ("canary", "ended", "2")
    assert decision.reason == "version 1 answers the share of 0.1 again"
    assert canary(registry, production) is None
    newest = history(registry, production)[0]
    assert (newest.outcome, newest.who, newest.why) == ("ended", "eve", "slow")
    with pytest.raises(NotFound, match="mlops train nothing"):
        canaries.end(registry, "nothing", who="ada")


def test_a_version_that_the_gate_refuses_is_none(registry: MlflowClient, production: str, new_version: Any) -> None:
    new_version(DummyClassifier(strategy="most_frequent"))
    decision = start(registry, production)
    assert (decision.action, decision.outcome, decision.check) == ("canary", "refused", "threshold")
    assert canary(registry, production) is None
    assert history(registry, production)[0].outcome == "refused"


def test_what_cannot_be_a_canary_says_what_to_run(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version()
    with pytest.raises(MlflowError, match=f"no version in production .*`mlops promote {name}` without a canary"):
        start(registry, name)
    promote(registry, name, definition=IRIS, who="ada")
    with pytest.raises(MlflowError, match=f"`mlops promote {name} --version VERSION --canary 0.1`"):
        start(registry, name)
    for share in (-0.1, 0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="is not above 0 and below 1"):
            start(registry, name, share=share)
    with pytest.raises(ValueError, match="no other signature"):
        start(registry, name, allow_signature_change=True)
    assert canary(registry, name) is None
    assert len(history(registry, name)) == 1


def test_production_that_is_moved_while_it_is_checked_refuses_it(
    registry: MlflowClient, production: str, new_version: Any
) -> None:
    new_version()
    ledger = Ledger(registry, production)
    moves, current = ledger.settle()
    decision = Decision(production, "2", current, "canary", "started", "", "good enough", who="ada")
    promote(registry, production, "3", definition=IRIS, who="bob")
    decision = canaries.start(ledger, moves, decision, 0.1)
    assert (decision.outcome, decision.check) == ("refused", "concurrent")
    assert "production was moved from version 1 to version 3 while this was checked" in decision.reason
    assert canary(registry, production) is None
    assert history(registry, production)[0].check == "concurrent"


@pytest.mark.parametrize("tag", ["2", "2 ", "2 x", "2 1", "2 0", "2 nan", "x 0.1", " 0.1", "1 0.1", "2 0.1 0.1"])
def test_a_tag_that_is_none_is_no_canary(tag: str) -> None:
    assert canary_of(RegisteredModel("m", {PRODUCTION: "1"}, {CANARY_TAG: tag})) is None
    assert canary_of(RegisteredModel("m", {PRODUCTION: "1"}, {CANARY_TAG: "2 0.1"})) == ("2", 0.1)
    assert canary_of(RegisteredModel("m", {}, {CANARY_TAG: "2 0.1"})) is None
