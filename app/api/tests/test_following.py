"""The API over a real MLflow: aliases are followed, bad versions stay out, the cache serves without MLflow."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.main import create_app
from app.clients.mlflow import PRODUCTION, MlflowClient
from app.registry.bundle import write_sums
from app.registry.cache import KEPT_BUNDLES
from app.registry.ledger import ensure_model
from app.runtime.processes import Server
from app.runtime.waiting import wait_until
from app.testing.model_api import SETOSA, Example, absent_mlflow, cache_bundle, metric, publish, settings, state_of

Follow = Callable[..., TestClient]


def serves(client: TestClient, name: str, version: str) -> Callable[[], bool]:
    def check() -> bool:
        return client.get(f"/models/{name}").json().get("version") == version

    return check


def flipped(bundle: Path, to: Path, file: str = "model.onnx") -> Path:
    """A copy of the bundle with one bit of a file altered."""
    shutil.copytree(bundle, to)
    content = bytearray((to / file).read_bytes())
    content[len(content) // 2] ^= 1
    (to / file).write_bytes(bytes(content))
    return to


def test_what_is_in_production_is_served(
    mlflow: MlflowClient, follow: Follow, model_name: str, examples: dict[str, Example]
) -> None:
    publish(mlflow, f"{model_name}-never", examples["iris"].bundle, promote=False)
    client = follow()
    wait_until(lambda: client.get("/models").json()["registry"]["ok"])
    assert client.get("/readyz").status_code == 503
    detail = client.get("/predict").json()["detail"]
    assert "mlops train" in detail
    version = publish(mlflow, model_name, examples["iris"].bundle)
    wait_until(serves(client, model_name, version))
    answer = client.get("/predict", params=SETOSA).json()
    run = mlflow.version(model_name, version).run_id
    assert (answer["prediction"], answer["model"], answer["run_id"]) == ("setosa", model_name, run)
    assert [m["name"] for m in client.get("/models").json()["models"]] == [model_name]
    assert client.get(f"/models/{model_name}-never/predict", params=SETOSA).status_code == 404
    assert metric(client, "mlops_registry_up") == 1


def test_a_new_version_goes_in_and_the_old_one_comes_back(
    mlflow: MlflowClient, follow: Follow, model_name: str, examples: dict[str, Example], permuted: Example
) -> None:
    first = publish(mlflow, model_name, examples["iris"].bundle)
    client = follow()
    wait_until(serves(client, model_name, first))
    before = client.get("/openapi.json").json()
    second = publish(mlflow, model_name, permuted.bundle)
    wait_until(serves(client, model_name, second))
    assert client.get("/predict", params=SETOSA).json()["prediction"] == "virginica"
    assert f"Version {second}" in json.dumps(client.get("/openapi.json").json())
    assert f"Version {first}" in json.dumps(before)
    mlflow.set_alias(model_name, PRODUCTION, first)
    wait_until(serves(client, model_name, first))
    assert client.get("/predict", params=SETOSA).json()["prediction"] == "setosa"
    assert metric(client, "mlops_swaps_total", model=model_name) == 3
    assert metric(client, "mlops_predictions_total", model=model_name, version=second, label="virginica") == 1
    assert metric(client, "mlops_model_info", model=model_name, version=first) == 1
    assert metric(client, "mlops_model_info", model=model_name, version=second) is None


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("checksum", lambda bundle, to: None),
        ("golden", lambda bundle, to: shutil.copy(bundle / "model.onnx", to / "model.onnx")),
        ("load", lambda bundle, to: (to / "model.onnx").write_bytes(b"not a model")),
    ],
)
def test_a_bad_version_stays_out_and_the_good_one_stays_in(
    mlflow: MlflowClient,
    follow: Follow,
    model_name: str,
    examples: dict[str, Example],
    permuted: Example,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    damage: Callable[[Path, Path], Any],
) -> None:
    good = publish(mlflow, model_name, examples["iris"].bundle)
    client = follow()
    wait_until(serves(client, model_name, good))
    bundle = flipped(examples["iris"].bundle, tmp_path / "bad")
    if kind != "checksum":
        damage(permuted.bundle, bundle)
        write_sums(bundle)
    bad = publish(mlflow, model_name, bundle, promote=False)
    with caplog.at_level(logging.ERROR, "mlops.models"):
        mlflow.set_alias(model_name, PRODUCTION, bad)
        wait_until(lambda: client.get(f"/models/{model_name}").json()["last_failure"])
    info = client.get(f"/models/{model_name}").json()
    assert info["version"] == good
    assert info["last_failure"]["version"] == bad
    assert info["last_failure"]["reason"].startswith(kind)
    assert client.get("/predict", params=SETOSA).json()["version"] == good
    assert client.get("/readyz").status_code == 200
    assert metric(client, "mlops_swap_failures_total", model=model_name, version=bad, reason=kind) == 1
    assert f"version {bad} of {model_name} stays out ({kind}" in caplog.text
    assert f"version {good} stays in service" in caplog.text
    # the next polls leave it alone, and a good version after it goes in at once
    state_of(client).follower.poll()
    assert metric(client, "mlops_swap_failures_total", model=model_name, version=bad, reason=kind) == 1
    better = publish(mlflow, model_name, permuted.bundle)
    wait_until(serves(client, model_name, better))
    assert client.get(f"/models/{model_name}").json()["last_failure"] is None


def test_a_bad_first_version_is_503_and_says_why(
    mlflow: MlflowClient, follow: Follow, model_name: str, examples: dict[str, Example]
) -> None:
    version = publish(mlflow, model_name, examples["iris"].bundle, promote=False)
    path = mlflow.bundle_path(mlflow.version(model_name, version))
    mlflow.write_artifact(f"{path}/golden.json", b"{}")
    mlflow.set_alias(model_name, PRODUCTION, version)
    client = follow()
    wait_until(lambda: state_of(client).models.failures)
    for path in ("/readyz", "/predict", f"/models/{model_name}/predict", f"/models/{model_name}"):
        response = client.get(path)
        assert response.status_code == 503
        assert "golden.json was altered" in response.json()["detail"]


def test_a_version_that_was_not_made_by_the_platform_stays_out(
    mlflow: MlflowClient, follow: Follow, model_name: str
) -> None:
    run = mlflow.run(mlflow.create_run(mlflow.ensure_experiment(model_name), "by hand", {}))
    ensure_model(mlflow, model_name)
    version = mlflow.create_version(model_name, run.run_id, f"{run.artifact_uri}/model", {})
    mlflow.set_alias(model_name, PRODUCTION, version.version)
    client = follow()
    wait_until(lambda: state_of(client).models.failures)
    assert "mlops train" in client.get("/readyz").json()["detail"]


def test_a_withdrawn_model_is_not_served_and_not_cached(
    mlflow: MlflowClient, follow: Follow, model_name: str, examples: dict[str, Example], tmp_path: Path
) -> None:
    version = publish(mlflow, model_name, examples["iris"].bundle)
    client = follow(cache=tmp_path / "cache")
    wait_until(serves(client, model_name, version))
    wait_until((tmp_path / "cache" / model_name / "current.json").exists)  # it is served first
    mlflow.delete_alias(model_name, PRODUCTION)
    wait_until(lambda: client.get("/predict", params=SETOSA).status_code == 503)
    assert not (tmp_path / "cache" / model_name / "current.json").exists()
    assert metric(client, "mlops_model_info", model=model_name) is None
    mlflow.set_alias(model_name, PRODUCTION, version)
    wait_until(serves(client, model_name, version))


def test_another_model_of_the_same_name_and_version_is_noticed(
    mlflow: MlflowClient,
    follow: Follow,
    model_name: str,
    permuted: Example,
    examples: dict[str, Example],
    tmp_path: Path,
) -> None:
    """As when MLflow was set up anew and the API kept its cache."""
    cache_bundle(tmp_path / "cache", model_name, examples["iris"].bundle, "1")
    assert publish(mlflow, model_name, permuted.bundle) == "1"
    client = follow(cache=tmp_path / "cache")
    wait_until(lambda: client.get("/predict", params=SETOSA).json()["prediction"] == "virginica")


def test_several_models_in_one_process(
    mlflow: MlflowClient, follow: Follow, model_name: str, examples: dict[str, Example]
) -> None:
    names = {kind: f"{model_name}-{kind}" for kind in ("iris", "diabetes", "cars", "slow")}
    for kind, name in names.items():
        publish(mlflow, name, examples[kind].bundle)
    client = follow(default_model=names["diabetes"])
    wait_until(lambda: len(client.get("/models").json()["models"]) == len(names))
    for kind, name in names.items():
        rows = examples[kind].rows(3)
        predictions = [a["prediction"] for a in client.post(f"/models/{name}/predict", json=rows).json()]
        expected = examples[kind].expected(rows)
        assert predictions == (expected if kind != "diabetes" else pytest.approx(expected, rel=1e-4))
    assert client.get("/models").json()["default"] == names["diabetes"]
    mlflow.delete_alias(names["cars"], PRODUCTION)
    wait_until(lambda: client.get(f"/models/{names['cars']}").status_code == 404)
    assert client.get(f"/models/{names['slow']}").status_code == 200


def test_only_the_last_bundles_are_kept_on_disk(
    mlflow: MlflowClient,
    follow: Follow,
    model_name: str,
    examples: dict[str, Example],
    permuted: Example,
    tmp_path: Path,
) -> None:
    first = publish(mlflow, model_name, examples["iris"].bundle)
    client = follow(cache=tmp_path / "cache")
    wait_until(serves(client, model_name, first))
    for i in range(KEPT_BUNDLES + 1):
        version = publish(mlflow, model_name, (permuted, examples["iris"])[i % 2].bundle)
        wait_until(serves(client, model_name, version))
    folder = tmp_path / "cache" / model_name
    wait_until(lambda: len([p for p in folder.iterdir() if p.is_dir()]) == KEPT_BUNDLES)
    note = json.loads((folder / "current.json").read_text())
    assert note["version"] == version
    assert (folder / note["folder"]).is_dir()


def test_a_start_without_mlflow_serves_the_last_good_version(
    mlflow: MlflowClient,
    mlflow_server: Server,
    follow: Follow,
    model_name: str,
    examples: dict[str, Example],
    permuted: Example,
    tmp_path: Path,
) -> None:
    version = publish(mlflow, model_name, examples["iris"].bundle)
    cache = tmp_path / "cache"
    client = follow(cache=cache)
    wait_until(serves(client, model_name, version))
    wait_until((cache / model_name / "current.json").exists)
    mlflow_server.stop()
    try:
        wait_until(lambda: metric(client, "mlops_registry_up") == 0)
        assert client.get("/predict", params=SETOSA).status_code == 200
        again = follow(cache=cache)
        assert again.get("/readyz").status_code == 200  # at once, not wait_until
        assert again.get("/predict", params=SETOSA).json()["version"] == version
        wait_until(lambda: "does not answer" in again.get("/model").json()["registry"]["error"])
    finally:
        mlflow_server.start()
    newer = publish(mlflow, model_name, permuted.bundle)
    wait_until(serves(again, model_name, newer))
    assert metric(again, "mlops_registry_up") == 1


@pytest.mark.parametrize("what", ["model.onnx", "current.json"])
def test_a_damaged_cache_is_not_served_but_fetched_again(
    mlflow: MlflowClient, follow: Follow, model_name: str, examples: dict[str, Example], tmp_path: Path, what: str
) -> None:
    version = publish(mlflow, model_name, examples["iris"].bundle)
    cache = tmp_path / "cache"
    folder = cache_bundle(cache, model_name, examples["iris"].bundle, version)
    damaged = folder / what if what == "model.onnx" else cache / model_name / what
    damaged.write_bytes(b"\0" + damaged.read_bytes()[1:])
    with TestClient(create_app(settings(cache), absent_mlflow())) as client:
        assert client.get("/readyz").status_code == 503
        assert metric(client, "mlops_swap_failures_total", model=model_name, reason="checksum") == 1
    client = follow(cache=cache)
    wait_until(serves(client, model_name, version))
    assert client.get("/predict", params=SETOSA).json()["prediction"] == "setosa"
