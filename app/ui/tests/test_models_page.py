from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier

from app.clients.mlflow import PRODUCTION, MlflowClient
from app.registry.canary import canary_of
from app.registry.challenger import challenge, end_challenge
from app.registry.promotion import history, promote
from app.testing.definitions import IRIS, LENIENT
from app.testing.pages import click, open_page, ran, read
from app.testing.proxy import FaultyProxy, serving


@pytest.fixture
def model(registry: MlflowClient, name: str, new_version: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two good versions, the first in production, and a third that is worse."""
    monkeypatch.setenv("MLOPS_UI_TIMEOUT", "30")
    forest = RandomForestClassifier(n_estimators=5, random_state=0)
    for estimator, accuracy in ((forest, 0.95), (forest, 0.97), (DummyClassifier(), 0.33)):
        version = new_version(estimator)
        registry.log(version.run_id, metrics={"accuracy": accuracy, "f1_macro": accuracy - 0.01})
    promote(registry, name, "1", definition=IRIS, who="ada", why="the first")
    return name


def production(registry: MlflowClient, model: str) -> str:
    version = registry.version_by_alias(model, PRODUCTION)
    assert version
    return version.version


def choose(app: Any, version: str) -> None:
    next(box for box in app.selectbox if box.label == "Version to promote").set_value(version)


def decide(app: Any, button: str, who: str = "grace", why: str = "") -> Any:
    click(app, button)
    app.text_input(key="who").set_value(who)
    app.text_input(key="why").set_value(why)
    return click(app, f"Yes, {button.lower()}")


def test_a_visitor_sees_the_default_model_first(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    up = {"ok": True, "error": "", "checked_at": ""}
    default = {"default": served.names["sugar"], "models": [], "registry": up}
    with serving(FaultyProxy(answers={"/models": (200, default)})) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        (chosen,) = [box.value for box in open_page("models").selectbox if box.label == "Model"]
    assert chosen == served.names["sugar"]


def test_versions_metrics_and_history(registry: MlflowClient, model: str) -> None:
    app = open_page("models", model)
    assert not app.error
    assert [(m.label, m.value) for m in app.metric] == [("accuracy", "0.95"), ("f1 macro", "0.94")]
    assert "Gate: accuracy at least 0.85, and no more than 0.02 worse" in read(app.caption)
    table = app.dataframe[0].value
    assert table["Version"].tolist() == [3, 2, 1]
    assert table["Alias"].tolist() == ["", "", "production"]
    assert table["accuracy"].tolist() == [0.33, 0.97, 0.95]
    assert table["MLflow"][2].endswith(f"/#/models/{model}/versions/1")
    (decision,) = app.table[0].value.to_dict("records")
    assert decision["Who"] == "ada"
    assert decision["Why, cause"] == "the first"
    assert "promoted" in decision["Outcome"]
    assert decision["Version"].endswith("→ 1")


def test_promote_after_a_confirmation(registry: MlflowClient, model: str) -> None:
    app = open_page("models", model)
    choose(app, "2")
    click(app, "Promote")
    assert production(registry, model) == "1"  # not yet
    app.text_input(key="who").set_value("grace")
    app.text_input(key="why").set_value("*better* [x](y)")
    click(app, "Yes, promote")
    assert production(registry, model) == "2"
    assert read(app.success).startswith("Version 2 is in production: accuracy")
    newest = history(registry, model)[0]
    assert (newest.who, newest.why, newest.version, newest.previous) == ("grace", "*better* [x](y)", "2", "1")
    assert "confirm" not in [button.key for button in app.button]
    assert app.table[0].value["Why, cause"][0].startswith(r"\*better\* \[x\]")  # nobody's Markdown but ours


def test_the_page_judges_by_the_model_file_and_not_by_what_a_version_claims(
    registry: MlflowClient, model: str, new_version: Any
) -> None:
    new_version(DummyClassifier(), threshold=0.1, max_regression=1.0)
    app = open_page("models", model)
    choose(app, "4")
    decide(ran(app), "Promote")
    assert "Version 4 was refused by the check **threshold**: accuracy" in read(app.error)
    assert production(registry, model) == "1"


def test_a_model_that_was_never_judged_by_its_model_file_says_how(
    registry: MlflowClient, name: str, new_version: Any
) -> None:
    new_version()
    app = decide(open_page("models", name), "Promote")
    assert f"prefect deployment run promote/promote -p model={name}" in read(app.error)
    assert registry.version_by_alias(name, PRODUCTION) is None


def test_a_decision_needs_a_name(registry: MlflowClient, model: str) -> None:
    app = decide(open_page("models", model), "Promote", who="  ")
    assert "Fill in your name" in read(app.error)
    assert production(registry, model) == "1"
    assert len(history(registry, model)) == 1


def test_cancel_changes_nothing(registry: MlflowClient, model: str) -> None:
    app = click(click(open_page("models", model), "Promote"), "Cancel")
    assert "confirm" not in [button.key for button in app.button]
    assert len(history(registry, model)) == 1


def test_a_refusal_says_why_and_makes_a_challenger(registry: MlflowClient, model: str) -> None:
    app = open_page("models", model)
    choose(app, "3")
    decide(ran(app), "Promote")
    assert "Version 3 was refused by the check **threshold**: accuracy" in read(app.error)
    assert production(registry, model) == "1"
    assert "Challenger** :blue-badge[version 3]" in read(app.markdown)
    assert app.dataframe[0].value["Alias"].tolist() == ["challenger", "", "production"]
    assert "refused by threshold" in app.table[0].value["Outcome"][0]


def test_a_challenger_is_compared_on_the_same_rows_only(registry: MlflowClient, name: str, new_version: Any) -> None:
    for estimator in (None, DummyClassifier()):
        version = new_version(estimator, threshold=0.1)
        registry.log(version.run_id, metrics={"accuracy": 0.99})  # on rows of its own, says its run
    promote(registry, name, "1", definition=LENIENT, who="ada")
    decision = promote(registry, name, "2", definition=LENIENT, who="ada")
    assert decision.check == "regression"
    _, shown = open_page("models", name).metric
    candidate, production = decision.metrics["candidate_accuracy"], decision.metrics["production_accuracy"]
    assert float(shown.value) == pytest.approx(candidate, abs=1e-4)
    assert float(shown.delta) == pytest.approx(candidate - production, abs=1e-4)


def test_begin_and_end_of_a_challenge_are_in_the_history(registry: MlflowClient, model: str) -> None:
    in_shadow = replace(IRIS, gate=replace(IRIS.gate, min_shadow_rows=1000, max_disagreement=0.05))
    promote(registry, model, "3", definition=in_shadow, who="ada")
    challenge(registry, model, "2", 1.0, who="grace", why="is it calmer?")
    app = open_page("models", model)
    assert "Challenger** :blue-badge[version 2]" in read(app.markdown)
    assert "it must have got 1,000 rows, and have disagreed on at most 5.0% of them" in read(app.caption)
    end_challenge(registry, model, who="grace")
    table = open_page("models", model).table[0].value
    assert table["Action"].tolist()[:2] == ["challenge", "challenge"]
    assert table["Outcome"].tolist()[:2] == [":gray-badge[ended]", ":blue-badge[started]"]
    assert table["Who"].tolist()[:2] == ["grace", "grace"]


def test_roll_back(registry: MlflowClient, model: str) -> None:
    promote(registry, model, "2", definition=IRIS, who="ada")
    app = decide(open_page("models", model), "Roll back", why="it is slow")
    assert read(app.success) == "Version 1 is in production: returned from version 2 to version 1."
    assert production(registry, model) == "1"
    assert (history(registry, model)[0].action, history(registry, model)[0].why) == ("rollback", "it is slow")


def test_a_canary_starts_and_ends(registry: MlflowClient, model: str) -> None:
    app = open_page("models", model)
    choose(app, "2")
    click(app, "Promote")
    app.number_input[0].set_value(25)
    app.text_input(key="who").set_value("grace")
    app.checkbox[0].check()
    click(app, "Yes, promote")
    assert "its signature must be the same" in read(app.error)
    app.checkbox[0].uncheck()
    click(app, "Yes, promote")
    assert "Version 2 is the canary: it answers 0.25 of the requests" in read(app.success)
    assert "Its canary, version 2, answers 25.0% of the requests" in read(app.caption)
    assert (production(registry, model), canary_of(registry.model(model))) == ("1", ("2", 0.25))
    decide(app, "End the canary")
    assert "Version 2 is the canary no more" in read(app.success)
    assert canary_of(registry.model(model)) is None
    assert [decision.who for decision in history(registry, model)] == ["grace", "grace", "ada"]
    assert "End the canary" not in [button.label for button in app.button]


def test_nothing_to_roll_back_to(registry: MlflowClient, model: str) -> None:
    app = decide(open_page("models", model), "Roll back")
    assert "refused by the check **history**: there is no version before 1" in read(app.error)
    assert production(registry, model) == "1"


def test_the_visitor_gives_an_account_where_mlflow_wants_one(
    registry: MlflowClient, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "reader")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    app = open_page("models", model)
    choose(app, "2")
    decide(ran(app), "Promote")
    assert "Fill in account and password" in read(app.error)
    assert production(registry, model) == "1"
    app.text_input(key="password").set_value("another secret")
    click(app, "Yes, promote")
    assert production(registry, model) == "2"


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_password_says_what_a_visitor_can_do(
    registry: MlflowClient, model: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "reader")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    with serving(FaultyProxy(registry.uri)) as peer:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", peer.url)
        app = open_page("models", model)
        peer.answers["/api/2.0/mlflow/registered-models/alias"] = (status, "You are not authenticated")
        click(app, "Promote")
        app.text_input(key="who").set_value("grace")
        app.text_input(key="password").set_value("a guess")
        click(app, "Yes, promote")
        shown = read(app.error[-1:])
        assert "MLflow refused the account admin with this password" in shown
        assert "whoever runs this platform has its password" in shown
        assert "kubectl" not in shown
        monkeypatch.setenv("MLOPS_ADMIN_SECRET", "team/ours")
        shown = read(click(app, "Yes, promote").error[-1:])
        assert (
            "`kubectl -n team get secret ours -o jsonpath='{.data.mlflow-admin-password}' | base64 -d`" in shown
        )  # as the README has it
        assert "MLFLOW_TRACKING" not in shown
        assert "a guess" not in shown
    assert production(registry, model) == "1"


# -- failures ----------------------------------------------------------------------------------------------------


def test_mlflow_down(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead)
    app = open_page("models")
    assert f"MLflow at {dead} does not answer" in read(app.error)
    assert "Start it with `make demo`" in read(app.error)


def test_no_address_of_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///somewhere.db")
    assert "an http(s) URL of a tracking server is needed" in read(open_page("models").error)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((401, "You are not authenticated"), "This needs an account that has the rights for it"),
        ((503, "busy"), "answered 503: busy"),
        ((200, "<html>hello</html>"), "does not answer as MLflow does"),
        ((200, {"registered_models": [{"no": "name"}]}), "does not answer as MLflow does"),
        ((200, []), "does not answer as MLflow does"),
        (None, "does not answer"),
    ],
)
def test_mlflow_that_answers_wrongly(answer: Any, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FaultyProxy(answers={"/": answer})) as peer:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", peer.url)
        monkeypatch.setenv("MLOPS_UI_TIMEOUT", "0.3")
        app = open_page("models")
    assert expected in read(app.error)


def test_no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FaultyProxy(answers={"/": (200, {})})) as peer:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", peer.url)
        assert "No model is registered yet" in read(open_page("models").info)


def test_one_part_that_fails_leaves_the_others(
    registry: MlflowClient, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (503, "busy")
    with serving(FaultyProxy(registry.uri, {"/api/2.0/mlflow/runs/search": broken})) as peer:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", peer.url)
        app = open_page("models", model)
        assert "The metrics are missing." in read(app.error)
        assert "The promotion history is missing." in read(app.error)
        assert app.dataframe[0].value["Version"].tolist() == [3, 2, 1]
        peer.answers = {"/api/2.0/mlflow/model-versions/search": broken}
        app = open_page("models", model)
        assert "The versions are missing." in read(app.error)
        assert len(app.table[0].value) == 1


def test_a_decision_while_mlflow_fails_is_a_message_in_the_dialog(
    registry: MlflowClient, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(FaultyProxy(registry.uri)) as peer:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", peer.url)
        app = open_page("models", model)
        peer.answers = {"/api/2.0/mlflow/registered-models/alias": (403, "no")}
        decide(app, "Promote")
    assert "This needs an account that has the rights for it" in read(app.error)
    assert "confirm" in [button.key for button in app.button]
    assert production(registry, model) == "1"
