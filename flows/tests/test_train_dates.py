"""A model file with dates, from the file to an answer and to feedback that is trained on, with real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from app.api.main import create_app
from app.clients.mlflow import MlflowClient
from app.clients.model_api import WITH_TOKENS
from app.dates import days_of, text_of
from app.registry.bundle import Bundle, fetch_bundle
from app.runtime.waiting import wait_until
from app.testing.model_api import settings
from flows.train import train

MODEL = """
from pathlib import Path

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from flows.model import Gate, Model

NUMBERS = ["joined", "last_order_at", "visits"]


def estimator(seed):
    columns = ColumnTransformer([("numbers", SimpleImputer(), NUMBERS), ("plan", OneHotEncoder(), ["plan"])])
    return make_pipeline(columns, RandomForestClassifier(n_estimators=20, random_state=seed))


model = Model(
    task="classification",
    target="leaves",
    load=lambda: pd.read_csv(Path(__file__).parent / "members.csv"),
    estimator=estimator,
    gate=Gate("accuracy", threshold=0.9),
)
"""


def members() -> pd.DataFrame:
    """Dates as CSV has them: days, and moments of which some are missing."""
    n = 200
    joined = [text_of(days_of("2020-01-01") + i * 11)[:10] for i in range(n)]
    last = [text_of(days_of(day) + 30 + i / 86_400) if i % 5 else None for i, day in enumerate(joined)]
    return pd.DataFrame({
        "joined": joined, "last_order_at": last, "visits": [i * 7 % 30 for i in range(n)],
        "plan": ["basic" if i % 3 else "plus" for i in range(n)],
        "leaves": ["yes" if day > "2023-01-01" else "no" for day in joined],
    })  # fmt: skip


@pytest.fixture
def trained(platform: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    (tmp_path / "members.py").write_text(MODEL)
    members().to_csv(tmp_path / "members.csv", index=False)
    return train("members")


@pytest.fixture
def bundle(platform: MlflowClient, trained: dict[str, Any], tmp_path: Path) -> Bundle:
    assert trained["decision"]["outcome"] == "promoted", trained["decision"]
    return fetch_bundle(platform, platform.version("members", trained["version"]), tmp_path / "bundles")


@pytest.fixture
def api(platform: MlflowClient, bundle: Bundle, tmp_path: Path) -> Iterator[TestClient]:
    app = create_app(settings(tmp_path / "cache", default_model="members"), MlflowClient(platform.uri, timeout=30))
    with TestClient(app) as client:
        wait_until(lambda: any(one["name"] == "members" for one in client.get("/models").json()["models"]))
        yield client


def test_dates_from_the_model_file_to_an_answer_and_back(
    platform: MlflowClient, trained: dict[str, Any], bundle: Bundle, api: TestClient
) -> None:
    kinds = [(feature.name, feature.dtype, feature.nullable) for feature in bundle.features]
    assert kinds == [
        ("joined", "datetime", False), ("last_order_at", "datetime", True), ("visits", "long", False),
        ("plan", "string", False),
    ]  # fmt: skip
    assert bundle.serving == "onnx", bundle.serving_reason
    assert bundle.example["joined"] == "2020-01-01T00:00:00Z"

    names = [feature.name for feature in bundle.features]
    rows = [dict(zip(names, row, strict=True)) for row in bundle.golden.rows]
    for row in rows:
        for name in ("joined", "last_order_at"):
            row[name] = None if row[name] is None else text_of(row[name])
    by_json = api.post("/predict", json=rows).json()
    assert [answer["prediction"] for answer in by_json] == bundle.golden.outputs
    csv = pd.DataFrame(rows).to_csv(index=False)
    by_csv = api.post("/invocations", content=csv, headers={"Content-Type": "text/csv"}).json()
    assert by_csv["predictions"] == bundle.golden.outputs
    inputs = [
        {"name": name, "shape": [len(rows)], "data": [row[name] for row in rows],
         "datatype": "INT64" if name == "visits" else "BYTES"}
        for name in names
    ]  # fmt: skip
    by_tensors = api.post("/v2/models/members/infer", json={"inputs": inputs}).json()
    assert by_tensors["outputs"][0]["data"] == bundle.golden.outputs

    fresh = [{**rows[0], "joined": f"2019-0{i}-01T10:00:00+02:00"} for i in range(1, 9)]
    answers = api.post("/predict", json=fresh, headers=WITH_TOKENS).json()
    labels = [{"feedback_token": answer["feedback_token"], "label": answer["prediction"]} for answer in answers]
    api.post("/feedback", json=labels).raise_for_status()
    metrics = platform.run(train("members", feedback=True, promote=False)["run_id"]).metrics
    used = metrics["feedback_rows"] + metrics["feedback_rows_to_compare"]
    assert (used, metrics["feedback_rows_left_out"]) == (len(fresh), 0)
