import io
import json
import multiprocessing
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from app.clients.mlflow import (
    CHALLENGER,
    PRODUCTION,
    MlflowClient,
    MlflowError,
    MlflowUnavailable,
    ModelVersion,
    NotFound,
)
from app.registry.bundle import FEEDBACK, HELD_OUT, write_sums
from app.registry.ledger import SEQUENCE_TAG, Decision, Ledger, ensure_model
from app.registry.promotion import DEFINITION_TAG, history, noted_definition, promote, rollback
from app.testing.definitions import IRIS, LENIENT, iris

CLIENTS, ROUNDS = 8, 10


def production(registry: MlflowClient, name: str) -> str | None:
    version = registry.version_by_alias(name, PRODUCTION)
    return version.version if version else None


def test_the_first_good_version_goes_into_production(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version()
    decision = promote(registry, name, definition=IRIS, who="ada", why="first")
    assert (decision.outcome, decision.version, decision.previous) == ("promoted", "1", None)
    assert production(registry, name) == "1"
    assert registry.version_by_alias(name, CHALLENGER) is None
    (entry,) = history(registry, name)
    assert (entry.who, entry.why, entry.outcome) == ("ada", "first", "promoted")
    assert entry.metrics["candidate_accuracy"] == decision.metrics["candidate_accuracy"]


def test_promoting_production_again_changes_nothing(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version()
    promote(registry, name, definition=IRIS, who="ada")
    assert promote(registry, name, definition=IRIS, who="ada").outcome == "unchanged"
    assert len(history(registry, name)) == 1


def test_below_the_threshold_is_refused_with_both_figures(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version(DummyClassifier(strategy="most_frequent"))
    decision = promote(registry, name, definition=IRIS, who="ada")
    assert (decision.outcome, decision.check) == ("refused", "threshold")
    assert f"{decision.metrics['candidate_accuracy']:.4f}" in decision.reason
    assert "0.8500" in decision.reason
    assert production(registry, name) is None
    assert history(registry, name)[0].check == "threshold"


def test_worse_than_production_is_refused_with_both_figures(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    new_version()
    promote(registry, name, definition=IRIS, who="ada")
    new_version(DecisionTreeClassifier(max_depth=1, random_state=0))
    decision = promote(registry, name, definition=LENIENT, who="ada")
    assert (decision.outcome, decision.check) == ("refused", "regression")
    for side in ("candidate_accuracy", "production_accuracy"):
        assert f"{decision.metrics[side]:.4f}" in decision.reason
    assert production(registry, name) == "1"
    assert registry.version_by_alias(name, CHALLENGER).version == "2"  # type: ignore[union-attr]


def test_other_features_are_refused_unless_allowed(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version()
    promote(registry, name, definition=IRIS, who="ada")
    new_version(features=["petal_length", "petal_width"])
    decision = promote(registry, name, definition=IRIS, who="ada")
    assert decision.check == "signature"
    assert "sepal_length is missing here and double there" in decision.reason
    assert promote(registry, name, definition=IRIS, who="ada", allow_signature_change=True).outcome == "promoted"


def test_altered_files_are_refused(registry: MlflowClient, name: str, new_version: Any) -> None:
    version = new_version()
    registry.write_artifact(f"{registry.bundle_path(version)}/model.onnx", b"other")
    decision = promote(registry, name, definition=IRIS, who="ada")
    assert (decision.outcome, decision.check) == ("refused", "bundle")
    assert "model.onnx was altered" in decision.reason


def test_damaged_held_out_rows_are_refused(registry: MlflowClient, name: str, new_version: Any) -> None:
    version = new_version()
    registry.write_artifact(f"{registry.bundle_path(version)}/{HELD_OUT}", b"PAR1 half")
    decision = promote(registry, name, definition=IRIS, who="ada")
    assert (decision.outcome, decision.check) == ("refused", "bundle")
    assert "held_out.parquet of version 1 was altered" in decision.reason


def test_other_held_out_rows_than_were_registered_do_not_decide(
    registry: MlflowClient, name: str, new_version: Any, iris_rows: Any
) -> None:
    """A version that knows one class alone, and rows of that class alone, put there after it was registered."""
    version = new_version(DummyClassifier(strategy="constant", constant="setosa"))
    easy = io.BytesIO()
    iris_rows[1][iris_rows[1]["species"] == "setosa"].to_parquet(easy)
    registry.write_artifact(f"{registry.bundle_path(version)}/{HELD_OUT}", easy.getvalue())
    assert promote(registry, name, definition=IRIS, who="ada").outcome == "refused"
    assert production(registry, name) is None


@pytest.fixture
def larger_flowers(iris_rows: Any) -> pd.DataFrame:
    """Setosas as no row of the data is: two centimetres longer everywhere."""
    setosa = iris_rows[0][iris_rows[0]["species"] == "setosa"]
    return setosa.assign(**{name: setosa[name] + 2 for name in setosa.columns if name != "species"})


def test_a_retraining_that_learned_from_feedback_has_gained_something(
    registry: MlflowClient, name: str, new_version: Any, larger_flowers: pd.DataFrame
) -> None:
    new_version()
    promote(registry, name, definition=IRIS, who="ada")
    new_version(more=larger_flowers[::2])
    decision = promote(registry, name, definition=IRIS, who="retrainer", only_if_better=True)
    assert (decision.outcome, decision.check) == ("refused", "better"), "no feedback to compare it on"
    new_version(more=larger_flowers[::2], feedback=larger_flowers[1::2])
    decision = promote(registry, name, definition=IRIS, who="retrainer", only_if_better=True)
    assert decision.outcome == "promoted", decision.reason
    assert decision.metrics["candidate_feedback_accuracy"] > decision.metrics["production_feedback_accuracy"]
    assert "on feedback is better than production's" in decision.reason


def test_feedback_lets_nothing_pass_that_the_held_out_rows_refuse(
    registry: MlflowClient, name: str, new_version: Any, larger_flowers: pd.DataFrame
) -> None:
    """Perfect on what was fed back, and bad on the model's own rows."""
    new_version()
    promote(registry, name, definition=IRIS, who="ada")
    constant = DummyClassifier(strategy="constant", constant="setosa")
    new_version(constant, feedback=larger_flowers)
    decision = promote(registry, name, definition=IRIS, who="retrainer", only_if_better=True)
    assert (decision.outcome, decision.check) == ("refused", "threshold")
    decision = promote(registry, name, definition=LENIENT, who="retrainer", only_if_better=True)
    assert (decision.outcome, decision.check) == ("refused", "regression")
    assert production(registry, name) == "1"


def test_too_little_feedback_and_feedback_that_was_altered_decide_nothing(
    registry: MlflowClient, name: str, new_version: Any, larger_flowers: pd.DataFrame
) -> None:
    new_version()
    promote(registry, name, definition=IRIS, who="ada")
    new_version(more=larger_flowers, feedback=larger_flowers.head(9))
    decision = promote(registry, name, definition=IRIS, who="retrainer", only_if_better=True)
    assert (decision.outcome, decision.check) == ("refused", "better")
    version = new_version(more=larger_flowers[::2], feedback=larger_flowers[1::2])
    registry.write_artifact(f"{registry.bundle_path(version)}/{FEEDBACK}", b"PAR1 other")
    decision = promote(registry, name, definition=IRIS, who="retrainer", only_if_better=True)
    assert (decision.outcome, decision.check) == ("refused", "bundle")
    assert "feedback.parquet of version 3 was altered" in decision.reason


def test_a_version_of_before_held_out_rows_were_in_the_bundle_is_trained_again_and_can_be_rolled_back_to(
    registry: MlflowClient, name: str, iris_bundle: Path, new_version: Any, tmp_path: Path
) -> None:
    from app.testing.model_api import publish  # slow to import, which each process of a race below would do

    old = shutil.copytree(iris_bundle, tmp_path / "old")
    (old / HELD_OUT).unlink()
    write_sums(old)
    publish(registry, name, old, promote=False)
    decision = promote(registry, name, definition=IRIS, who="ada")
    assert (decision.outcome, decision.check) == ("refused", "bundle")
    assert f"run `mlops train {name}`" in decision.reason
    registry.set_alias(name, PRODUCTION, "1")  # as it was promoted then
    new_version()
    assert promote(registry, name, definition=IRIS, who="ada").outcome == "promoted"
    assert rollback(registry, name, who="ada").outcome == "promoted"
    assert production(registry, name) == "1"


def test_a_version_is_judged_by_the_model_file_and_not_by_the_gate_that_it_brings(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    new_version(DummyClassifier(strategy="most_frequent"), threshold=0.0, max_regression=1.0)
    decision = promote(registry, name, definition=IRIS, who="ada")
    assert (decision.outcome, decision.check) == ("refused", "threshold")
    assert "below the threshold 0.8500" in decision.reason
    assert "the version brings another gate, which does not count" in decision.reason
    new_version(DecisionTreeClassifier(max_depth=1, random_state=0), threshold=0.99)
    assert promote(registry, name, definition=iris(threshold=0.5), who="ada").outcome == "promoted"


def test_another_target_than_the_model_file_says_is_refused(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    new_version()
    decision = promote(registry, name, definition=replace(IRIS, target="grower"), who="ada")
    assert (decision.outcome, decision.check) == ("refused", "definition")
    assert "'species' (classification), the model file says 'grower'" in decision.reason


def test_what_a_model_is_judged_by_is_noted_for_the_pages(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version()
    promote(registry, name, definition=LENIENT, who="ada")
    promote(registry, name, definition=IRIS, who="ada")  # unchanged, but the model file was
    assert noted_definition(registry.model(name)) == IRIS
    registry.set_model_tag(name, DEFINITION_TAG, "{}")
    with pytest.raises(MlflowError, match=f"the tag {DEFINITION_TAG} of {name} is damaged"):
        noted_definition(registry.model(name))


def test_a_ledger_that_a_training_could_have_written_moves_nothing(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    """Who registers a model names its sequence: here a run of its own, by which version 1 was promoted already."""
    new_version()
    forged = registry.create_run(
        registry.ensure_experiment(name), "sequence", {"mlops.kind": "sequence", "mlops.model": name}
    )
    move = {"decision": forged, "action": "promote", "version": "1", "previous": None}
    registry.write_once(forged, "move.000001", json.dumps(move))
    registry.set_model_tag(name, SEQUENCE_TAG, forged)
    with pytest.raises(MlflowError, match="not its sequence in the experiment promotions"):
        promote(registry, name, definition=IRIS, who="ada")
    assert production(registry, name) is None


def test_a_model_registered_by_hand_gets_its_ledger_with_its_first_promotion(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    registry.create_model(name, {})
    new_version()
    assert promote(registry, name, definition=IRIS, who="ada").outcome == "promoted"
    assert [decision.outcome for decision in history(registry, name)] == ["promoted"]


def test_broken_production_does_not_keep_its_successor_out(
    registry: MlflowClient, name: str, new_version: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_version()
    promote(registry, name, definition=IRIS, who="ada")
    registry.write_artifact(f"{registry.bundle_path(first)}/model.onnx", b"other")
    monkeypatch.setenv("MLOPS_CACHE_DIR", str(tmp_path / "fresh"))
    new_version()
    assert promote(registry, name, definition=IRIS, who="ada").outcome == "promoted"


def test_unknown_models_and_versions_say_what_there_is(registry: MlflowClient, name: str, new_version: Any) -> None:
    with pytest.raises(NotFound, match=f"mlops train {name}"):
        promote(registry, name, definition=IRIS, who="ada")
    new_version()
    with pytest.raises(NotFound, match="it has: 1"):
        promote(registry, name, "7", definition=IRIS, who="ada")


def test_rollback_walks_back_and_is_in_the_ledger(registry: MlflowClient, name: str, new_version: Any) -> None:
    for _ in range(3):
        new_version()
        promote(registry, name, definition=IRIS, who="ada")
    assert rollback(registry, name, who="bob", why="bad answers").version == "2"
    assert rollback(registry, name, who="bob").version == "1"
    refused = rollback(registry, name, who="bob")
    assert (refused.outcome, refused.check) == ("refused", "history")
    assert production(registry, name) == "1"
    actions = [(d.action, d.outcome, d.version) for d in history(registry, name)]
    assert actions[:3] == [("rollback", "refused", ""), ("rollback", "promoted", "1"), ("rollback", "promoted", "2")]


def test_an_alias_moved_by_hand_is_taken_into_the_ledger(registry: MlflowClient, name: str, new_version: Any) -> None:
    for _ in range(2):
        new_version()
    promote(registry, name, "1", definition=IRIS, who="ada")
    registry.set_alias(name, PRODUCTION, "2")
    assert rollback(registry, name, who="ada").version == "1"
    assert [d.action for d in history(registry, name)] == ["rollback", "outside", "promote"]


def test_a_promotion_killed_before_the_alias_moved_is_finished_by_the_next(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    for _ in range(2):
        new_version()
    ledger = Ledger(registry, name)
    decision = ledger.record(Decision(name, "1", None, "promote", "promoted", "", "killed after its claim"))
    assert ledger.claim(1, decision)
    assert production(registry, name) is None
    assert promote(registry, name, "2", definition=IRIS, who="ada").previous == "1"
    assert [move.version for move in ledger.moves()] == ["1", "2"]


def test_a_slow_winner_does_not_turn_back_a_later_move(registry: MlflowClient, name: str, new_version: Any) -> None:
    """It claimed move 1, slept while others finished it and made move 2, and sets the alias only now."""
    for _ in range(2):
        new_version()
    ledger = Ledger(registry, name)
    slow = ledger.claim(1, ledger.record(Decision(name, "1", None, "promote", "promoted", "", "")))
    assert slow
    promote(registry, name, "2", definition=IRIS, who="ada")
    ledger.apply(slow)
    assert production(registry, name) == "2"


class Interrupted(MlflowClient):
    """Another client does something right after this one has set an alias, or right before it looks one up."""

    after_set: Callable[[], object] | None = None
    before_look: Callable[[], object] | None = None

    def set_alias(self, name: str, alias: str, version: str) -> None:
        super().set_alias(name, alias, version)
        other, self.after_set = self.after_set, None
        if other:
            other()

    def version_by_alias(self, name: str, alias: str = PRODUCTION) -> ModelVersion | None:
        other, self.before_look = self.before_look, None
        if other:
            other()
        return super().version_by_alias(name, alias)


def test_a_slow_winner_is_not_taken_for_a_move_by_hand(registry: MlflowClient, name: str, new_version: Any) -> None:
    """It sets the alias after a later move did, and another client looks before it can put that right."""
    for _ in range(2):
        new_version()
    with Interrupted(registry.uri, timeout=30) as client:
        slow, ledger = Ledger(client, name), Ledger(registry, name)
        move = slow.claim(1, ledger.record(Decision(name, "1", None, "promote", "promoted", "", "")))
        assert move
        promote(registry, name, "2", definition=IRIS, who="ada")
        seen: list[str | None] = []
        client.after_set = lambda: seen.append(ledger.settle()[1])
        slow.apply(move)
    assert (seen, production(registry, name)) == (["2"], "2")
    assert [move.action for move in ledger.moves()] == ["promote", "promote"]
    assert [decision.action for decision in history(registry, name)] == ["promote", "promote"]


def test_a_move_that_is_made_during_a_look_is_not_taken_for_one_by_hand(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    for _ in range(2):
        new_version()
    promote(registry, name, "1", definition=IRIS, who="ada")
    with Interrupted(registry.uri, timeout=30) as client:
        client.before_look = lambda: promote(registry, name, "2", definition=IRIS, who="bob")
        assert Ledger(client, name).settle()[1] == "2"
    assert [decision.action for decision in history(registry, name)] == ["promote", "promote"]


def test_a_move_by_hand_to_an_earlier_version_is_taken_into_the_ledger(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    for version in ("1", "2"):
        new_version()
        promote(registry, name, version, definition=IRIS, who="ada")
    registry.set_alias(name, PRODUCTION, "1")
    assert Ledger(registry, name).settle()[1] == "1"
    assert [decision.action for decision in history(registry, name)] == ["outside", "promote", "promote"]


def _race(uri: str, name: str, version: str, barrier: Any, results: Any) -> None:
    registry = MlflowClient(uri, timeout=60)
    ledger = Ledger(registry, name)
    for number in range(ROUNDS):
        barrier.wait(120)
        moves, current = ledger.settle()
        barrier.wait(120)  # all have seen the same production
        # the gate between these lines is the same for all; what is raced for is the move
        decision = Decision(name, version, current, "promote", "promoted", "", "race", who=f"client {version}")
        results.append((number, version, ledger.move(moves, decision).outcome))
        barrier.wait(120)


def test_of_racing_promotions_one_wins_each_round(registry: MlflowClient, name: str, new_version: Any) -> None:
    """8 clients, 10 rounds: one winner a round, and ledger and alias agree."""
    for _ in range(CLIENTS):
        new_version()
    barrier, results = threading.Barrier(CLIENTS), []  # type: ignore[var-annotated]
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(_race, registry.uri, name, str(i + 1), barrier, results) for i in range(CLIENTS)]
        for client in clients:
            client.result()
    winners = [[v for n, v, outcome in results if n == number and outcome == "promoted"] for number in range(ROUNDS)]
    assert [len(round_winners) for round_winners in winners] == [1] * ROUNDS
    moves = Ledger(registry, name).moves()
    assert [move.version for move in moves] == [round_winners[0] for round_winners in winners]
    assert production(registry, name) == moves[-1].version
    decisions = history(registry, name)
    assert len(decisions) == CLIENTS * ROUNDS
    assert sum(d.outcome == "promoted" for d in decisions) == ROUNDS
    assert {d.check for d in decisions if d.outcome == "refused"} == {"concurrent"}


def _promote_process(uri: str, name: str, version: str, start: Any, results: Any) -> None:
    start.wait(60)
    results.put((version, promote(MlflowClient(uri, timeout=60), name, version, definition=IRIS, who=version).outcome))


def test_racing_processes_leave_ledger_and_alias_agreeing(registry: MlflowClient, name: str, new_version: Any) -> None:
    """Whole promotions, gate included, from processes of their own."""
    for _ in range(4):
        new_version()
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    clients = [
        context.Process(target=_promote_process, args=(registry.uri, name, str(i + 1), start, results))
        for i in range(4)
    ]
    for client in clients:
        client.start()
    start.set()
    outcomes = dict(results.get(timeout=120) for _ in clients)
    for client in clients:
        client.join()
    moves = Ledger(registry, name).moves()
    assert sorted(move.version for move in moves) == sorted(
        v for v, outcome in outcomes.items() if outcome == "promoted"
    )
    assert production(registry, name) == moves[-1].version


def test_a_new_alias_or_tag_that_many_set_at_once_is_one_of_theirs(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    """Of MLflow's inserts all but one fail."""
    for _ in range(2):
        new_version()
    barrier = threading.Barrier(CLIENTS)

    def set_alias(number: int) -> None:
        with MlflowClient(registry.uri, timeout=60) as client:
            for round_ in range(ROUNDS):
                barrier.wait(60)
                client.set_alias(name, f"alias{round_}", str(number % 2 + 1))
                barrier.wait(60)
                client.set_model_tag(name, f"tag{round_}", str(number % 2 + 1))

    with ThreadPoolExecutor(CLIENTS) as pool:
        for client in [pool.submit(set_alias, number) for number in range(CLIENTS)]:
            client.result()
    model = registry.model(name)
    assert set(model.aliases) == {f"alias{round_}" for round_ in range(ROUNDS)}
    assert {f"tag{round_}" for round_ in range(ROUNDS)} <= set(model.tags)


def test_first_registrations_at_once_agree_on_one_ledger(registry: MlflowClient, name: str) -> None:
    barrier = threading.Barrier(CLIENTS)

    def ensure(_: int) -> dict[str, str]:
        barrier.wait(30)
        return ensure_model(MlflowClient(registry.uri, timeout=60), name).tags

    with ThreadPoolExecutor(CLIENTS) as pool:
        tags = list(pool.map(ensure, range(CLIENTS)))
    assert all(tag == tags[0] for tag in tags)


def test_mlflow_away_says_so(registry: MlflowClient, name: str) -> None:
    with pytest.raises(MlflowUnavailable, match="does not answer"):
        promote(MlflowClient("http://127.0.0.1:9", timeout=1), name, definition=IRIS, who="ada")


def test_better_than_production_by_a_seed_is_promoted(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version(DecisionTreeClassifier(max_depth=2, random_state=0))
    promote(registry, name, definition=LENIENT, who="ada")
    new_version(RandomForestClassifier(random_state=3))
    decision = promote(registry, name, definition=IRIS, who="ada")
    assert decision.outcome == "promoted"
    assert decision.metrics["candidate_accuracy"] >= decision.metrics["production_accuracy"] - 0.02


def test_no_better_than_production_is_refused_where_only_better_will_do(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    new_version(DecisionTreeClassifier(max_depth=2, random_state=0))
    assert (
        promote(registry, name, definition=LENIENT, who="retrainer", only_if_better=True).outcome == "promoted"
    )  # nothing to compare with
    new_version(DecisionTreeClassifier(max_depth=2, random_state=0))
    decision = promote(registry, name, definition=LENIENT, who="retrainer", only_if_better=True)
    assert (decision.outcome, decision.check) == ("refused", "better")
    figure = f"{decision.metrics['production_accuracy']:.4f}"
    assert decision.reason.count(figure) == 2
    assert "not better than production's (version 1)" in decision.reason
    assert history(registry, name)[0].check == "better"
    assert (
        promote(registry, name, definition=LENIENT, who="ada").outcome == "promoted"
    )  # as good is good enough for everybody else


def test_better_than_production_is_promoted_where_only_better_will_do(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    new_version(DecisionTreeClassifier(max_depth=1, random_state=0))
    promote(registry, name, definition=LENIENT, who="ada")
    new_version()
    decision = promote(registry, name, definition=LENIENT, who="retrainer", only_if_better=True)
    assert decision.outcome == "promoted"
    assert decision.metrics["candidate_accuracy"] > decision.metrics["production_accuracy"]
    assert "is better than production's (version 1)" in decision.reason
