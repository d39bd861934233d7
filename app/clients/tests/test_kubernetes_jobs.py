"""Jobs that are made of a CronJob: where each runs, and which volumes it has."""

from __future__ import annotations

from typing import Any

import pytest

from app.clients.kubernetes_jobs import job_manifest, last_json

NODES: dict[str, Any] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "mlops-mlflow"}}
BACKUPS = {"name": "backups", "persistentVolumeClaim": {"claimName": "mlops-backup"}}


def cron_job() -> dict[str, Any]:
    pod = {
        "affinity": {
            **NODES,
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "x"}]},
        },
        "containers": [{"name": "backup", "args": ["save"]}],
        "volumes": [DATA, BACKUPS],
    }
    spec = {"backoffLimit": 2, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}
    return {"metadata": {"name": "mlops-backup-mlflow"}, "spec": {"jobTemplate": {"metadata": {}, "spec": spec}}}


@pytest.mark.parametrize(
    ("verb", "is_beside", "has_data"),
    [("save", True, True), ("restore", False, True), ("check", False, False), ("list", False, False)],
)
def test_where_a_job_runs_and_what_it_mounts(verb: str, is_beside: bool, has_data: bool) -> None:
    original = cron_job()
    job = job_manifest(original, verb, [verb, "--json"])
    pod = job["spec"]["template"]["spec"]
    assert ("podAffinity" in pod["affinity"]) == is_beside
    assert pod["affinity"]["nodeAffinity"] == NODES["nodeAffinity"], "what somebody set stays"
    assert (DATA in pod["volumes"]) == has_data
    assert {volume["name"] for volume in pod["volumes"]} == {"data", "backups"}
    assert pod["containers"][0]["args"] == [verb, "--json"]
    assert job["spec"]["backoffLimit"] == 0, "who asked is told at once"
    assert job["metadata"]["name"].startswith(f"mlops-backup-mlflow-{verb}-")
    assert original == cron_job()


def test_a_long_release_name_makes_a_name_that_kubernetes_takes() -> None:
    long = cron_job() | {"metadata": {"name": "x" * 52}}
    assert len(job_manifest(long, "restore", [])["metadata"]["name"]) <= 63


@pytest.mark.parametrize("output", ["", "\n", "Killed", "[1]", "{", 'x\n{"a": 1'])
def test_what_a_killed_job_printed_is_no_answer(output: str) -> None:
    assert last_json(output) is None


def test_the_answer_is_the_last_line() -> None:
    assert last_json('{"a": 1}\nwarning\n{"b": 2}\n') == {"b": 2}
