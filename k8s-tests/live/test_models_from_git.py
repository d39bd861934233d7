"""Models live in a repository of the user's: a commit is all that a new one takes, and a broken one stops no other."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from models_repository import ModelsRepository
from namespace import wait_for
from release import CONTEXT, Platform
from runs import Runs, registry_of
from upgraded import Upgraded

from app.clients.prometheus import PrometheusClient

FILES = Path(__file__).parent / "model-files"
ROWS: dict[str, dict[str, Any]] = {
    "customers": {"age": 40, "calls": 6, "charge": 50.0, "contract": "monthly", "paperless": True},
    "patients": {"age": 0.04, "bmi": 0.06, "bp": None, "s5": 0.05},
    "reviews": {"review": "the staff was friendly and the room clean"},
    "digits": {f"pixel_{row}_{column}": 0.0 for row in range(8) for column in range(8)},
}


@pytest.fixture(scope="module")
def models(upgraded: Upgraded) -> Iterator[ModelsRepository]:
    """The repository that the platform follows; what was made of it is removed afterwards."""
    yield upgraded.models
    for name in ROWS:
        upgraded.platform.client("mlflow").request(
            "DELETE", "/api/2.0/mlflow/registered-models/delete", json={"name": name}
        )


def deployment_of(runs: Runs, model: str) -> dict[str, Any]:
    """What Prefect has of the model's training, once it has it."""

    def registered() -> dict[str, Any] | None:
        chosen = {"deployments": {"name": {"any_": [model]}}}
        found = runs.prefect.request("POST", "/deployments/filter", chosen)
        return dict(found[0]) if found else None

    return wait_for(registered, f"train/{model} on Prefect", 120)


def train_and_predict(platform: Platform, runs: Runs, model: str) -> str:
    """Train it as people do, and have the API answer; the version."""
    run = runs.start(f"train/{model}", {"model": model})
    runs.wait(run, "COMPLETED", seconds=300)
    api = platform.client("api")

    def answer() -> dict[str, Any] | None:
        response = api.post(f"/models/{model}/predict", json=ROWS[model])
        return dict(response.json()) if response.status_code == 200 else None

    return str(wait_for(answer, f"a prediction of {model}", 60)["version"])


def worker_started(platform: Platform) -> list[Any]:
    """When the worker's pods were started, and how often their containers were."""
    return [
        (pod.metadata.name, [status.restart_count for status in pod.status.container_statuses])
        for pod in platform.pods("prefect-worker")
    ]


def test_a_commit_is_all_that_a_new_model_takes(platform: Platform, runs: Runs, models: ModelsRepository) -> None:
    before = worker_started(platform)
    commit = models.push(patients=(FILES / "patients.py").read_text())
    deployment_of(runs, "patients")
    version = train_and_predict(platform, runs, "patients")
    with registry_of(platform) as registry:
        tags = registry.version("patients", version).tags
    assert tags["models_commit"] == commit
    assert tags["models_repository"].endswith("/models")
    assert tags["serving"] == "onnx"
    assert worker_started(platform) == before, "nothing of the platform restarts"


def test_a_broken_file_stops_its_model_with_the_reason_and_no_other(
    platform: Platform, runs: Runs, prometheus: PrometheusClient, models: ModelsRepository
) -> None:
    broken = 'mlops_model_file_broken{model="reviews"}'
    models.push(reviews="import nothing_like_it")
    assert "No module named 'nothing_like_it'" in deployment_of(runs, "reviews")["description"]
    run = runs.start("train/reviews", {"model": "reviews"})
    ended = runs.wait(run, "FAILED", seconds=180)
    assert "No module named 'nothing_like_it'" in (ended.message or "")
    pod = platform.pods("prefect-worker")[0].metadata.name
    command = ["kubectl", "--context", CONTEXT, "-n", platform.name, "exec", pod, "--", "mlops", "doctor"]
    told = subprocess.run(command, capture_output=True, text=True).stdout
    assert "reviews: " in told, told
    assert "No module named 'nothing_like_it'" in told
    wait_for(lambda: prometheus.query(broken), "the broken file in Prometheus", 90)
    assert runs.prefect.deployment("train", "iris")
    models.push(reviews=(FILES / "reviews.py").read_text())
    wait_for(lambda: deployment_of(runs, "reviews")["description"].startswith("Reviews:"), "the file is mended", 120)
    models.push(reviews=None)
    wait_for(lambda: not runs.prefect.deployment("train", "reviews"), "the deployment is gone with its file", 120)


@pytest.mark.drill
@pytest.mark.parametrize("model", ["customers", "digits", "reviews"])
def test_models_as_people_have_them_are_trained_and_served(
    platform: Platform, runs: Runs, models: ModelsRepository, model: str
) -> None:
    models.push(**{model: (FILES / f"{model}.py").read_text()})
    deployment_of(runs, model)
    version = train_and_predict(platform, runs, model)
    with registry_of(platform) as registry:
        assert registry.version(model, version).tags["serving"] == "onnx"
