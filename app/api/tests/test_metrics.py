from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.api.main import create_app
from app.api.metrics import KEPT_VERSIONS, Metrics
from app.registry.bundle import read_bundle
from app.testing.model_api import SETOSA, VIRGINICA, Example, absent_mlflow, cache_bundle, metric, settings


@pytest.fixture
def fresh(tmp_path: Path, examples: dict[str, Example]) -> Iterator[TestClient]:
    """Iris, diabetes and cars with all counts at zero."""
    for name in ("iris", "diabetes", "cars"):
        cache_bundle(tmp_path, name, examples[name].bundle)
    with TestClient(create_app(settings(tmp_path, default_model="iris"), absent_mlflow())) as client:
        yield client


def test_series_start_at_zero_when_a_version_is_loaded(fresh: TestClient) -> None:
    iris = {"model": "iris", "version": "1"}
    assert metric(fresh, "mlops_model_info", **iris, run_id="run-of-iris", serving="onnx") == 1
    assert metric(fresh, "mlops_predictions_total", **iris, label="setosa") == 0
    assert metric(fresh, "mlops_feature_bucket_total", **iris, feature="petal_width", bucket="0") == 0
    assert metric(fresh, "mlops_feedback_total", **iris, correct="false") == 0
    assert metric(fresh, "mlops_feedback_absolute_error_count", model="diabetes") == 0
    assert metric(fresh, "mlops_swaps_total", model="iris") == 1
    assert metric(fresh, "mlops_registry_up") == 0


def test_the_gate_of_the_version_in_service_is_exposed(fresh: TestClient) -> None:
    gate = fresh.get("/model").json()["gate"]
    threshold = metric(fresh, "mlops_gate_threshold", model="iris", version="1", metric=gate["metric"])
    assert threshold == gate["threshold"] == 0.5


def test_the_gate_goes_with_its_version(examples: dict[str, Example]) -> None:
    metrics, bundle = Metrics(), read_bundle(examples["iris"].bundle)

    def versions_with_a_gate() -> list[str]:
        (gates,) = [family for family in metrics.collect() if family.name == "mlops_gate_threshold"]
        return [sample.labels["version"] for sample in gates.samples]

    for version in ("1", "2"):
        metrics.meter("iris", version, bundle)
        metrics.info = {"iris": (version, "run", "onnx")}
        assert versions_with_a_gate() == [version]
    metrics.info = {}
    assert versions_with_a_gate() == []


def test_rows_are_counted_by_label_and_bucket(fresh: TestClient) -> None:
    fresh.get("/predict", params=SETOSA)
    fresh.post("/predict", json=[SETOSA, VIRGINICA])
    fresh.post("/predict", json=[VIRGINICA] * 200)
    assert metric(fresh, "mlops_predictions_total", model="iris", label="setosa") == 2
    assert metric(fresh, "mlops_predictions_total", model="iris", label="virginica") == 201
    reference = fresh.get("/model").json()["features"]
    for feature in reference:
        n = len(feature["shares"])
        counts = [
            metric(fresh, "mlops_feature_bucket_total", model="iris", feature=feature["name"], bucket=str(i))
            for i in range(n)
        ]
        assert sum(c or 0 for c in counts) == 203
        setosa = sum(edge < SETOSA[feature["name"]] for edge in feature["edges"])
        virginica = sum(edge < VIRGINICA[feature["name"]] for edge in feature["edges"])
        assert counts[setosa] == (2 if setosa != virginica else 203)
    share = metric(fresh, "mlops_feature_reference_share", model="iris", feature="petal_width", bucket="0")
    assert share == reference[3]["shares"][0]
    assert metric(fresh, "mlops_prediction_reference_share", model="iris", label="setosa") == pytest.approx(
        0.339, abs=0.01
    )


