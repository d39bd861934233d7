"""Models live in a repository of the user's: a commit is all that a new one takes, and a broken one stops no other."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from namespace import Namespace, wait_for
from release import CHART, CONTEXT, Platform
from runs import Runs, port_forward, registry_of, settled
from stand_ins import stand_in

from app.clients.prometheus import PrometheusClient
from app.testing.git import Repository

FILES = Path(__file__).parent / "model-files"
ROWS: dict[str, dict[str, Any]] = {
    "customers": {"age": 40, "calls": 6, "charge": 50.0, "contract": "monthly", "paperless": True},
    "patients": {"age": 0.04, "bmi": 0.06, "bp": None, "s5": 0.05},
    "reviews": {"review": "the staff was friendly and the room clean"},
    "digits": {f"pixel_{row}_{column}": 0.0 for row in range(8) for column in range(8)},
}


class Served:
    """The repository as somebody works on it: each commit is pushed to the server in the cluster."""

    def __init__(self, repository: Repository, platform: Platform, git: Namespace) -> None:
        self._repository, self._platform, self._git = repository, platform, git

    def push(self, **files: str | None) -> str:
        """Write these model files, or remove those that are None, commit and push; the commit."""
        commit = self._repository.commit({f"models/{name}.py": text for name, text in files.items()})
        in_pod = Platform(self._git.name, self._git.api)
        with port_forward(in_pod, "git", 9418, "git") as port:
            self._repository.git("push", "-q", f"git://127.0.0.1:{port}/models", "main")
        return commit


@pytest.fixture(scope="module")
def git(api: client.ApiClient) -> Iterator[Namespace]:
    """A namespace with git's own daemon."""
    core = client.CoreV1Api(api)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = core.create_namespace({"metadata": {"generateName": "git-", "labels": labels}}).metadata.name
    yield Namespace(name, api)
    core.delete_namespace(name)


@pytest.fixture(scope="module")
def served(platform: Platform, git: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The platform follows a repository with a README, and looks for news every second."""
    address = stand_in(git, "git", 9418, {})
    repository = Repository(tmp_path_factory.mktemp("git") / "models")
    repository.commit({"README.md": "Models\n", "models/.keep": ""})
    served = Served(repository, platform, git)
    served.push()
    options = {"url": f"git://{address}/models", "path": "models", "pollSeconds": "1"}
    follow(platform, options)
    yield served
    follow(platform, {"url": "", "path": "", "pollSeconds": "60"})
    for name in ROWS:
        platform.client("mlflow").request("DELETE", "/api/2.0/mlflow/registered-models/delete", json={"name": name})


def follow(platform: Platform, options: dict[str, str]) -> None:
    """`helm upgrade` with these settings of prefect-worker.models.git, to the end."""
    chosen = [f"--set=prefect-worker.models.git.{key}={value}" for key, value in options.items()]
    platform.helm("upgrade", platform.release, CHART, "--reset-then-reuse-values", *chosen)
    wait_for(lambda: settled(platform, "prefect-worker"), "the worker restarted", 240)


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


def test_a_commit_is_all_that_a_new_model_takes(platform: Platform, runs: Runs, served: Served) -> None:
    before = worker_started(platform)
    commit = served.push(patients=(FILES / "patients.py").read_text())
    deployment_of(runs, "patients")
    version = train_and_predict(platform, runs, "patients")
    with registry_of(platform) as registry:
        tags = registry.version("patients", version).tags
    assert tags["models_commit"] == commit
    assert tags["models_repository"].endswith("/models")
    assert tags["serving"] == "onnx"
    assert worker_started(platform) == before, "nothing of the platform restarts"


def test_a_broken_file_stops_its_model_with_the_reason_and_no_other(
    platform: Platform, runs: Runs, prometheus: PrometheusClient, served: Served
) -> None:
    broken = 'mlops_model_file_broken{model="reviews"}'
    served.push(reviews="import nothing_like_it")
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
    served.push(reviews=(FILES / "reviews.py").read_text())
    wait_for(lambda: deployment_of(runs, "reviews")["description"].startswith("Reviews:"), "the file is mended", 120)
    served.push(reviews=None)
    wait_for(lambda: not runs.prefect.deployment("train", "reviews"), "the deployment is gone with its file", 120)


@pytest.mark.drill
@pytest.mark.parametrize("model", ["customers", "digits", "reviews"])
def test_models_as_people_have_them_are_trained_and_served(
    platform: Platform, runs: Runs, served: Served, model: str
) -> None:
    served.push(**{model: (FILES / f"{model}.py").read_text()})
    deployment_of(runs, model)
    version = train_and_predict(platform, runs, model)
    with registry_of(platform) as registry:
        assert registry.version(model, version).tags["serving"] == "onnx"
