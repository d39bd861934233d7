"""Somebody's code runs in a training Job, by a package or a model file: it trains, and can do nothing else."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from kubernetes import client
from namespace import wait_for
from release import PORTS, Platform
from runs import Runs

pytestmark = pytest.mark.quiet

ATTACK = Path(__file__).with_name("attack.py").read_text()
ALLOWED = {"mlflow", "prefect-server"}
MONITORING = {"prometheus": 9090, "alertmanager": 9093, "retrainer": 8090, "prefect-worker": 4201}


def _targets(platform: Platform) -> dict[str, tuple[str, int]]:
    """Every pod that a training Job has no business with, and the API server behind its Service."""
    targets = {
        name: (pod.status.pod_ip, port)
        for name, port in {**PORTS, **MONITORING}.items()
        if name not in ALLOWED
        for pod in platform.pods(name)[:1]
    }
    return {**targets, "Kubernetes": ("kubernetes.default.svc", 443), "a node's kubelet": (_node(platform), 10250)}


def _node(platform: Platform) -> str:
    (node, *_) = client.CoreV1Api(platform.api).list_node().items
    return next(str(address.address) for address in node.status.addresses if address.type == "InternalIP")


def test_nothing_that_it_tries_succeeds(platform: Platform, runs: Runs) -> None:
    targets = _targets(platform)
    command = shlex.join(["python", "-c", ATTACK, json.dumps(targets)])
    run = runs.start("train/iris", {"promote": False}, {"command": command})
    pod = runs.pod(run)
    core, name = client.CoreV1Api(platform.api), pod.metadata.name

    def printed() -> str:
        ended = core.read_namespaced_pod(name, platform.namespace).status.phase in ("Succeeded", "Failed")
        return str(core.read_namespaced_pod_log(name, platform.namespace, container="prefect-job")) if ended else ""

    log = wait_for(printed, "the attacker's report", 240)
    (report,) = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    for what, how in report.items():
        print(f"{what:40} {how[:120]}")
    assert len(report) >= 20
    assert len([what for what in report if what.startswith("reach ")]) == len(targets)
    assert [what for what, how in report.items() if how == "DONE"] == []
    assert runs.prefect.request("GET", "/work_pools/k8s")["base_job_template"]
