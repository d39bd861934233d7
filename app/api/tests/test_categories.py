"""Features whose values are a closed list: what each protocol says of others, what the document and the gate know."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from app.api.main import create_app
from app.registry.bundle import Bundle, read_bundle
from app.registry.gate import signature_differences
from app.testing.model_api import GATE, absent_mlflow, cache_bundle, mixed_rows, settings
from flows.bundle_writer import FittedModel, build_bundle
from flows.dataset import DatasetError, validate
from flows.model import Gate, Model, ModelFileError

ROW = {"colour": "red", "doors": 4, "weight": 900.0}
PATH = "/models/cars/predict"
MESSAGE = "colour should be one of blue, green, red"


def bundle(folder: Path, categories: tuple[str, ...] = ("colour",), **only: Any) -> Bundle:
    """A model that fails on a colour it does not know; `only` are the colours it is trained on."""
    frame, labels = mixed_rows()
    if only:
        keep = frame["colour"].isin(only["colours"])
        frame, labels = frame[keep], labels[keep]
    encoder = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
    estimator = make_pipeline(encoder, DecisionTreeClassifier(random_state=0)).fit(frame, labels)
    fitted = FittedModel(estimator, frame, labels, "classification", "expensive", GATE, categories=categories)
    build_bundle(folder, fitted)
    return read_bundle(folder)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("cars")
    bundle(folder / "bundle")
    cache_bundle(folder / "cache", "cars", folder / "bundle")
    with TestClient(create_app(settings(folder / "cache", default_model="cars"), absent_mlflow())) as client:
        yield client


def test_known_values_are_predicted(client: TestClient) -> None:
    assert client.post(PATH, json=ROW).status_code == 200
    assert client.post(PATH, json=[ROW, {**ROW, "colour": "blue"}]).status_code == 200


@pytest.mark.parametrize("value", ["pink", "Red", "red ", "", 5, None, "x" * 200_000])
def test_another_value_is_refused_with_those_there_are(client: TestClient, value: Any) -> None:
    for body in ({**ROW, "colour": value}, [ROW, {**ROW, "colour": value}]):
        answer = client.post(PATH, json=body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"][0]["msg"] == MESSAGE


def test_in_a_query_and_in_csv_too(client: TestClient) -> None:
    query = client.get(f"{PATH}?colour=pink&doors=4&weight=900")
    assert query.json()["detail"][0]["msg"] == MESSAGE
    csv = client.post("/invocations", content="colour,doors,weight\npink,4,900\n", headers={"Content-Type": "text/csv"})
    assert csv.status_code == 422
    assert MESSAGE in csv.text


def test_in_tensors_too(client: TestClient) -> None:
    inputs = [
        {"name": "colour", "datatype": "BYTES", "shape": [1], "data": ["pink"]},
        {"name": "doors", "datatype": "INT64", "shape": [1], "data": [4]},
        {"name": "weight", "datatype": "FP64", "shape": [1], "data": [900.0]},
    ]
    answer = client.post("/v2/models/cars/infer", json={"inputs": inputs})
    assert answer.status_code == 422
    assert MESSAGE in answer.json()["error"]
    inputs[0]["data"] = ["red"]
    assert client.post("/v2/models/cars/infer", json={"inputs": inputs}).status_code == 200


@pytest.mark.parametrize(("colour", "status"), [("red", 200), ("pink", 422)])
def test_in_binary_tensors_too(client: TestClient, colour: str, status: int) -> None:
    text = struct.pack("<I", len(colour)) + colour.encode()
    parts = [text, np.array([4], dtype="<i8").tobytes(), np.array([900.0], dtype="<f8").tobytes()]
    inputs = [
        {"name": name, "datatype": kind, "shape": [1], "parameters": {"binary_data_size": len(part)}}
        for (name, kind), part in zip((("colour", "BYTES"), ("doors", "INT64"), ("weight", "FP64")), parts, strict=True)
    ]
    header = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"}
    answer = client.post("/v2/models/cars/infer", content=header + b"".join(parts), headers=headers)
    assert answer.status_code == status, answer.text
    assert status == 200 or MESSAGE in answer.text


def test_document_and_information_have_the_values(client: TestClient) -> None:
    feature = client.get("/models/cars").json()["features"][0]
    assert feature["only"] == ["blue", "green", "red"]
    document = client.get("/openapi.json").json()
    rows = [
        s["properties"]["colour"]
        for s in document["components"]["schemas"].values()
        if "colour" in s.get("properties", {})
    ]
    assert rows
    assert rows[0]["enum"] == ["blue", "green", "red"]


def test_a_later_version_that_knows_fewer_is_not_promoted(tmp_path: Path) -> None:
    closed, fewer = bundle(tmp_path / "a"), bundle(tmp_path / "b", colours=["red", "blue"])
    opened = bundle(tmp_path / "c", categories=())
    assert signature_differences(closed, closed) == []
    assert signature_differences(opened, closed) == []
    assert signature_differences(closed, fewer) == []
    assert signature_differences(fewer, closed) == [
        "colour may be green there and not here (none of the rows trained on)"
    ]
    assert signature_differences(closed, opened) == [
        "colour may be any text there and not here (categories in the model file)"
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [(("color",), "names 'color', which is no feature"), (("doors",), "names 'doors', which is no text but int64")],
)
def test_what_is_no_feature_of_text_is_named(names: tuple[str, ...], message: str) -> None:
    frame, labels = mixed_rows()
    rows = frame.assign(expensive=labels.map({True: "yes", False: "no"}))
    model = Model("classification", "expensive", lambda: rows, DecisionTreeClassifier, Gate("accuracy", 0.5))
    model = replace(model, name="cars", categories=names)
    with pytest.raises(DatasetError, match=message):
        validate(model, rows)


def test_a_single_name_is_told_from_a_tuple() -> None:
    with pytest.raises(ModelFileError, match=r"categories is 'colour', not a tuple of names: \('colour',\)"):
        Model("regression", "y", lambda: None, lambda _: None, Gate("r2", 0.5), categories="colour")  # type: ignore[arg-type, return-value]
