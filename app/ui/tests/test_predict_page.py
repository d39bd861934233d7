from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from streamlit.testing.v1 import AppTest

from app.clients.mlflow import MlflowClient
from app.contract.explanation import Contribution, Explained
from app.contract.models import FeatureInfo
from app.registry import feedback_store
from app.registry.reference import OTHER
from app.runtime.api_keys import new_key
from app.runtime.waiting import wait_until
from app.testing.api_keys import add_client, bearer
from app.testing.pages import click, open_page, ran, read
from app.testing.proxy import FaultyProxy, serving
from app.ui.pages.explanation import bars
from app.ui.pages.prediction_form import decimals, warn_of_unseen

FLOWER = {"sepal_length": 6.7, "sepal_width": 3.0, "petal_length": 5.2, "petal_width": 2.3}


def fill(app: Any, **values: Any) -> None:
    for name, value in values.items():
        next(field for field in app.number_input if field.label.startswith(f"{name} ")).set_value(value)


def open_answer(served: Any, **values: float) -> Any:
    app = open_page("predict", served.names["iris"])
    fill(app, **{**FLOWER, **values})
    return click(app, "Predict")


def test_the_form_comes_from_the_signature(served: Any) -> None:
    info = httpx.get(f"{served.url}/models/{served.names['iris']}").json()
    app = open_page("predict", served.names["iris"])
    fields = app.number_input
    assert [field.label.split(" ")[0] for field in fields] == [f["name"] for f in info["features"]]
    assert [field.value for field in fields] == [pytest.approx(f["median"], abs=0.005) for f in info["features"]]
    length = next(f for f in info["features"] if f["name"] == "sepal_length")
    shown = next(field for field in fields if field.label.startswith("sepal_length"))
    assert shown.label == f"sepal_length ({length['min']:.2f} to {length['max']:.2f})"
    assert f"median {length['median']:.6g}" in shown.help


def test_the_answer_says_why(served: Any) -> None:
    app = open_answer(served)
    assert any(block.value == "**Why**" for block in app.markdown)
    (told,) = [caption.value for caption in app.caption if "the mean for rows of the training data" in caption.value]
    assert told.startswith("Of its probability: from ")


def test_the_bars_are_the_largest_contributions_and_the_rest_is_one() -> None:
    contributions = [Contribution(feature=f"f{n}", value=float(n), contribution=n * (-1) ** n) for n in range(13)]
    explained = Explained(
        prediction=1.5,
        base=0,
        value=6,
        contributions=contributions,
        method="sampled",
        model="m",
        version="1",
        run_id="r",
    )
    drawn = bars(explained)
    assert list(drawn["feature"])[:2] == ["f12 = 12", "f11 = 11"]
    assert list(drawn["contribution"])[:2] == [12, -11]
    assert drawn.iloc[-1].tolist() == ["3 others", 1]
    assert drawn["contribution"].sum() == 6


def test_every_type_has_its_field(served: Any) -> None:
    app = open_page("predict", served.names["cars"])
    doors, weight = app.number_input
    assert doors.label.startswith("doors (2 to 5)")
    assert (doors.step, isinstance(doors.value, int)) == (1, True)
    assert weight.label.startswith("weight")
    (diesel,) = app.checkbox
    assert (diesel.label, diesel.value) == ("diesel", False)
    colour = next(box for box in app.selectbox if box.label == "colour")
    assert sorted(colour.options) == ["blue", "green", "red"]
    colour.set_value("red")
    doors.set_value(5)
    click(app, "Predict")
    row = {"colour": "red", "doors": 5, "diesel": False, "weight": weight.value}
    assert read(app.title).endswith(served.predict("cars", row)["prediction"])


def test_dates_are_picked_and_go_to_the_model(served: Any) -> None:
    app = open_page("predict", served.names["members"])
    (joined,), (last,) = app.date_input, app.datetime_input
    assert joined.label.startswith("joined (2020-")
    assert isinstance(joined.value, date)
    assert last.value is None
    assert "It may be left empty." in last.help
    joined.set_value(date(2024, 6, 1))
    last.set_value(datetime(2024, 9, 1, 12))
    click(app, "Predict")
    row = {"joined": "2024-06-01", "last_order_at": "2024-09-01T12:00:00", "visits": app.number_input[0].value}
    assert read(app.title).endswith(served.predict("members", row)["prediction"])
    assert not app.warning
    app.date_input[0].set_value(date(1999, 1, 1))
    click(app, "Predict")
    assert "joined is 1999-01-01, but ranged from 2020-" in read(app.warning)


