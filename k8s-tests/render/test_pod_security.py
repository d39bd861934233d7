"""Every pod is admitted under Pod Security "restricted"; and the function that says so catches each offence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from chart import Manifest, pods, render_chart
from pod_security import HANDLERS, SELINUX_TYPES, SYSCTLS, VOLUMES, violations


def test_every_pod_is_restricted(manifests: list[Manifest]) -> None:
    problems_by_pod = {name: violations(pod) for name, pod in pods(manifests).items()}
    assert len(problems_by_pod) >= 7
    assert "training Job" in problems_by_pod
    assert not {name: problems for name, problems in problems_by_pod.items() if problems}


Change = Callable[[Any], None]


def _set(field: str, value: Any) -> Change:
    """Give a field of a pod's spec, or of a container, a value."""
    return lambda owner: owner.__setitem__(field, value)


def _context(field: str, value: Any) -> Change:
    """Give a field of a securityContext a value; without one, take it away."""

    def change(owner: Any) -> None:
        context = owner.setdefault("securityContext", {})
        context.pop(field, None)
        if value is not None:
            context[field] = value

    return change


def _volume(kind: str) -> Change:
    return lambda spec: spec.setdefault("volumes", []).append({"name": "bad", kind: {}})


# What the standard forbids in a pod's spec, in both a pod's and a container's securityContext, and in a container:
# name -> (change, the start of the violation's path and words that are in it).
OF_POD: dict[str, tuple[Change, str]] = {
    "host network": (_set("hostNetwork", True), "hostNetwork:"),
    "host processes": (_set("hostPID", True), "hostPID:"),
    "host memory": (_set("hostIPC", True), "hostIPC:"),
    "unsafe sysctl": (
        _context("sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
        "securityContext.sysctls: kernel.m",
    ),
    "sysctl of 1.37": (
        _context("sysctls", [{"name": "net.ipv4.tcp_notsent_lowat", "value": "1"}]),
        "securityContext.sysctls: net.ipv4.tcp_notsent_lowat",
    ),
    **{
        f"volume {kind}": (
            _volume(kind),
            f"volumes[bad]: {kind}",
        )
        for kind in (
            *("hostPath", "gcePersistentDisk", "awsElasticBlockStore", "gitRepo", "nfs", "iscsi", "glusterfs", "rbd"),
            *("flexVolume", "cinder", "cephfs", "flocker", "fc", "azureFile", "vsphereVolume", "quobyte", "azureDisk"),
            *("portworxVolume", "photonPersistentDisk", "scaleIO", "storageos"),
        )
    },
}
OF_CONTEXT: dict[str, tuple[Change, str]] = {
    "root by uid": (_context("runAsUser", 0), "securityContext.runAsUser:"),
    "root allowed": (_context("runAsNonRoot", False), "securityContext.runAsNonRoot:"),
    "seccomp off": (_context("seccompProfile", {"type": "Unconfined"}), "securityContext.seccompProfile:"),
    "apparmor off": (_context("appArmorProfile", {"type": "Unconfined"}), "securityContext.appArmorProfile:"),
    "selinux type": (_context("seLinuxOptions", {"type": "spc_t"}), "securityContext.seLinuxOptions.type: spc_t"),
    "selinux user": (_context("seLinuxOptions", {"user": "system_u"}), "securityContext.seLinuxOptions: user"),
    "selinux role": (_context("seLinuxOptions", {"role": "system_r"}), "securityContext.seLinuxOptions: user and role"),
    "windows host process": (
        _context("windowsOptions", {"hostProcess": True}),
        "securityContext.windowsOptions.hostProcess:",
    ),
}
OF_CONTAINER: dict[str, tuple[Change, str]] = {
    "no context": (lambda container: container.pop("securityContext"), "securityContext.allowPrivilegeEscalation:"),
    "privileged": (_context("privileged", True), "securityContext.privileged:"),
    "escalation": (_context("allowPrivilegeEscalation", True), "securityContext.allowPrivilegeEscalation:"),
    "no word on escalation": (_context("allowPrivilegeEscalation", None), "securityContext.allowPrivilegeEscalation:"),
    "capabilities kept": (_context("capabilities", None), "securityContext.capabilities.drop:"),
    "one capability dropped": (_context("capabilities", {"drop": ["NET_RAW"]}), "securityContext.capabilities.drop:"),
    "capability added": (
        _context("capabilities", {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "CHOWN"]}),
        "securityContext.capabilities.add: CHOWN",
    ),
    "proc mount": (_context("procMount", "Unmasked"), "securityContext.procMount:"),
    "host port": (_set("ports", [{"containerPort": 80, "hostPort": 80}]), "ports: hostPort 80"),
    **{
        f"{field} {kind}": (_set(field, {kind: {"host": "peer", "port": 80}}), f"{field}.{kind}.host:")
        for field in HANDLERS
        for kind in ("httpGet", "tcpSocket")
    },
    **{
        f"{hook} {kind}": (
            _set("lifecycle", {hook: {kind: {"host": "127.0.0.1", "port": 80}}}),
            f"lifecycle.{hook}.{kind}.host:",
        )
        for hook in ("postStart", "preStop")
        for kind in ("httpGet", "tcpSocket")
    },
}
KINDS = ("containers", "initContainers", "ephemeralContainers")


