"""Features that are dates: text for those who ask, days for the model, in each protocol."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import mlflow
import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.api.main import create_app
from app.clients.mlflow import PRODUCTION, MlflowClient
from app.clients.model_api import WITH_TOKENS
from app.dates import days_of
from app.registry.feedback_store import read
from app.runtime.waiting import wait_until
from app.testing.model_api import Example, absent_mlflow, metric, publish, settings

ROW = {"joined": "2021-05-01", "last_order_at": "2022-01-01T12:00:00Z", "visits": 7.0}
PATH = "/models/members/predict"
EXPECTED = "a date or time such as 2026-03-01 or 2026-03-01T10:00:00Z"
BAD = ["", "yesterday", "2026-02-30", "2026-03", "0000-01-01", "9999-12-31T23:59:59-01:00", 5, 5.5, True, [], {}]


@pytest.fixture
def expected(examples: dict[str, Example]) -> Callable[[list[dict[str, Any]]], list[Any]]:
    return examples["members"].expected


def test_rows_as_they_are_sent_get_the_estimators_answers(client: TestClient, examples: dict[str, Example]) -> None:
    rows = examples["members"].rows(60)
    assert {type(row["joined"]) for row in rows} == {str}
    answers = client.post(PATH, json=rows).json()
    assert [answer["prediction"] for answer in answers] == examples["members"].expected(rows)
    assert client.post(PATH, json=rows[0]).json()["prediction"] == answers[0]["prediction"]


@pytest.mark.parametrize(
    "text",
    ["2021-05-01", "2021-05-01T00:00:00Z", "2021-05-01 00:00", "2021-05-01T02:00:00+02:00", "2021-04-30T19:00-05:00"],
)
def test_one_moment_in_any_spelling_is_one_value(client: TestClient, text: str) -> None:
    first = client.post("/models/members/explain", json=ROW).json()
    again = client.post("/models/members/explain", json={**ROW, "joined": text}).json()
    assert again == first
    assert again["contributions"][0]["value"] == "2021-05-01T00:00:00Z"
    assert again["contributions"][1]["value"] == "2022-01-01T12:00:00Z"


@pytest.mark.parametrize("year", ["0001", "1600", "2300", "9999"])
def test_years_that_nanoseconds_do_not_reach_are_predicted(
    client: TestClient, year: str, expected: Callable[[list[dict[str, Any]]], list[Any]]
) -> None:
    row = {**ROW, "joined": f"{year}-12-31"}
    answer = client.post(PATH, json=row)
    assert answer.status_code == 200, answer.text
    assert [answer.json()["prediction"]] == expected([row])


@pytest.mark.parametrize("value", [*BAD, None])
def test_a_wrong_date_is_refused_and_what_to_send_is_said(client: TestClient, value: Any) -> None:
    for body, place in (({**ROW, "joined": value}, []), ([ROW, {**ROW, "joined": value}], [1])):
        answer = client.post(PATH, json=body)
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["detail"]
        assert (error["loc"], error["msg"]) == (["body", *place, "joined"], f"joined should be {EXPECTED}")


def test_nan_is_no_date(client: TestClient) -> None:
    answer = client.post(PATH, content=json.dumps({**ROW, "joined": float("nan")}))
    assert answer.status_code == 422
    assert f"joined should be {EXPECTED}" in answer.text


def test_a_missing_date_is_named_or_is_a_missing_value(
    client: TestClient, expected: Callable[[list[dict[str, Any]]], list[Any]]
) -> None:
    without = {name: value for name, value in ROW.items() if name != "joined"}
    assert client.post(PATH, json=without).json()["detail"][0]["msg"] == f"joined is missing: send {EXPECTED}"
    wrong = client.post(PATH, json={**ROW, "last_order_at": "late"}).json()["detail"][0]["msg"]
    assert wrong == f"last_order_at should be {EXPECTED} or null"
    answer = client.post(PATH, json={**ROW, "last_order_at": None})
    assert [answer.json()["prediction"]] == expected([{**ROW, "last_order_at": None}])


def test_in_a_query_and_in_csv(client: TestClient, full_cache: Any) -> None:
    prediction = client.post(PATH, json=ROW).json()["prediction"]
    for values in (ROW, {**ROW, "last_order_at": ""}, {**ROW, "last_order_at": "2022-01-01T14:00:00+02:00"}):
        assert client.get(PATH, params=values).status_code == 200
    assert client.get(PATH, params=ROW).json()["prediction"] == prediction
    answer = client.get(PATH, params={**ROW, "joined": "1.5.2021"})
    assert answer.json()["detail"][0]["msg"] == f"joined should be {EXPECTED}"

    with TestClient(create_app(settings(full_cache, default_model="members"), absent_mlflow())) as default:
        head, kind = "joined,last_order_at,visits\n", {"Content-Type": "text/csv"}
        good = default.post("/invocations", content=f"{head}2021-05-01,,7\n{','.join(map(str, ROW.values()))}\n",
                            headers=kind)  # fmt: skip
        assert good.json()["predictions"][1] == prediction, good.text
        bad = default.post("/invocations", content=f"{head}2021-05-01,,7\n44317,,7\n", headers=kind)
        assert bad.json()["detail"] == [
            {"loc": ["body", 1, "joined"], "msg": f"joined should be {EXPECTED}", "type": "datetime_parsing"}
        ]
        split = {"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())]}}
        assert default.post("/invocations", json=split).json()["predictions"] == [prediction]


def tensor(name: str, values: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": [len(values)], "datatype": "FP64" if name == "visits" else "BYTES", "data": values}


def test_in_tensors(client: TestClient, expected: Callable[[list[dict[str, Any]]], list[Any]]) -> None:
    rows = [ROW, {**ROW, "joined": "2025-01-01T10:00:00Z", "last_order_at": None}]
    inputs = [tensor(name, [row[name] for row in rows]) for name in ROW]
    answer = client.post("/v2/models/members/infer", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == expected(rows)
    metadata = client.get("/v2/models/members").json()["inputs"]
    assert [(one["name"], one["datatype"]) for one in metadata] == [
        ("joined", "BYTES"), ("last_order_at", "BYTES"), ("visits", "FP64")
    ]  # fmt: skip
    inputs[0]["data"][1] = "soon"
    wrong = client.post("/v2/models/members/infer", json={"inputs": inputs}).json()
    assert wrong["detail"][0]["loc"] == ["body", "inputs", 0, "data", 1]
    assert wrong["detail"][0]["msg"] == f"joined should be {EXPECTED}"
    inputs[0] |= {"datatype": "FP64", "data": [18748.0, 18749.0]}
    numbers = client.post("/v2/models/members/infer", json={"inputs": inputs})
    assert "joined has the datatype FP64: send BYTES" in numbers.text


@pytest.mark.parametrize(("joined", "status"), [("2021-05-01", 200), ("2021-05-32", 422), ("", 422)])
def test_in_binary_tensors(client: TestClient, joined: str, status: int) -> None:
    parts = [struct.pack("<I", len(joined)) + joined.encode(), np.array([7.0], dtype="<f8").tobytes()]
    inputs = [
        {"name": name, "datatype": kind, "shape": [1], "parameters": {"binary_data_size": len(part)}}
        for (name, kind), part in zip((("joined", "BYTES"), ("visits", "FP64")), parts, strict=True)
    ]
    header = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"}
    answer = client.post("/v2/models/members/infer", content=header + b"".join(parts), headers=headers)
    assert answer.status_code == status, answer.text
    assert status == 200 or f"joined should be {EXPECTED}" in answer.text


def test_document_and_information_say_that_it_is_a_date(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    row = document["components"]["schemas"]["members_row"]["properties"]
    assert (row["joined"]["type"], row["joined"]["format"]) == ("string", "date-time")
    assert row["last_order_at"]["anyOf"] == [{"type": "string", "format": "date-time"}, {"type": "null"}]
    example = document["paths"][PATH]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert client.post(PATH, json=example).status_code == 200
    info = client.get("/models/members").json()
    assert info["example"] == example
    assert example["joined"].endswith("T00:00:00Z")
    joined = info["features"][0]
    assert joined["dtype"] == "datetime"
    assert days_of("2020-01-01") <= joined["min"] < joined["max"] < days_of("2026-01-01")


def test_drift_is_counted_by_buckets_of_days(client: TestClient) -> None:
    def counted() -> float:
        return metric(client, "mlops_feature_bucket_total", model="members", feature="joined", bucket="0") or 0

    before = counted()
    client.post(PATH, json=[{**ROW, "joined": "1999-01-01"}, {**ROW, "joined": "2025-12-31"}]).raise_for_status()
    assert counted() == before + 1


def test_feedback_and_mlflows_own_loader_have_days(
    mlflow: MlflowClient, follow: Callable[..., TestClient], examples: dict[str, Example], model_name: str
) -> None:
    publish(mlflow, model_name, examples["members"].bundle)
    client = follow(default_model=model_name)
    wait_until(lambda: client.get("/models").json()["models"])
    answer = client.post("/predict", json=ROW, headers=WITH_TOKENS).json()
    by_row = {"model": model_name, "version": "1", "features": {**ROW, "last_order_at": None}, "label": "no"}
    stored = client.post("/feedback", json=[{"feedback_token": answer["feedback_token"], "label": "yes"}, by_row])
    assert stored.status_code == 201, stored.text
    days = {"joined": 18748.0, "last_order_at": days_of("2022-01-01T12:00"), "visits": 7.0}
    assert [row["features"] for row in read(mlflow, model_name)] == [days, {**days, "last_order_at": None}]
    wrong = client.post("/feedback", json={**by_row, "features": {**ROW, "joined": 18748.0}})
    assert wrong.status_code == 422
    assert f"joined should be {EXPECTED}" in wrong.text

    loaded = load_by_mlflow(mlflow.uri, model_name)
    assert [spec["type"] for spec in loaded.metadata.get_input_schema().to_dict()] == ["double", "double", "double"]
    frame = examples["members"].frame.head(20)
    rows = examples["members"].rows(20)
    assert list(loaded.predict(frame)["label"]) == [
        one["prediction"] for one in client.post("/predict", json=rows).json()
    ]


def load_by_mlflow(uri: str, name: str) -> Any:
    mlflow.set_tracking_uri(uri)
    return mlflow.pyfunc.load_model(f"models:/{name}@{PRODUCTION}")
