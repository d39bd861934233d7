"""The Pod Security Standard "restricted", which includes "baseline", of Kubernetes 1.36.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
Stricter in one thing: it forgives nothing to Windows pods and to those in a user namespace (hostUsers: false).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image"),
    *("persistentVolumeClaim", "projected", "secret"),
}
SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
    *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe")


def violations(pod: dict[str, Any]) -> list[str]:
    """What in a pod (template) "restricted" forbids, as `path: reason`; nothing when it is admitted."""
    return [
        *_of_pod(pod),
        *(violation for name, container in _containers(pod) for violation in _of_container(name, container, pod)),
    ]


def _containers(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod["spec"].get(kind) or []:
            yield f"{kind}[{container['name']}]", container


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    spec, context = pod["spec"], pod["spec"].get("securityContext") or {}
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field}: must not be true"
    for volume in spec.get("volumes") or []:
        for kind in set(volume) - {"name"} - VOLUMES:
            yield f"volumes[{volume['name']}]: {kind} is not allowed"
    for sysctl in context.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield f"securityContext.sysctls: {sysctl['name']} is not allowed"
    yield from _options("securityContext", context)
    for annotation, value in ((pod.get("metadata") or {}).get("annotations") or {}).items():
        if annotation.startswith("container.apparmor.security.beta.kubernetes.io/") and not (
            value in ("", "runtime/default") or value.startswith("localhost/")
        ):
            yield f"annotations[{annotation}]: {value} is not allowed"


def _of_container(name: str, container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    own, shared = container.get("securityContext") or {}, pod["spec"].get("securityContext") or {}
    if own.get("privileged"):
        yield f"{name}.securityContext.privileged: must not be true"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}.securityContext.allowPrivilegeEscalation: must be false"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield f"{name}.securityContext.capabilities.drop: must have ALL"
    if extra := set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield f"{name}.securityContext.capabilities.add: {', '.join(sorted(extra))} is not allowed"
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
        yield f"{name}.securityContext.runAsNonRoot: must be true, here or for the pod"
    profile = (own.get("seccompProfile") or shared.get("seccompProfile") or {}).get("type")
    if profile not in ("RuntimeDefault", "Localhost"):
        yield f"{name}.securityContext.seccompProfile: must be RuntimeDefault or Localhost, here or for the pod"
    if own.get("procMount", "Default") != "Default":
        yield f"{name}.securityContext.procMount: must be Default"
    yield from _options(f"{name}.securityContext", own)
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield f"{name}.ports: hostPort {port['hostPort']} is not allowed"
    for field in HANDLERS:
        yield from _handler(f"{name}.{field}", container.get(field) or {})
    for field, handler in (container.get("lifecycle") or {}).items():
        if isinstance(handler, dict):
            yield from _handler(f"{name}.lifecycle.{field}", handler)


def _options(path: str, context: dict[str, Any]) -> Iterator[str]:
    """What holds for the securityContext of pods and containers alike."""
    if context.get("runAsUser") == 0:
        yield f"{path}.runAsUser: must not be 0"
    if context.get("runAsNonRoot") is False:
        yield f"{path}.runAsNonRoot: must not be false"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{path}.windowsOptions.hostProcess: must not be true"
    if (context.get("seccompProfile") or {}).get("type") == "Unconfined":
        yield f"{path}.seccompProfile: must not be Unconfined"
    if (context.get("appArmorProfile") or {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
        yield f"{path}.appArmorProfile: must be RuntimeDefault or Localhost"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in SELINUX_TYPES:
        yield f"{path}.seLinuxOptions.type: {selinux['type']} is not allowed"
    if selinux.get("user") or selinux.get("role"):
        yield f"{path}.seLinuxOptions: user and role must not be set"


def _handler(path: str, handler: dict[str, Any]) -> Iterator[str]:
    """Probes and hooks may not name a host (since 1.34): the kubelet would ask it."""
    for kind in ("httpGet", "tcpSocket"):
        if (handler.get(kind) or {}).get("host"):
            yield f"{path}.{kind}.host: must not be set"
