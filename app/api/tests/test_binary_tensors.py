from __future__ import annotations

import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.api.asgi import LENGTH_HEADER, MAX_BINARY_BODY
from app.api.binary_tensors import DTYPES, MAX_BINARY_ROWS
from app.testing.model_api import SETOSA, VIRGINICA, Example, metric

PATH = "/v2/models/iris/infer"
ROWS = np.array([list(SETOSA.values()), list(VIRGINICA.values())], dtype="<f4")


def encoded(values: Any, datatype: str) -> bytes:
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.asarray(values, dtype=DTYPES[datatype]).tobytes()


def tensor(name: str, datatype: str, shape: list[int], size: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def post(client: TestClient, path: str, content: dict[str, Any], binary: bytes, length: str = "") -> httpx.Response:
    text = json.dumps(content).encode()
    return client.post(path, content=text + binary, headers={LENGTH_HEADER: length or str(len(text))})


def matrix(rows: np.ndarray = ROWS, **more: Any) -> tuple[dict[str, Any], bytes]:
    binary = rows.tobytes()
    return {"inputs": [tensor("features", "FP32", list(rows.shape), len(binary))], **more}, binary


def labels(response: httpx.Response) -> list[Any]:
    assert response.status_code == 200, response.text
    return next(o["data"] for o in response.json()["outputs"] if o["name"] in ("label", "value"))


def test_it_is_announced(client: TestClient) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data", "model_repository"]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT8", "INT64", "UINT16"])
def test_a_matrix_in_binary_is_answered_as_one_in_json(client: TestClient, datatype: str) -> None:
    values = ROWS.astype(DTYPES[datatype]).astype(float)
    content = {"inputs": [{**tensor("features", datatype, [2, 4], 0), "parameters": {}, "data": values.tolist()}]}
    binary = encoded(values, datatype)
    in_binary = {"inputs": [tensor("features", datatype, [2, 4], len(binary))]}
    assert labels(post(client, PATH, in_binary, binary)) == labels(client.post(PATH, json=content))


def test_tensors_in_binary_and_in_json_go_together(client: TestClient, examples: dict[str, Example]) -> None:
    rows = examples["cars"].rows(20)
    colours, doors = encoded([r["colour"] for r in rows], "BYTES"), encoded([r["doors"] for r in rows], "INT32")
    content = {
        "inputs": [
            tensor("doors", "INT32", [20], len(doors)),
            {"name": "weight", "datatype": "FP64", "shape": [20, 1], "data": [row["weight"] for row in rows]},
            tensor("colour", "BYTES", [20, 1], len(colours)),
        ]
    }
    response = post(client, "/v2/models/cars/infer", content, doors + colours)
    assert labels(response) == examples["cars"].expected(rows)


def test_outputs_in_binary(client: TestClient) -> None:
    content, binary = matrix(parameters={"binary_data_output": True}, outputs=[
        {"name": "probabilities"}, {"name": "label"}, {"name": "prediction_id", "parameters": {"binary_data": False}},
    ])  # fmt: skip
    response = post(client, PATH, content, binary)
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers[LENGTH_HEADER])
    answer, rest = json.loads(response.content[:length]), response.content[length:]
    probabilities, label, prediction_id = answer["outputs"]
    sizes = [output["parameters"]["binary_data_size"] for output in (probabilities, label)]
    assert sum(sizes) == len(rest)
    assert np.frombuffer(rest[: sizes[0]], "<f8").reshape(probabilities["shape"]).sum(axis=1) == pytest.approx([1, 1])
    assert rest[sizes[0] :] == encoded(["setosa", "virginica"], "BYTES")
    assert len(prediction_id["data"]) == 2
    assert "parameters" not in prediction_id


def test_a_regression_in_binary(client: TestClient, examples: dict[str, Example]) -> None:
    frame = examples["diabetes"].frame.head(500)
    content, binary = matrix(
        frame.to_numpy(dtype="<f4"), outputs=[{"name": "value", "parameters": {"binary_data": True}}]
    )
    response = post(client, "/v2/models/diabetes/infer", content, binary)
    values = np.frombuffer(response.content[int(response.headers[LENGTH_HEADER]) :], "<f8")
    assert values == pytest.approx(examples["diabetes"].estimator.predict(frame), rel=1e-4)


def test_more_rows_than_json_may_have(client: TestClient) -> None:
    before = metric(client, "mlops_predictions_total", model="iris", label="setosa") or 0
    rows = np.tile(ROWS[:1], (MAX_BINARY_ROWS, 1))
    content, binary = matrix(rows, outputs=[{"name": "label"}])
    assert labels(post(client, PATH, content, binary)) == ["setosa"] * MAX_BINARY_ROWS
    assert metric(client, "mlops_predictions_total", model="iris", label="setosa") == before + MAX_BINARY_ROWS
    content, binary = matrix(np.tile(ROWS[:1], (MAX_BINARY_ROWS + 1, 1)))
    assert post(client, PATH, content, binary).status_code == 422


