"""The loop on the platform as `helm install` leaves it: trained, promoted and served without anyone having clicked."""

from __future__ import annotations

import re
from typing import Any

from release import Platform
from runs import Runs, registry_of, restart

from app.registry.promotion import history
from flows.catalog import load_model

FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
STAGES = ["train", "gate", "promote", "predict", "scrape", "drift", "retrain"]


def _bootstraps(runs: Runs) -> dict[str, str]:
    """The states of the runs that were started by the installation, by name."""
    return {run["name"]: run["state_name"] for run in _named(runs, {"like_": "bootstrap-"})}


def _named(runs: Runs, condition: dict[str, Any]) -> list[dict[str, Any]]:
    return list(runs.prefect.request("POST", "/flow_runs/filter", {"flow_runs": {"name": condition}}))


def _ids(runs: Runs) -> set[str]:
    return {run["id"] for run in runs.prefect.request("POST", "/flow_runs/filter", {})}


def test_the_first_prediction_needs_no_clicks(platform: Platform) -> None:
    answer = platform.client("api").get("/predict", params=FLOWER)
    assert answer.status_code == 200, answer.text
    prediction = answer.json()
    assert (prediction["prediction"], prediction["model"]) == ("setosa", "iris")


def test_the_bootstrap_run_trained_and_promoted_version_1(platform: Platform, runs: Runs) -> None:
    assert _bootstraps(runs) == {"bootstrap-iris-1": "Completed"}
    with registry_of(platform) as registry:
        first = history(registry, "iris")[-1]
        assert (first.version, first.previous, first.outcome, first.who) == ("1", None, "promoted", "bootstrap")
        (bootstrap,) = _named(runs, {"any_": ["bootstrap-iris-1"]})
        assert registry.version("iris", "1").tags["flow_run_id"] == bootstrap["id"]


def test_what_is_in_production_is_what_is_served(platform: Platform) -> None:
    """Version 1 after the install; later whatever was promoted since."""
    with registry_of(platform) as registry:
        production = registry.version_by_alias("iris", "production")
        assert production
    assert platform.client("api").get("/models/iris").json()["version"] == production.version


def test_bootstrap_does_not_run_again_when_the_worker_does(platform: Platform, runs: Runs) -> None:
    before = _ids(runs)
    registered = runs.prefect.request("GET", "/deployments/name/train/iris")["updated"]
    restart(platform, "prefect-worker")
    assert runs.prefect.request("GET", "/deployments/name/train/iris")["updated"] > registered  # it did its work again
    assert _bootstraps(runs) == {"bootstrap-iris-1": "Completed"}
    assert _ids(runs) == before


def test_every_flow_is_a_deployment_of_the_work_pool_with_its_models_resources(runs: Runs) -> None:
    flows = {flow["id"]: flow["name"] for flow in runs.prefect.request("POST", "/flows/filter", {})}
    deployments = {
        f"{flows[d['flow_id']]}/{d['name']}": d for d in runs.prefect.request("POST", "/deployments/filter", {})
    }
    assert set(deployments) == {"train/iris", "train/diabetes", "promote/promote", "rollback/rollback"}
    assert {deployment["work_pool_name"] for deployment in deployments.values()} == {"k8s"}
    deciding = {
        name for name, deployment in deployments.items() if deployment["job_variables"].get("account") == "gate"
    }
    assert deciding == {"promote/promote", "rollback/rollback"}
    for name in ("iris", "diabetes"):
        variables, resources = deployments[f"train/{name}"]["job_variables"], vars(load_model(name).resources)
        asked = {key: value for key, value in resources.items() if value}
        assert {key: variables[key] for key in variables.keys() & resources.keys()} == asked
    pool = runs.prefect.request("GET", "/work_pools/k8s")
    assert (pool["type"], pool["status"]) == ("kubernetes", "READY")


def test_helm_test_runs_the_loop_and_prints_the_time_of_each_stage(platform: Platform) -> None:
    printed = platform.helm("test", platform.release, "--logs")
    timed = re.findall(rf"^\s*({'|'.join(STAGES)})\b.*?(\d+\.\d+) s\b", printed, re.M)
    assert [stage for stage, _ in timed] == STAGES, printed
    assert sum(float(seconds) for _, seconds in timed) > 5, printed  # a training takes longer than that
    print(printed)
