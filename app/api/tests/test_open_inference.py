from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.asgi import LENGTH_HEADER
from app.api.main import create_app
from app.contract.status import LoadFailure
from app.testing.model_api import SETOSA, VIRGINICA, Example, absent_mlflow, cache_bundle, settings, state_of

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
@pytest.mark.parametrize("name", ["features", "predict", "input-0", "", "sepal_length"])
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
        ({"name": "x", "shape": [8]}, ["body", "inputs", 0, "shape"]),
        ({"name": "sepal_length", "shape": [8]}, ["body", "inputs"]),
        ({"name": "sepal_length", "shape": [8, 1]}, ["body", "inputs"]),
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


@pytest.fixture
def narrow_client(narrow: Example, tmp_path: Path) -> Iterator[TestClient]:
    """A model of a single feature, petal_length."""
    cache_bundle(tmp_path, "narrow", narrow.bundle)
    with TestClient(create_app(settings(tmp_path), absent_mlflow())) as client:
        yield client


@pytest.mark.parametrize("name", ["petal_length", "features", "x"])
@pytest.mark.parametrize("shape", [[3], [3, 1]])
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT64"])
@pytest.mark.parametrize("data", [[1, 5, 2], [[1], [5], [2]]])
def test_a_single_feature_under_any_name(
    narrow_client: TestClient, narrow: Example, name: str, shape: list[int], datatype: str, data: list[Any]
) -> None:
    tensor = {"name": name, "shape": shape, "datatype": datatype, "data": data}
    tensors = outputs(narrow_client.post("/v2/models/narrow/infer", json={"inputs": [tensor]}))
    assert tensors["label"]["data"] == narrow.expected([{"petal_length": float(value)} for value in (1, 5, 2)])


@pytest.mark.parametrize("shape", [[2], [3, 2], [1, 3], [3, 1, 1], []])
@pytest.mark.parametrize("name", ["petal_length", "x"])
def test_a_single_feature_of_another_shape_is_422(narrow_client: TestClient, name: str, shape: list[int]) -> None:
    tensor = {"name": name, "shape": shape, "datatype": "FP64", "data": [1, 5, 2]}
    response = narrow_client.post("/v2/models/narrow/infer", json={"inputs": [tensor]})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "inputs", 0, "shape"]


def test_one_tensor_of_features_whose_types_differ_is_422(client: TestClient) -> None:
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}
    response = client.post("/v2/models/cars/infer", json={"inputs": [tensor]})
    assert response.status_code == 422
    assert "send one input for each of: colour, doors, weight" in response.json()["error"]


def test_a_json_request_may_ask_for_all_outputs_in_binary(client: TestClient) -> None:
    response = client.post(PATH, json=matrix() | {"parameters": {"binary_data_output": True}})
    answer = json.loads(response.content[: int(response.headers[LENGTH_HEADER])])
    assert [output["parameters"]["binary_data_size"] > 0 for output in answer["outputs"]] == [True] * 3


def test_a_tensor_without_values_is_422(client: TestClient) -> None:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "parameters": {"shared_memory_region": "a"}}
    response = client.post(PATH, json={"inputs": [tensor]})
    assert response.status_code == 422
    assert "the tensor has no values: send data" in response.json()["error"]


@pytest.mark.parametrize("parameter", ["classification", "shared_memory_region"])
def test_outputs_in_a_form_that_is_not_spoken_are_422(client: TestClient, parameter: str) -> None:
    output = {"name": "label", "parameters": {parameter: 1}}
    response = client.post(PATH, json=matrix() | {"outputs": [output]})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "outputs", 0, "parameters", parameter]


@pytest.mark.parametrize("path", [PATH, "/predict", "/invocations", "/feedback"])
@pytest.mark.parametrize("coding", ["deflate", "GZIP", "br"])
def test_a_compressed_body_is_400(client: TestClient, path: str, coding: str) -> None:
    body = zlib.compress(json.dumps(matrix()).encode())
    response = client.post(path, content=body, headers={"Content-Encoding": coding})
    assert response.status_code == 400
    assert f"Content-Encoding is '{coding.lower()}': send the body uncompressed" in response.json()["detail"]


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "identity"}])
def test_what_is_not_compressed_is_told_what_is_wrong(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post(PATH, json=matrix(), headers=headers).status_code == 200
    assert "not valid JSON" in client.post(PATH, content=b"x", headers=headers).json()["error"]


def test_the_repository_has_what_is_in_service(client: TestClient, examples: dict[str, Example]) -> None:
    ready = [{"name": name, "version": "1", "state": "READY", "reason": ""} for name in sorted(examples)]
    for body in (b"", b"{}", b'{"ready": true}', b'{"ready": false}', b'{"repository_name": "x"}'):
        assert client.post("/v2/repository/index", content=body).json() == ready
    models = state_of(client).models
    before = models.failures
    models.failures = {"iris": LoadFailure(version="2", reason="golden: row 3", at="")}
    try:
        broken = {"name": "iris", "version": "2", "state": "UNAVAILABLE", "reason": "golden: row 3"}
        assert client.post("/v2/repository/index").json() == [*ready, broken]
        assert client.post("/v2/repository/index", json={"ready": True}).json() == ready
    finally:
        models.failures = before


@pytest.mark.parametrize("body", [b"x", b"5", b"[]", b'{"ready": "yes"}', b'{"ready": null}'])
def test_what_is_wrong_with_a_look_at_the_repository_is_named(client: TestClient, body: bytes) -> None:
    response = client.post("/v2/repository/index", content=body)
    assert response.status_code == 422
    assert response.json()["error"]


def test_a_look_at_the_repository_may_not_be_large(client: TestClient) -> None:
    assert client.post("/v2/repository/index", content=b" " * (2**20 + 1)).status_code == 413


def test_nothing_is_loaded_by_request(client: TestClient) -> None:
    for action in ("load", "unload"):
        response = client.post(f"/v2/repository/models/iris/{action}")
        assert response.status_code == 400
        assert "run `mlops promote iris`" in response.json()["error"]


def test_what_is_not_there_is_named(client: TestClient) -> None:
    for path in ("/v2/models/iris/config", "/v2/models/iris/versions/1/stats", "/v2/systemsharedmemory/status"):
        response = client.get(path)
        assert response.status_code == 404
        assert response.json()["error"].startswith(f"there is no GET {path} here")
    wrong_method = client.delete("/v2/models/iris")
    assert (wrong_method.status_code, wrong_method.json()["error"]) == (405, "Method Not Allowed")
    not_posted = client.get("/v2/models/iris/infer")
    assert (not_posted.status_code, not_posted.json()["error"]) == (405, "Method Not Allowed")
    assert "GET" in wrong_method.headers["Allow"]
    assert client.get("/nothing").json() == {"detail": "Not Found"}