def test_a_closed_list_is_offered_whole_and_takes_nothing_else() -> None:
    def page() -> None:
        from app.contract.models import FeatureInfo
        from app.ui.pages.prediction_form import _text_field

        colours = FeatureInfo(
            name="colour",
            dtype="string",
            categories=["red", "(other)"],
            shares=[0.9, 0.1],
            only=["blue", "green", "red"],
        )
        _text_field(colours, "closed")
        _text_field(colours.model_copy(update={"name": "any", "only": None}), "open")

    closed, opened = AppTest.from_function(page).run().selectbox
    assert closed.options == ["red", "blue", "green"]
    assert not closed.proto.accept_new_options
    assert "the model takes no others" in closed.help
    assert opened.options == ["red"]
    assert opened.proto.accept_new_options


def test_a_field_may_be_left_empty_where_a_value_may_be_missing(served: Any) -> None:
    app = open_page("predict", served.names["patients"])
    age, pressure = app.number_input
    ward = next(box for box in app.selectbox if box.label == "ward")
    assert age.value is pressure.value is ward.value is None
    assert "It may be left empty." in age.help
    pressure.set_value(150.0)
    click(app, "Predict")
    assert not app.error
    row = {"age": None, "ward": None, "pressure": 150.0}
    assert read(app.title).endswith(served.predict("patients", row)["prediction"])
    assert not app.warning