def every_pod() -> dict[str, Manifest]:
    """Copies of the pod templates, each with a container of every kind."""
    templates = copy.deepcopy(pods(render_chart({"postgres": {"enabled": True}})))
    for pod in templates.values():
        pod["spec"].setdefault("initContainers", [copy.deepcopy(pod["spec"]["containers"][0])])
        pod["spec"]["ephemeralContainers"] = [{**copy.deepcopy(pod["spec"]["containers"][0]), "name": "debug"}]
    return templates


@pytest.mark.parametrize("offence", [*OF_POD, *OF_CONTEXT])
def test_an_offence_of_a_pod_is_caught(offence: str) -> None:
    change, place = (OF_POD | OF_CONTEXT)[offence]
    for name, pod in every_pod().items():
        assert not violations(pod), name
        change(pod["spec"])
        assert any(problem.startswith(place) for problem in violations(pod)), f"{name}: {violations(pod)}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offence", [*OF_CONTEXT, *OF_CONTAINER])
def test_an_offence_of_a_container_is_caught(offence: str, kind: str) -> None:
    change, place = (OF_CONTEXT | OF_CONTAINER)[offence]
    for name, pod in every_pod().items():
        container = pod["spec"][kind][-1]
        change(container)
        problems = violations(pod)
        assert any(problem.startswith(f"{kind}[{container['name']}].{place}") for problem in problems), (
            f"{name}: {problems}"
        )
        assert all(problem.startswith(f"{kind}[{container['name']}]") for problem in problems), f"{name}: {problems}"


@pytest.mark.parametrize("field", ["runAsNonRoot", "seccompProfile"])
def test_without_a_word_of_the_pod_each_container_has_to_say_it(field: str) -> None:
    setting = {"runAsNonRoot": True, "seccompProfile": {"type": "Localhost", "localhostProfile": "mine.json"}}[field]
    for name, pod in every_pod().items():
        pod["spec"]["securityContext"].pop(field)
        every = [container for kind in KINDS for container in pod["spec"][kind]]
        problems = violations(pod)
        assert len(problems) == len(every), f"{name}: {problems}"
        assert all(f"securityContext.{field}" in problem for problem in problems), f"{name}: {problems}"
        for container in every:
            container["securityContext"][field] = setting
        assert not violations(pod), name


def test_annotations_of_old_apparmor_count() -> None:
    for name, pod in every_pod().items():
        for value, admitted in (("unconfined", False), ("runtime/default", True), ("localhost/mine", True)):
            pod["metadata"]["annotations"] = {"container.apparmor.security.beta.kubernetes.io/x": value}
            assert (not violations(pod)) is admitted, f"{name}: {value}"


ADMITTED: dict[str, Change] = {
    "the one capability": lambda spec: spec["containers"][0]["securityContext"].update(
        {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}
    ),
    "safe sysctls": _context("sysctls", [{"name": name, "value": "1"} for name in sorted(SYSCTLS)]),
    "every volume": _set("volumes", [{"name": kind.lower(), kind: {}} for kind in sorted(VOLUMES)]),
    "no volume": lambda spec: spec.pop("volumes", None),
    "default proc": lambda spec: spec["containers"][0]["securityContext"].update(procMount="Default"),
    "apparmor": _context("appArmorProfile", {"type": "RuntimeDefault"}),
    "host fields that say no": lambda spec: spec.update(hostNetwork=False, hostPID=False, hostIPC=False),
    "a host port of 0": lambda spec: spec["containers"][0].update(ports=[{"containerPort": 80, "hostPort": 0}]),
    "a probe of the pod itself": lambda spec: spec["containers"][0].update(livenessProbe={"tcpSocket": {"port": 80}}),
    **{f"selinux {kind or 'empty'}": _context("seLinuxOptions", {"type": kind}) for kind in sorted(SELINUX_TYPES)},
}


@pytest.mark.parametrize("name", ADMITTED)
def test_what_the_standard_allows_is_admitted(name: str) -> None:
    for title, pod in every_pod().items():
        ADMITTED[name](pod["spec"])
        assert not violations(pod), title
