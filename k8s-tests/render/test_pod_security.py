"""Every pod is admitted under Pod Security "restricted"; and the function that says so catches each offence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from chart import Manifest, pods, render_chart
from pod_security import violations


def test_every_pod_is_restricted(manifests: list[Manifest]) -> None:
    found = {name: violations(pod) for name, pod in pods(manifests).items()}
    assert not {name: problems for name, problems in found.items() if problems}


def _pod(field: str, value: Any) -> Callable[[Any], None]:
    return lambda spec: spec.__setitem__(field, value)


def _shared(field: str, value: Any) -> Callable[[Any], None]:
    return lambda spec: spec["securityContext"].__setitem__(field, value)


def _own(field: str, value: Any, kind: str = "containers") -> Callable[[Any], None]:
    return lambda spec: spec[kind][0]["securityContext"].__setitem__(field, value)


def _container(field: str, value: Any) -> Callable[[Any], None]:
    return lambda spec: spec["containers"][0].__setitem__(field, value)


def _without(field: str) -> Callable[[Any], None]:
    return lambda spec: spec["containers"][0]["securityContext"].pop(field)


MUTANTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "host network": (_pod("hostNetwork", True), "hostNetwork"),
    "host processes": (_pod("hostPID", True), "hostPID"),
    "host memory": (_pod("hostIPC", True), "hostIPC"),
    "host path": (_pod("volumes", [{"name": "v", "hostPath": {"path": "/"}}]), "hostPath"),
    "nfs": (_pod("volumes", [{"name": "v", "nfs": {"server": "s", "path": "/"}}]), "nfs"),
    "unsafe sysctl": (_shared("sysctls", [{"name": "kernel.msgmax", "value": "1"}]), "sysctls"),
    "root by uid": (_shared("runAsUser", 0), "runAsUser"),
    "root by the container's uid": (_own("runAsUser", 0), "runAsUser"),
    "root allowed": (_shared("runAsNonRoot", False), "runAsNonRoot"),
    "root allowed in a container": (_own("runAsNonRoot", False), "runAsNonRoot"),
    "no word on root": (lambda spec: spec["securityContext"].pop("runAsNonRoot"), "runAsNonRoot"),
    "privileged": (_own("privileged", True), "privileged"),
    "escalation": (_own("allowPrivilegeEscalation", True), "allowPrivilegeEscalation"),
    "no word on escalation": (_without("allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
    "capabilities kept": (_without("capabilities"), "capabilities.drop"),
    "one capability dropped": (_own("capabilities", {"drop": ["NET_RAW"]}), "capabilities.drop"),
    "capability added": (_own("capabilities", {"drop": ["ALL"], "add": ["NET_ADMIN"]}), "NET_ADMIN"),
    "no seccomp": (lambda spec: spec["securityContext"].pop("seccompProfile"), "seccompProfile"),
    "seccomp off": (_shared("seccompProfile", {"type": "Unconfined"}), "seccompProfile"),
    "seccomp off in a container": (_own("seccompProfile", {"type": "Unconfined"}), "seccompProfile"),
    "apparmor off": (_own("appArmorProfile", {"type": "Unconfined"}), "appArmorProfile"),
    "selinux type": (_shared("seLinuxOptions", {"type": "spc_t"}), "seLinuxOptions"),
    "selinux user": (_own("seLinuxOptions", {"user": "system_u"}), "seLinuxOptions"),
    "proc mount": (_own("procMount", "Unmasked"), "procMount"),
    "windows host process": (_shared("windowsOptions", {"hostProcess": True}), "hostProcess"),
    "host port": (_container("ports", [{"containerPort": 80, "hostPort": 80}]), "hostPort"),
    "probe of another host": (_container("livenessProbe", {"httpGet": {"host": "peer", "port": 80}}), "host"),
    "hook to another host": (_container("lifecycle", {"preStop": {"tcpSocket": {"host": "peer", "port": 80}}}), "host"),
    "init container": (_own("privileged", True, "initContainers"), "initContainers[prepare]"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_an_offence_is_caught(mutant: str) -> None:
    change, named = MUTANTS[mutant]
    pod = copy.deepcopy(pods(render_chart())["Deployment/mlops-mlflow"])
    assert not violations(pod)
    change(pod["spec"])
    found = violations(pod)
    assert any(named in problem for problem in found), found


def test_the_annotation_of_old_apparmor_is_caught() -> None:
    pod = copy.deepcopy(pods(render_chart())["Deployment/mlops-mlflow"])
    pod["metadata"]["annotations"] = {"container.apparmor.security.beta.kubernetes.io/mlflow": "unconfined"}
    assert violations(pod)