def test_feedback_tokens_in_binary_requests(client: TestClient) -> None:
    content, binary = matrix()
    text = json.dumps(content).encode()
    headers = {LENGTH_HEADER: str(len(text)), "Feedback-Token": "true"}
    response = client.post(PATH, content=text + binary, headers=headers)
    assert [output["name"] for output in response.json()["outputs"]][-1] == "feedback_token"


def test_a_body_that_is_too_large_is_413(client: TestClient) -> None:
    response = client.post(PATH, content=b" " * (MAX_BINARY_BODY + 1), headers={LENGTH_HEADER: "5"})
    assert response.status_code == 413
    assert "16 MiB" in response.json()["error"]


@pytest.mark.parametrize("length", ["-1", "1e3", "99999", "x", "5.0"])
def test_a_length_that_is_none_is_400(client: TestClient, length: str) -> None:
    response = post(client, PATH, *matrix(), length=length)
    assert response.status_code == 400
    assert LENGTH_HEADER in response.json()["error"]


@pytest.mark.parametrize(
    ("changes", "binary", "where"),
    [
        ({}, ROWS.tobytes()[:-1], "binary_data_size"),
        ({}, ROWS.tobytes() + b"1234", "body"),
        ({"parameters": {"binary_data_size": 31}}, ROWS.tobytes()[:31], "binary_data_size"),
        ({"parameters": {"binary_data_size": -1}}, b"", "binary_data_size"),
        ({"parameters": {"binary_data_size": "32"}}, ROWS.tobytes(), "binary_data_size"),
        ({"parameters": {"binary_data_size": True}}, ROWS.tobytes(), "binary_data_size"),
        ({"parameters": {}}, b"", "data"),
        ({"data": [1.0]}, ROWS.tobytes(), "data"),
        ({"shape": [4, 2]}, ROWS.tobytes(), "shape"),
        ({"shape": [3, 4]}, ROWS.tobytes(), "shape"),
        ({"shape": [0, 4], "parameters": {"binary_data_size": 0}}, b"", "inputs"),
        ({"datatype": "FP8"}, ROWS.tobytes(), "datatype"),
        ({"datatype": "BOOL", "parameters": {"binary_data_size": 8}}, b"\0" * 8, "datatype"),
        ({"datatype": "BYTES"}, ROWS.tobytes(), "binary_data_size"),
        ({}, np.where(ROWS > 6, np.nan, ROWS).tobytes(), "data"),
        ({}, np.where(ROWS > 6, np.inf, ROWS).tobytes(), "data"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_422_and_says_where(
    client: TestClient, changes: dict[str, Any], binary: bytes, where: str
) -> None:
    content, _ = matrix()
    content["inputs"][0] |= changes
    response = post(client, PATH, content, binary)
    assert response.status_code == 422, response.text
    assert where in response.json()["detail"][0]["loc"], response.text


@pytest.mark.parametrize(
    ("feature", "datatype", "values"),
    [
        ("doors", "FP64", [4.5]), ("doors", "FP64", [np.nan]), ("doors", "FP64", [2.0**63]), ("doors", "BOOL", [True]),
        ("doors", "UINT64", [2**63]), ("colour", "INT64", [5]), ("colour", "BYTES", ["x" * 100_001]),
        ("weight", "BYTES", ["1"]), ("weight", "FP64", [1e300]),
    ],
)  # fmt: skip
def test_a_value_that_the_feature_cannot_have_is_422(
    client: TestClient, feature: str, datatype: str, values: list[Any]
) -> None:
    good = {"colour": ("BYTES", ["red"]), "doors": ("INT64", [4]), "weight": ("FP64", [1.0])}
    parts = {name: encoded(some, kind) for name, (kind, some) in {**good, feature: (datatype, values)}.items()}
    kinds = {**{name: kind for name, (kind, _) in good.items()}, feature: datatype}
    inputs = [tensor(name, kinds[name], [1], len(part)) for name, part in parts.items()]
    response = post(client, "/v2/models/cars/infer", {"inputs": inputs}, b"".join(parts.values()))
    assert response.status_code == 422, response.text
    place = list(parts).index(feature)
    assert response.json()["detail"][0]["loc"][:3] == ["body", "inputs", place]
    assert feature in response.json()["detail"][0]["msg"]


def test_whole_numbers_may_come_as_floats(client: TestClient) -> None:
    parts = [encoded(["red"], "BYTES"), encoded([4.0], "FP32"), encoded([1000], "INT16")]
    kinds = ("BYTES", "FP32", "INT16")
    names = ("colour", "doors", "weight")
    inputs = [tensor(n, k, [1], len(p)) for n, k, p in zip(names, kinds, parts, strict=True)]
    response = post(client, "/v2/models/cars/infer", {"inputs": inputs}, b"".join(parts))
    row = {"colour": "red", "doors": 4, "weight": 1000.0}
    assert labels(response) == [client.post("/models/cars/predict", json=row).json()["prediction"]]