def test_categories_are_counted_by_their_place(fresh: TestClient) -> None:
    fresh.post("/models/cars/predict", json=[{"colour": c, "doors": 4, "weight": 1} for c in ("red", "pink", "red")])
    categories = fresh.get("/models/cars").json()["features"][0]["categories"]
    bucket = {"model": "cars", "feature": "colour"}
    assert metric(fresh, "mlops_feature_bucket_total", **bucket, bucket=str(categories.index("red"))) == 2
    assert metric(fresh, "mlops_feature_bucket_total", **bucket, bucket=str(len(categories) - 1)) == 1
    names = [metric(fresh, "mlops_predictions_total", model="cars", label=label) for label in ("True", "False")]
    assert sum(n or 0 for n in names) == 3


def test_values_of_a_regression_are_counted_by_range(fresh: TestClient, examples: dict[str, Example]) -> None:
    answer = fresh.post("/models/diabetes/predict", json=examples["diabetes"].rows(1)[0]).json()
    edges = fresh.get("/models/diabetes").json()["prediction_reference"]["edges"]
    below = [edge for edge in edges if answer["prediction"] <= edge]
    label = f"<= {below[0]:.6g}" if below else f"> {edges[-1]:.6g}"
    assert metric(fresh, "mlops_predictions_total", model="diabetes", label=label) == 1


def test_requests_are_counted_by_status(fresh: TestClient) -> None:
    fresh.get("/predict", params=SETOSA)
    fresh.get("/predict")
    fresh.post("/predict", content=b" " * 2_000_000)
    fresh.get("/models/tulips/predict")
    for status, model in (("200", "iris"), ("422", "iris"), ("413", "iris"), ("404", "")):
        assert metric(fresh, "mlops_requests_total", model=model, status=status) == 1
    assert metric(fresh, "mlops_request_duration_seconds_count", model="iris", version="1") == 3
    assert metric(fresh, "mlops_request_duration_seconds_bucket", model="iris", le="+Inf") == 3
    assert metric(fresh, "http_requests_total", handler="/predict", method="GET", status="2xx") == 1
    assert metric(fresh, "http_requests_total", handler="/models/{name}/predict", status="4xx") == 1


def test_statuses_begin_at_zero_for_prometheus_to_see_the_first_request(fresh: TestClient) -> None:
    for status in ("200", "413", "422", "500"):
        assert metric(fresh, "mlops_requests_total", model="iris", version="1", status=status) == 0


def test_unknown_paths_and_models_make_no_series(fresh: TestClient) -> None:
    for i in range(5):
        fresh.get(f"/nothing/{i}")
        fresh.get(f"/models/m{i}/predict")
    text = fresh.get("/metrics").text
    assert "nothing" not in text
    assert 'model="m1"' not in text


def test_only_the_last_versions_are_kept(examples: dict[str, Example]) -> None:
    metrics, bundle = Metrics(), read_bundle(examples["iris"].bundle)
    metrics.info = {"iris": ("1", "run", "onnx")}
    for version in range(1, 20):
        metrics.meter("iris", str(version), bundle)
    kept = [version for version in map(str, range(1, 20)) if metrics.find("iris", version)]
    assert kept == ["1", *map(str, range(20 - KEPT_VERSIONS, 20))]


def test_a_version_that_comes_back_counts_on(examples: dict[str, Example]) -> None:
    metrics, bundle = Metrics(), read_bundle(examples["iris"].bundle)
    meter = metrics.meter("iris", "1", bundle)
    meter.count([tuple(SETOSA.values())], ["setosa"])
    assert metrics.meter("iris", "1", bundle) is meter
    other = read_bundle(examples["slow"].bundle)
    assert metrics.meter("iris", "1", other) is not meter


def test_feedback_before_the_version_is_loaded_is_kept(examples: dict[str, Example]) -> None:
    metrics = Metrics()
    metrics.meter("iris", "1").feedback("setosa", "setosa", "classification")
    assert metrics.meter("iris", "1", read_bundle(examples["iris"].bundle)).correct == {True: 1, False: 0}


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
@pytest.mark.parametrize("value", ["for=203.0.113.7", ""])
def test_metrics_are_not_for_the_outside(fresh: TestClient, header: str, value: str) -> None:
    answer = fresh.get("/metrics", headers={header: value})
    assert answer.status_code == 404
    assert "kubectl port-forward" in answer.text
    assert "mlops_" not in answer.text
