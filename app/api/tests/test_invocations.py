from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from app.api.main import create_app
from app.testing.model_api import SETOSA, VIRGINICA, Example, absent_mlflow, cache_bundle, settings

COLUMNS, ROWS = list(SETOSA), [list(SETOSA.values()), list(VIRGINICA.values())]
CSV = {"content-type": "text/csv; charset=utf-8"}
HEADER = ",".join(COLUMNS)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": COLUMNS, "data": ROWS}},
        {"dataframe_split": {"columns": COLUMNS[::-1], "index": [7, 9], "data": [row[::-1] for row in ROWS]}},
        {"dataframe_split": {"data": ROWS}},
        {"dataframe_records": [SETOSA, VIRGINICA]},
        {"instances": [SETOSA, VIRGINICA]},
        {"instances": ROWS},
        {"inputs": {name: [SETOSA[name], VIRGINICA[name]] for name in COLUMNS}},
        {"inputs": ROWS},
        {"inputs": [SETOSA, VIRGINICA], "params": {}},
        {"inputs": [SETOSA, VIRGINICA], "params": {"temperature": 0.5}},
        {"dataframe_split": {"columns": COLUMNS, "data": ROWS}, "params": None},
    ],
)
def test_mlflows_formats_are_read(client: TestClient, body: Any) -> None:
    response = client.post("/invocations", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["predictions"] == ["setosa", "virginica"]
    assert len(answer["prediction_ids"]) == 2
    assert (answer["model"], answer["version"], answer["run_id"]) == ("iris", "1", "run-of-iris")


def test_one_row_as_an_object_of_values(client: TestClient) -> None:
    assert client.post("/invocations", json={"inputs": SETOSA}).json()["predictions"] == ["setosa"]


@pytest.mark.parametrize("name", ["inputs", "instances"])
@pytest.mark.parametrize("values", [[1, 5.5], [[1], [5.5]], {"petal_length": [1, 5.5]}])
def test_the_values_of_a_single_feature(tmp_path: Path, narrow: Example, name: str, values: Any) -> None:
    cache_bundle(tmp_path, "narrow", narrow.bundle)
    with TestClient(create_app(settings(tmp_path), absent_mlflow())) as client:
        response = client.post("/invocations", json={name: values})
        assert response.json()["predictions"] == narrow.expected([{"petal_length": 1.0}, {"petal_length": 5.5}])
        refused = client.post("/invocations", json={name: [1, "x"]})
        assert refused.json()["detail"][0]["loc"] == ["body", name, 1, "petal_length"]


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON;Charset=\"UTF-8\"",
                     "application/json; charset=us-ascii", "text/plain", "application/x-www-form-urlencoded", ""]
)  # fmt: skip
def test_json_is_read_whatever_it_is_said_to_be(client: TestClient, content_type: str) -> None:
    body = json.dumps({"instances": ROWS})
    response = client.post("/invocations", content=body, headers={"content-type": content_type})
    assert response.json()["predictions"] == ["setosa", "virginica"]


@pytest.mark.parametrize(
    ("content_type", "why"),
    [
        ("application/json; format=pandas-split", "the format 'pandas-split', of MLflow 1: send {\"dataframe_split\""),
        ("application/json; format=pandas-records", "the format 'pandas-records', of MLflow 1"),
        ("application/json; charset=utf-16", "the charset 'utf-16': send UTF-8"),
        ("text/csv; header=present; charset=latin-1", "the charset 'latin-1': send UTF-8"),
        ("application/vnd.apache.parquet", "Parquet is not read here: send application/json or text/csv"),
    ],
)
def test_a_content_type_that_is_not_read_is_415(client: TestClient, content_type: str, why: str) -> None:
    response = client.post("/invocations", content=b"{}", headers={"content-type": content_type})
    assert response.status_code == 415
    assert why in response.json()["detail"]


def test_the_index_that_pandas_writes_is_left_out(client: TestClient) -> None:
    text = pd.DataFrame([SETOSA, VIRGINICA], index=["a", "b"]).to_csv()
    assert client.post("/invocations", content=text, headers=CSV).json()["predictions"] == ["setosa", "virginica"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_csv_is_read(client: TestClient, newline: str, start: str) -> None:
    lines = [HEADER, *(",".join(map(str, row)) for row in ROWS), ""]
    response = client.post("/invocations", content=(start + newline.join(lines)).encode(), headers=CSV)
    assert response.json()["predictions"] == ["setosa", "virginica"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"dataframe": []}, ["body", "dataframe"]),
        ({"instances": ROWS, "inputs": ROWS}, ["body"]),
        ({"instances": ROWS, "x": 1}, ["body", "x"]),
        ({"instances": 5}, ["body", "instances"]),
        ({"instances": []}, ["body", "instances"]),
        ({"instances": [ROWS[0], ROWS[1][:3]]}, ["body", "instances", 1]),
        ({"instances": [ROWS[0], SETOSA]}, ["body", "instances", 0]),
        ({"inputs": {"sepal_length": [1, 2], "sepal_width": [1]}}, ["body", "inputs"]),
        ({"inputs": {}}, ["body", "inputs"]),
        ({"dataframe_split": 5}, ["body", "dataframe_split"]),
        ({"dataframe_split": {"columns": COLUMNS}}, ["body", "dataframe_split"]),
        ({"dataframe_split": {"columns": 5, "data": ROWS}}, ["body", "dataframe_split", "columns"]),
        ({"dataframe_split": {"colums": COLUMNS, "data": ROWS}}, ["body", "dataframe_split", "colums"]),
        ({"inputs": [1, 2, 3, 4]}, ["body", "inputs", 0]),
        ({"dataframe_split": {"columns": [5], "data": ROWS}}, ["body", "dataframe_split", "columns"]),
        ({"dataframe_split": {"columns": [*COLUMNS[:3], "sepal_length"], "data": ROWS}},
         ["body", "dataframe_split", "columns"]),
        ({"dataframe_split": {"columns": COLUMNS, "data": [5]}}, ["body", "dataframe_split", "data", 0]),
        ({"dataframe_split": {"columns": COLUMNS, "data": [[1, 2, "x", 4]]}},
         ["body", "dataframe_split", "data", 0, "petal_length"]),
        ({"dataframe_records": [SETOSA, {**SETOSA, "x": 1}]}, ["body", "dataframe_records", 1, "x"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(client: TestClient, body: Any, where: list[Any]) -> None:
    response = client.post("/invocations", json=body)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == where


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("", ["body"]),
        (HEADER, ["body"]),
        (f"{HEADER}\n1,2,3", ["body", 0]),
        (f"{HEADER}\n1,2,3,4\n1,2,x,4", ["body", 1, "petal_length"]),
        (f"{HEADER}\n1,2,inf,4", ["body", 0, "petal_length"]),
        (f"{HEADER},more\n1,2,3,4,5", ["body", 0, "more"]),
        (f"{HEADER},petal_width\n1,2,3,4,5", ["body", 0]),
        (f'{HEADER}\n"1,2,3,4', ["body"]),
        (f"{HEADER}\n" + "1" * 200_000 + ",2,3,4", ["body"]),
        (f"{HEADER}\n" + "1,2,3,4\n" * 10_001, ["body"]),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(client: TestClient, body: str, where: list[Any]) -> None:
    response = client.post("/invocations", content=body.encode(), headers=CSV)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == where


def test_a_csv_in_another_encoding_is_422(client: TestClient) -> None:
    assert client.post("/invocations", content=b"\xff\xfe" + HEADER.encode(), headers=CSV).status_code == 422