def test_the_answer_names_model_version_and_run(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_MLFLOW_PUBLIC_URL", "https://mlflow.example/")
    app = open_answer(served)
    truth = served.predict("iris", FLOWER)
    assert read(app.title) == f"Predict\n{truth['prediction']}"
    shown = read(app.caption)
    assert f"{served.names['iris']} version {truth['version']}" in shown
    assert f"(https://mlflow.example/#/runs/{truth['run_id']})" in shown
    assert not app.warning


def test_values_outside_the_training_data_are_answered_with_a_warning(served: Any) -> None:
    app = open_answer(served, sepal_length=25.0)
    assert read(app.title) == f"Predict\n{served.predict('iris', {**FLOWER, 'sepal_length': 25.0})['prediction']}"
    assert "sepal_length is 25, but ranged from" in read(app.warning)
    assert "petal_length" not in read(app.warning)


@pytest.mark.parametrize(
    ("value", "rarer", "expected"),
    [("red", 0.0, ""), ("mauve", 0.0, "colour is 'mauve', which was not in the training data"), ("mauve", 0.1, "")],
)
def test_an_unseen_category(value: str, rarer: float, expected: str) -> None:
    known = FeatureInfo(name="colour", dtype="string", categories=["red", OTHER], shares=[1 - rarer, rarer])
    assert warn_of_unseen(known, value) == expected


@pytest.mark.parametrize(
    ("value", "inside"), [(-0.1072, True), (0.111, True), (0.1107, True), (0.112, False), (-0.11, False)]
)
def test_the_range_as_it_is_shown_counts_as_inside(value: float, inside: bool) -> None:
    age = FeatureInfo(name="age", dtype="double", min=-0.10723, max=0.11073, median=0.005, edges=[], shares=[1.0])
    assert (warn_of_unseen(age, value) == "") is inside


@pytest.mark.parametrize("right", [True, False])
def test_the_true_class_is_stored(served: Any, registry: MlflowClient, right: bool) -> None:
    app = open_answer(served)
    predicted = served.predict("iris", FLOWER)["prediction"]
    label = predicted if right else next(c for c in ("setosa", "virginica") if c != predicted)
    click(app, label)
    assert read(app.success) == f"Stored: {label}. The prediction was {'right' if right else 'wrong'}."
    rows = feedback_store.read(registry, served.names["iris"])
    assert [row["label"] for row in rows if row["features"] == FLOWER][-1] == label


def test_the_true_value_is_stored(served: Any, registry: MlflowClient) -> None:
    app = click(open_page("predict", served.names["sugar"]), "Predict")
    assert next(button for button in app.button if button.label == "Send").disabled
    next(field for field in app.number_input if field.label == "True value").set_value(200.5)
    click(ran(app), "Send")
    assert read(app.success).startswith("Stored: 200.5. The prediction was off by ")
    assert 200.5 in [row["label"] for row in feedback_store.read(registry, served.names["sugar"])]


def test_an_answer_stays_with_its_model(served: Any) -> None:
    app = open_answer(served)
    next(box for box in app.selectbox if box.label == "Model").set_value(served.names["sugar"])
    ran(app)
    assert read(app.title) == "Predict"
    next(box for box in app.selectbox if box.label == "Model").set_value(served.names["iris"])
    assert len(ran(app).title) == 2


@pytest.mark.parametrize(
    ("low", "high", "places"), [(4.3, 7.9, 2), (-0.1, 0.1, 3), (0, 300, 1), (0, 1e6, 1), (1.0, 1.0, 2), (0, 1e-30, 10)]
)
def test_decimals_fit_the_range(low: float, high: float, places: int) -> None:
    assert decimals(low, high) == places


# -- failures ----------------------------------------------------------------------------------------------------


def test_an_api_that_is_down(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_API_URL", dead)
    app = open_page("predict")
    assert f"The model API at {dead} does not answer" in read(app.error)
    assert "Start it with `make demo`" in read(app.error)


def test_feedback_and_state_while_mlflow_is_down(lonely_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_API_URL", lonely_api)
    app = click(open_page("predict"), "Predict")
    assert "The API cannot reach MLflow, so it goes on with version 1" in read(app.warning)
    click(app, "setosa")
    assert "Not stored." in read(app.error)
    assert "send it again" in read(app.error)
    assert not app.success
    assert len(app.title) == 2  # the answer is still there


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((401, {"detail": "who are you"}), "answered 401"),
        ((500, "<html>"), "answered 500"),
        ((503, {"detail": "no model is in production yet: run `mlops train MODEL`"}), "mlops train MODEL"),
        ((200, "<html>hello</html>"), "does not answer as the model API does"),
        ((200, {"models": [{"version": 1}]}), "does not answer as the model API does"),
        ((404, {"detail": "Not Found"}), "does not answer as the model API does"),
        (None, "did not answer within 0.3 s"),
    ],
)
def test_an_api_that_answers_wrongly(answer: Any, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FaultyProxy(answers={"/": answer})) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        monkeypatch.setenv("MLOPS_UI_TIMEOUT", "0.3")
        app = open_page("predict")
    assert expected in read(app.error)


def test_no_model_in_service(monkeypatch: pytest.MonkeyPatch) -> None:
    up = {"ok": True, "error": "", "checked_at": ""}
    with serving(FaultyProxy(answers={"/models": (200, {"default": None, "models": [], "registry": up})})) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        assert "Train one with `mlops train MODEL`" in read(open_page("predict").info)
        peer.answers["/models"] = (
            200,
            {"default": None, "models": [], "registry": {**up, "ok": False, "error": "it is away"}},
        )
        assert "the API cannot reach MLflow: it is away" in read(open_page("predict").error)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            (422, {"detail": [{"loc": ["body", "x"], "msg": "x should be a number", "type": "t"}]}),
            "x should be a number",
        ),
        ((503, {"detail": "iris is not in production yet"}), "Iris is not in production yet."),
        ((200, {"prediction": "setosa"}), "does not answer as the model API does"),
        ((200, []), "does not answer as the model API does"),
    ],
)
def test_a_prediction_that_fails_leaves_the_form(
    served: Any, answer: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = served.names["iris"]
    with serving(FaultyProxy(served.url, {f"/models/{name}/predict": answer})) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        app = click(open_page("predict", name), "Predict")
        assert expected in read(app.error)
        assert len(app.number_input) == 4
        assert len(app.title) == 1


def test_a_version_that_could_not_be_loaded_is_told(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = served.names["iris"]
    info = httpx.get(f"{served.url}/models/{name}").json()
    info["last_failure"] = {"version": "9", "reason": "a file was altered", "at": ""}
    with serving(FaultyProxy(served.url, {f"/models/{name}": (200, info)})) as peer:
        monkeypatch.setenv("MLOPS_API_URL", peer.url)
        shown = read(open_page("predict", name).warning)
    assert "Version 9 is in production but cannot be loaded: a file was altered. Version 1 answers instead" in shown


def test_the_page_sends_its_key(guarded_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is away: a label that gets past the key is not stored."""
    monkeypatch.setenv("MLOPS_API_URL", guarded_api)
    key = add_client(tmp_path / "clients", "admin", "admin")
    with httpx.Client(base_url=guarded_api, headers=bearer(key)) as http:
        wait_until(lambda: http.get("/models").is_success)
    for sent, said in (("", "No key was sent"), (new_key(), "The key is not known")):
        monkeypatch.setenv("MLOPS_API_KEY", sent)
        shown = read(open_page("predict").error)
        assert said in shown
        assert "Set MLOPS_API_KEY to such a key." in shown
        assert not sent or sent not in shown
    monkeypatch.setenv("MLOPS_API_KEY", key)
    app = click(open_page("predict"), "Predict")
    assert len(app.title) == 2
    click(app, "setosa")
    assert "Not stored." in read(app.error)
    assert "answered 401" not in read(app.error)
