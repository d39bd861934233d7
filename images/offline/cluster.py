"""The kind cluster: made, found again, repaired, removed."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import textwrap
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from images import registry
from images.offline import host, images
from images.offline.paths import BIN, OFFLINE, STATE
from images.offline.steps import Failure, Log, output

MARK = "/kind/mlops.json"  # in the control plane's file system; written when the cluster was complete
CERTS = "/etc/containerd/certs.d"  # where containerd looks for registries, one folder each
READY = 180  # seconds that a started cluster has to become ready
PROBE = "https://registry-1.docker.io/v2/"


@dataclass(frozen=True)
class Config:
    """What this reads from a kind configuration file; kind itself reads the rest."""

    path: Path
    name: str
    nodes: int
    ports: tuple[tuple[str, int], ...]
    digest: str

    @property
    def context(self) -> str:
        """The name of the cluster's context in kubectl's configuration."""
        return f"kind-{self.name}"


@dataclass(frozen=True)
class Mark:
    """How a cluster was made."""

    offline: bool
    config: str  # SHA-256 of the kind configuration
    image: str  # content key of the node image, "" for kind's own


def read_config(path: Path) -> Config:
    """Raises Failure when the file is missing or no kind configuration."""
    try:
        text = path.read_text()
    except OSError as error:
        raise Failure(
            f"KIND_CONFIG={path} cannot be read ({error.strerror}): kind-config.yaml is the default"
        ) from None
    if not re.search(r"^kind: Cluster$", text, re.MULTILINE):
        raise Failure(f"KIND_CONFIG={path} is no kind configuration: it has no line `kind: Cluster`")
    name = re.search(r"^name:\s*(\S+)", text, re.MULTILINE)
    mappings = re.findall(r"^.*\bhostPort:\s*\d+.*$", text, re.MULTILINE)
    ports = []
    for mapping in mappings:
        address = re.search(r"listenAddress:\s*\"?([0-9.]+)", mapping)
        port = re.search(r"hostPort:\s*(\d+)", mapping)
        ports.append((address[1] if address else "127.0.0.1", int(port[1]) if port else 0))
    return Config(
        path=path,
        name=name[1] if name else "kind",
        nodes=max(1, len(re.findall(r"\brole:\s*\S+", text))),
        ports=tuple(ports),
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def cgroup_version() -> str:
    """The engine's host's: "1" or "2"."""
    return output("docker", "info", "--format", "{{.CgroupVersion}}")


def kind_config(config: Config, offline: bool, cgroups: str) -> str:
    """The configuration for kind: the file's, and what containerd and kubelet need on this host.

    On cgroup v1 both use cgroupfs: systemd freezes a container there to set its limits, and runc now and then fails
    with "unable to freeze" when many start at once. Our node image has containerd's configuration version 3, kind's 2.
    """
    # images are built meanwhile: kubeadm's minute for the API server's first answer is not enough for two cores
    patience = "kind: InitConfiguration\ntimeouts: {kubernetesAPICall: 4m}"
    text = _with(config.path.read_text(), "kubeadmConfigPatches", patience)
    runtime = "io.containerd.cri.v1.runtime" if offline else "io.containerd.grpc.v1.cri"
    if not offline:  # our node image has it
        text = _with(text, "containerdConfigPatches", f'[plugins."{runtime}".registry]\n  config_path = "{CERTS}"')
    if cgroups == "1":
        options = f'[plugins."{runtime}".containerd.runtimes.runc.options]\n  SystemdCgroup = false'
        text = _with(text, "containerdConfigPatches", options)
        text = _with(text, "kubeadmConfigPatches", "kind: KubeletConfiguration\ncgroupDriver: cgroupfs")
    return text


def _with(text: str, patches: str, patch: str) -> str:
    """A kind configuration with one more of its patches."""
    entry = f"{patches}:\n- |\n{textwrap.indent(patch, '  ')}\n"
    replaced, count = re.subn(rf"^{patches}:\n", lambda _: entry, text, count=1, flags=re.MULTILINE)
    return replaced if count else f"{text.rstrip()}\n{entry}"


def containers(name: str) -> dict[str, str]:
    """Node name -> state (running, exited, created, …) of a cluster's containers, the control plane first."""
    listed = output(
        *("docker", "ps", "-a", "--filter", f"label=io.x-k8s.kind.cluster={name}", "--format", "{{.Names}} {{.State}}")
    )
    pairs = [line.split() for line in listed.splitlines()]
    return dict(sorted(pairs, key=lambda pair: ("control-plane" not in pair[0], pair[0])))


def control_plane(name: str) -> str:
    """The name of the cluster's first node."""
    return f"{name}-control-plane"


def mark(name: str) -> Mark | None:
    """How the cluster was made; None when it was not made by this, or not to the end."""
    copied = subprocess.run(["docker", "cp", f"{control_plane(name)}:{MARK}", "-"], capture_output=True, check=False)
    match = re.search(rb"\{.*\}", copied.stdout)
    return Mark(**json.loads(match[0])) if match else None


def _unfinished(name: str) -> Path:
    return STATE / f"creating-{name}"


