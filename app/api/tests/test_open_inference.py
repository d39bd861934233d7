from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.testing.model_api import SETOSA, VIRGINICA, Example

ROWS = [list(SETOSA.values()), list(VIRGINICA.values())]
FLAT = [*ROWS[0], *ROWS[1]]
PATH = "/v2/models/iris/infer"


def matrix(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "features", "shape": [2, 4], "datatype": "FP64", "data": FLAT}
    return {"inputs": [tensor | changes]}


def columns(row: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = {str: "BYTES", int: "INT64", float: "FP64"}
    return [{"name": k, "shape": [1], "datatype": kinds[type(v)], "data": [v]} for k, v in row.items()]


def outputs(response: Any) -> dict[str, dict[str, Any]]:
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.json()["outputs"]}


@pytest.mark.parametrize("data", [FLAT, ROWS])
@pytest.mark.parametrize("name", ["features", "predict"])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_one_tensor_of_all_features(client: TestClient, data: list[Any], name: str, datatype: str) -> None:
    response = client.post(PATH, json=matrix(data=data, name=name, datatype=datatype) | {"id": "a request"})
    tensors = outputs(response)
    assert tensors["label"] == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["setosa", "virginica"]}
    assert tensors["probabilities"]["shape"] == [2, 3]
    assert len(tensors["probabilities"]["data"]) == 6
    assert len(set(tensors["prediction_id"]["data"])) == 2
    body = response.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("iris", "1", "a request")
    assert body["parameters"] == {"run_id": "run-of-iris"}


def test_one_tensor_per_feature(client: TestClient, examples: dict[str, Example]) -> None:
    row = {"colour": "red", "doors": 5, "weight": 1000.5}
    tensors = outputs(client.post("/v2/models/cars/infer", json={"inputs": columns(row)}))
    assert tensors["label"]["datatype"] == "BOOL"
    assert tensors["label"]["data"] == examples["cars"].expected([row])


def test_a_regression_answers_values(client: TestClient, examples: dict[str, Example]) -> None:
    rows = examples["diabetes"].rows(3)
    tensor = {"name": "features", "shape": [3, 10], "datatype": "FP64", "data": [list(row.values()) for row in rows]}
    tensors = outputs(client.post("/v2/models/diabetes/infer", json={"inputs": [tensor]}))
    assert tensors["value"]["data"] == pytest.approx(examples["diabetes"].expected(rows), rel=1e-4)


def test_only_the_requested_outputs_are_answered(client: TestClient) -> None:
    assert list(outputs(client.post(PATH, json=matrix() | {"outputs": [{"name": "label"}]}))) == ["label"]
    response = client.post(PATH, json=matrix() | {"outputs": [{"name": "labels"}]})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "outputs", 0, "name"]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"shape": [2, 3]}, ["body", "inputs", 0, "shape"]),
        ({"shape": [-1, 4]}, ["body", "inputs", 0, "shape"]),
        ({"shape": [8]}, ["body", "inputs", 0, "shape"]),
        ({"shape": [10**30, 4]}, ["body", "inputs", 0, "shape"]),
        ({"shape": []}, ["body", "inputs", 0, "shape"]),
        ({"shape": [0, 4], "data": []}, ["body", "inputs", 0, "data"]),
        ({"datatype": "BYTES"}, ["body", "inputs", 0, "datatype"]),
        ({"datatype": "FLOAT"}, ["body", "inputs", 0, "datatype"]),
        ({"data": [ROWS[0], 5]}, ["body", "inputs", 0, "data"]),
        ({"data": [[ROWS[0]], [ROWS[1]]]}, ["body", "inputs", 0, "data"]),
        ({"data": [*ROWS[0], *ROWS[1][:3], "x"]}, ["body", "inputs", 0, "data", 1, "petal_width"]),
        ({"data": [*ROWS[0], *ROWS[1][:3], 1e300]}, ["body", "inputs", 0, "data", 1, "petal_width"]),
        ({"data": [*ROWS[0], *ROWS[1][:3], 10**400]}, ["body", "inputs", 0, "data", 1, "petal_width"]),
        ({"data": [*ROWS[0], *ROWS[1][:3], True]}, ["body", "inputs", 0, "data", 1, "petal_width"]),
        ({"name": "x"}, ["body", "inputs", 0]),
    ],
)
def test_what_is_wrong_with_a_tensor_is_named(client: TestClient, change: dict[str, Any], where: list[Any]) -> None:
    response = client.post(PATH, json=matrix(**change))
    assert response.status_code == 422
    body = response.json()
    assert body["detail"][0]["loc"] == where
    assert body["detail"][0]["msg"] in body["error"]


def test_what_is_wrong_with_a_feature_is_named(client: TestClient) -> None:
    def send(inputs: list[dict[str, Any]]) -> Any:
        response = client.post("/v2/models/cars/infer", json={"inputs": inputs})
        assert response.status_code == 422
        return response.json()["detail"][0]["loc"]

    good = columns({"colour": "red", "doors": 5, "weight": 1000.5})
    assert send(good[:2]) == ["body", "inputs"]
    assert send([*good, good[0]]) == ["body", "inputs"]
    assert send([*good, good[0] | {"name": "x"}]) == ["body", "inputs", 3]
    assert send([good[0], good[1] | {"data": [5.5], "datatype": "FP64"}, good[2]]) == ["body", "inputs", 1, "data", 0]
    assert send([good[0], good[1] | {"datatype": "BYTES"}, good[2]]) == ["body", "inputs", 1, "datatype"]
    assert send([good[0], good[1] | {"shape": [2], "data": [1, 2]}, good[2]]) == ["body", "inputs"]
    assert send([good[0] | {"shape": [1, 2], "data": ["a", "b"]}, *good[1:]]) == ["body", "inputs", 0, "shape"]
    assert send([{"name": "features", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}])[:3] == [
        "body",
        "inputs",
        0,
    ]


def test_another_version_than_the_served_one_is_404(client: TestClient) -> None:
    assert client.post("/v2/models/iris/versions/1/infer", json=matrix()).status_code == 200
    for path in ("/v2/models/iris/versions/2/infer", "/v2/models/tulips/infer"):
        response = client.post(path, json=matrix())
        assert response.status_code == 404
        assert response.json()["error"]


def test_metadata_tells_what_to_send(client: TestClient) -> None:
    iris = client.get("/v2/models/iris").json()
    assert iris["versions"] == ["1"]
    assert iris["inputs"] == [{"name": "features", "datatype": "FP64", "shape": [-1, 4]}]
    assert [output["name"] for output in iris["outputs"]] == ["label", "probabilities", "prediction_id"]
    cars = client.get("/v2/models/cars/versions/1").json()
    assert [(i["name"], i["datatype"]) for i in cars["inputs"]] == [
        ("colour", "BYTES"), ("doors", "INT64"), ("weight", "FP64"),
    ]  # fmt: skip
    assert client.get("/v2/models/iris/versions/7").status_code == 404
    assert client.get("/v2/models/tulips").json()["error"]


def test_health(client: TestClient, empty_client: TestClient) -> None:
    assert client.get("/v2").json()["name"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/iris/ready", "/v2/models/iris/versions/1/ready"):
        assert client.get(path).status_code == 200
    assert empty_client.get("/v2/health/live").status_code == 200
    assert empty_client.get("/v2/health/ready").status_code == 503
    assert empty_client.get("/v2/models/iris/ready").status_code == 503
    assert client.get("/v2/models/tulips/ready").status_code == 404
