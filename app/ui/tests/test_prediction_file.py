"""A CSV that is dropped on the page Predict comes back with predictions."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from app.clients.errors import ServiceError
from app.clients.model_api import ModelApiClient
from app.testing.pages import open_page, ran, read
from app.ui.pages import prediction_file
from app.ui.pages.prediction_file import with_predictions

HEAD = "id,petal_width,sepal_length,sepal_width,petal_length"
FLOWERS = f"{HEAD}\na,0.2,5.1,3.5,1.4\nb,2.3,6.7,3.0,5.2\n"


def predicted(served: Any, kind: str, text: str) -> list[dict[str, str]]:
    with ModelApiClient(served.url, timeout=30) as api:
        content = with_predictions(api, api.model(served.names[kind]), text.encode())
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_a_file_comes_back_with_predictions_and_its_own_columns(served: Any) -> None:
    first, second = predicted(served, "iris", FLOWERS)
    assert (first["id"], first["species"], second["id"], second["species"]) == ("a", "setosa", "b", "virginica")
    assert first["version"] == "1"
    assert float(first["probability_setosa"]) > 0.9
    assert list(first)[:5] == HEAD.split(",")


def test_many_rows_are_asked_in_parts(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_file, "AT_ONCE", 7)
    shares: list[float] = []
    rows = "".join(f"{i},{0.2 if i % 2 else 2.3},5.1,3.5,{1.4 if i % 2 else 5.2}\n" for i in range(50))
    with ModelApiClient(served.url, timeout=30) as api:
        info = api.model(served.names["iris"])
        content = with_predictions(api, info, f"{HEAD}\n{rows}".encode(), shares.append)
    answered = list(csv.DictReader(io.StringIO(content.decode())))
    assert [row["id"] for row in answered] == [str(i) for i in range(50)]
    assert [row["species"] == "setosa" for row in answered] == [bool(i % 2) for i in range(50)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_text_whole_numbers_and_true_or_false_are_read_by_the_signature(served: Any) -> None:
    text = "price,colour,doors,weight,diesel\n?,red,4.0,1000,True\n?,blue,2,900.5,0\n"
    rows = predicted(served, "cars", text)
    expected = [
        served.predict("cars", {"colour": "red", "doors": 4, "weight": 1000.0, "diesel": True}),
        served.predict("cars", {"colour": "blue", "doors": 2, "weight": 900.5, "diesel": False}),
    ]
    assert [row["predicted_price"] for row in rows] == [answer["prediction"] for answer in expected]
    assert [row["price"] for row in rows] == ["?", "?"]


def test_an_empty_value_is_a_missing_one_where_there_may_be_some(served: Any) -> None:
    (row,) = predicted(served, "patients", "age,pressure\n,150\n")
    assert row["sick"] == served.predict("patients", {"pressure": 150.0})["prediction"]


def test_dates_are_sent_as_they_are_and_a_wrong_one_is_named(served: Any) -> None:
    first, second = predicted(served, "members", "joined,last_order_at,visits\n2021-05-01,,7\n2025-05-01 10:00,,7\n")
    assert (first["leaves"], second["leaves"]) == ("no", "yes")
    with pytest.raises(ServiceError) as refused:
        predicted(served, "members", "joined,visits\n2021-05-01,7\n5/1/2021,7\n")
    assert refused.value.what.startswith("Row 2: joined is '5/1/2021', not a date or time such as 2026-03-01 or ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The file has no column sepal_length, sepal_width"),
        ("sepal_length,sepal_width,petal_length\n1,2,3\n", "The file has no column petal_width"),
        (f"{HEAD}\n", "The file has 0 rows"),
        (f"{HEAD}\na,0.2,5.1,3.5\n", "Row 1 has 4 values, the header 5"),
        (f"{HEAD}\na,0.2,5.1,3.5,1.4\nb,wide,5.1,3.5,1.4\n", "Row 2: petal_width is 'wide', not a number"),
        (f"{HEAD}\na,,5.1,3.5,1.4\n", "Row 1: petal_width is '', not a number"),
        (f"{HEAD}\na,nan,5.1,3.5,1.4\n", "Row 1: petal_width is 'nan', not a number"),
        (f"{HEAD}\na,1e300,5.1,3.5,1.4\n", "Rows 1 to 1: "),
        (f"{HEAD},id\na,0.2,5.1,3.5,1.4,b\n", "The column id is there more than once"),
        (f'{HEAD}\n"a,0.2,5.1,3.5,1.4\n', "The file is no CSV in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(served: Any, text: str, message: str) -> None:
    with pytest.raises(ServiceError) as refused:
        predicted(served, "iris", text)
    assert refused.value.what.startswith(message)
    assert refused.value.cure


def test_the_file_is_dropped_on_the_page(served: Any) -> None:
    app = open_page("predict", served.names["iris"])
    app.file_uploader[0].set_value(("flowers.csv", FLOWERS.encode(), "text/csv"))
    ran(app)
    assert not app.error, read(app.error)
    (button,) = app.get("download_button")
    assert button.proto.label == "Download with predictions"


def test_a_wrong_file_is_answered_on_the_page(served: Any) -> None:
    app = open_page("predict", served.names["iris"])
    app.file_uploader[0].set_value(("flowers.csv", b"a,b\n1,2\n", "text/csv"))
    ran(app)
    assert "The file has no column sepal_length" in read(app.error)