def find(config: Config, wanted: bool | None) -> Mark | None:
    """The cluster of that name, if this made it. A half-made one is removed.

    wanted: True for OFFLINE=1, False for 0, None for auto.

    Raises Failure when the cluster of that name is somebody else's or was made differently.
    """
    nodes = containers(config.name)
    if not nodes:
        return None
    existing_mark = mark(config.name)
    renew = f"`make down` removes it, then `make cluster` makes the one of {config.path.name}"
    if not existing_mark:
        if _unfinished(config.name).exists():
            remove(config.name)
            return None
        raise Failure(f"there is a kind cluster {config.name} that `make cluster` did not make. {renew}")
    if existing_mark.config != config.digest:
        raise Failure(f"the cluster {config.name} was made from another configuration than this. {renew}")
    if wanted is not None and existing_mark.offline != wanted:
        raise Failure(f"the cluster {config.name} was made with OFFLINE={int(existing_mark.offline)}. {renew}")
    return existing_mark


def registry_answers() -> bool:
    """Does the registry of kind's node image answer? One request of at most 5 s, by the proxy of the environment."""
    try:
        with urllib.request.urlopen(PROBE, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401  # it wants a token, which every client gets
    except OSError:
        return False


def check_room(config: Config, disk: int) -> None:
    """Raises Failure when a new cluster has no room: `disk` GiB, ports."""
    host.check_disk(disk)
    for address, port in (*config.ports, *([] if registry.answers() else [("127.0.0.1", registry.PORT)])):
        host.check_port(address, port)


def create(config: Config, offline: bool, log: Log) -> None:
    """A new cluster. When it is killed half-way, the next run removes what there is."""
    STATE.mkdir(parents=True, exist_ok=True)
    _unfinished(config.name).touch()
    image = ["--image", images.node_image().name] if offline else []
    generated = STATE / config.path.name
    generated.write_text(kind_config(config, offline, cgroup_version()))
    command: list[str | Path] = ["kind", "create", "cluster", "--config", generated, "--wait", f"{READY}s", *image]
    try:
        log.run(command)
    except Failure as failure:
        cure = "" if offline else "\nIf it could not pull its image: OFFLINE=1 builds it from packages"
        raise Failure(f"{failure}{cure}") from None
    made = Mark(offline, config.digest, images.node_image().key if offline else "")
    subprocess.run(
        ["docker", "exec", "-i", control_plane(config.name), "tee", MARK],
        input=json.dumps(asdict(made)).encode(),
        check=True,
        capture_output=True,
    )
    _unfinished(config.name).unlink()


def healthy(config: Config) -> bool:
    """All containers run, the API server answers, and reaches the kubelet of every node."""
    nodes = containers(config.name)
    return all(state == "running" for state in nodes.values()) and all(
        output(*kubectl(config), "get", "--raw", f"/api/v1/nodes/{node}/proxy/healthz") == "ok" for node in nodes
    )


def kubectl(config: Config) -> list[str]:
    """The beginning of a kubectl command for the cluster."""
    return ["kubectl", "--context", config.context, "--request-timeout=20s"]


def repair(config: Config, offline: bool, log: Log) -> None:
    """Start the nodes of a cluster that a killed engine or a restarted machine left. Made anew when that fails."""
    nodes = containers(config.name)
    if len(nodes) == config.nodes:
        for node, state in nodes.items():
            if state != "running":
                log.run(["docker", "start", node])
        log.run(["kind", "export", "kubeconfig", "--name", config.name])
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline:
            if healthy(config):
                log.run([*kubectl(config), "wait", "--for=condition=Ready", "node", "--all", f"--timeout={READY}s"])
                return
            time.sleep(1)
    print(
        f"      the cluster {config.name} does not come back: making it anew, what was stored in it is gone", flush=True
    )
    remove(config.name)
    create(config, offline, log)


def remove(name: str) -> None:
    """Remove a cluster, its volumes and its entry in the kubeconfig."""
    if not output("kind", "version"):  # a run that was killed before kind was there
        for node in containers(name):
            output("docker", "rm", "-f", "-v", node)
    else:
        result = subprocess.run(
            ["kind", "delete", "cluster", "--name", name], capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise Failure(f"kind cannot remove the cluster {name}: {result.stderr.strip()}")
    _unfinished(name).unlink(missing_ok=True)


def has_registry(config: Config) -> bool:
    """Does the registry answer, and do all nodes ask it first?"""
    look = ["grep", "-q", registry.NAME, f"{CERTS}/_default/hosts.toml"]
    return registry.answers() and all(
        subprocess.run(["docker", "exec", node, *look], capture_output=True, check=False).returncode == 0
        for node in containers(config.name)
    )


def add_registry(config: Config, log: Log) -> None:
    """Bring the registry into the cluster's network and tell the nodes of it, and people's tools by a ConfigMap."""
    registry.connect()
    for node in containers(config.name):
        registry.tell(node)
    file = STATE / "local-registry-hosting.yaml"
    file.write_text(registry.FOR_PEOPLE)
    log.run([*kubectl(config), "apply", "-f", file], retries=2)


def has_crictl(config: Config) -> bool:
    """Whether every node has crictl."""
    return all(output("docker", "exec", node, "which", "crictl") for node in containers(config.name))


def add_crictl(config: Config, log: Log) -> None:
    """crictl onto every node, for people and for `kind load`; nothing waits for its build."""
    for node in containers(config.name):
        log.run(["docker", "cp", BIN / "crictl", f"{node}:/usr/local/bin/crictl"])


def install_metrics_server(config: Config, log: Log) -> None:
    """The resource metrics API, and wait until it answers."""
    log.run([*kubectl(config), "apply", "-f", OFFLINE / "manifests" / "metrics-server.yaml"], retries=2)
    wait = [*kubectl(config)[:-1], "wait", "--for=condition=Available", "--timeout=180s"]
    log.run([*wait, "-n", "kube-system", "deployment/metrics-server"])
    log.run([*wait, "apiservice/v1beta1.metrics.k8s.io"])
