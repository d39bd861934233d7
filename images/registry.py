"""The kind cluster's registry: a container in its network, as kind documents it.

What is pushed to it, the nodes pull under the name that charts know it by: they ask this registry first, and where it
does not have an image, the one that the name says. So only layers that changed travel.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from images.offline.steps import Failure, output

CLUSTER = "mlops"
NAME = "mlops-registry"  # of the container, which is its address in the network, and of the volume with its content
PORT = 5001
ADDRESS = f"localhost:{PORT}"
STARTS_IN = 30.0  # seconds
IMAGE = "docker.io/library/registry:3.1.2"
NETWORK = "kind"
FOR_PEOPLE = f"""\
apiVersion: v1
kind: ConfigMap
metadata: {{name: local-registry-hosting, namespace: kube-public}}
data:
  localRegistryHosting.v1: |
    host: "{ADDRESS}"
    help: https://kind.sigs.k8s.io/docs/user/local-registry/
"""
HOSTS = f"""\
[host."http://{NAME}:5000"]
  capabilities = ["pull", "resolve"]
"""
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Manifest:
    """What the registry has under a name: the digest of the manifest, and the engine's id of the image."""

    digest: str
    image: str


def run(command: list[str], text: str = "") -> str:
    """What the command printed. Raises Failure when it fails."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Failure(f"{command[0]} is not installed") from None
    if done.returncode:
        raise Failure(f"{' '.join(command)}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout.strip()


def repository(reference: str) -> str:
    """The path of an image in a registry: `quay.io/a/b:1` is `a/b`, `postgres:17` is `library/postgres`."""
    name = reference.rpartition(":")[0] if ":" in reference.rpartition("/")[2] else reference
    first, _, rest = name.partition("/")
    if not rest:
        return f"library/{name}"
    return rest if first == "localhost" or any(mark in first for mark in ".:") else name


def local(reference: str) -> str:
    """The name under which an image is pushed to the cluster's registry."""
    return f"{ADDRESS}/{repository(reference)}:{reference.rpartition(':')[2]}"


def state() -> str:
    """The container's: running, exited, …; "" where there is none."""
    return run(["docker", "ps", "-a", "--filter", f"name=^{NAME}$", "--format", "{{.State}}"])


def answers() -> bool:
    """Whether the cluster's registry answers."""
    try:
        with urllib.request.urlopen(f"http://{ADDRESS}/v2/", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def start() -> None:
    """Start the registry, and wait until it answers: the engine's proxy takes connections earlier, and ends them.

    Its content is in a volume, so that a cluster made anew needs no second push.

    Raises:
        Failure: it does not answer within half a minute.
    """
    if state():
        run(["docker", "start", NAME])
    else:
        options = ["-d", "--restart=always", "--name", NAME, "-p", f"127.0.0.1:{PORT}:5000"]
        settings = ["-v", f"{NAME}:/var/lib/registry", "-e", "OTEL_TRACES_EXPORTER=none"]
        run(["docker", "run", *options, *settings, IMAGE])
    until = time.monotonic() + STARTS_IN
    while not answers():
        if time.monotonic() > until:
            raise Failure(f"the registry {NAME} does not answer at {ADDRESS}: `docker logs {NAME}` says why")
        time.sleep(0.1)


def connect() -> None:
    """Put the registry into the network of the cluster's nodes."""
    networks = json.loads(run(["docker", "inspect", "-f", "{{json .NetworkSettings.Networks}}", NAME]))
    if NETWORK not in networks:
        run(["docker", "network", "connect", NETWORK, NAME])


def tell(node: str) -> None:
    """A node asks the registry first, for whatever image; containerd reads this with each pull."""
    folders = ["_default", ADDRESS]
    paths = [f"/etc/containerd/certs.d/{folder}" for folder in folders]
    run(["docker", "exec", node, "mkdir", "-p", *paths])
    run(["docker", "exec", "-i", node, "tee", *(f"{path}/hosts.toml" for path in paths)], HOSTS)


def remove(content: bool) -> bool:
    """Remove the registry, and its content too if asked for. Says whether there was one."""
    was = bool(state())
    if was:
        run(["docker", "rm", "-f", NAME])
    if content and run(["docker", "volume", "ls", "-q", "--filter", f"name=^{NAME}$"]):
        run(["docker", "volume", "rm", NAME])
    return was


def manifest(reference: str) -> Manifest | None:
    """What the registry has under a name; None where it has nothing, or does not answer."""
    url = f"http://{ADDRESS}/v2/{repository(reference)}/manifests/{reference.rpartition(':')[2]}"
    request = urllib.request.Request(url, headers={"Accept": MANIFEST})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return Manifest(answer.headers["Docker-Content-Digest"], json.load(answer)["config"]["digest"])
    except OSError:
        return None


def has(reference: str) -> bool:
    """Whether the registry has the same image under this name as the engine."""
    entry = manifest(reference)
    return entry is not None and entry.image == run(["docker", "image", "inspect", "-f", "{{.Id}}", reference])


def push(reference: str, to: str = "") -> None:
    """Push an image of the engine; by default to the cluster's registry. Raises Failure when it refuses."""
    target = to or local(reference)
    run(["docker", "tag", reference, target])
    run(["docker", "push", "-q", target])


def digest(reference: str) -> str:
    """The digest of an image in the registry that its name says; "" where it is not there or does not answer."""
    told = output("docker", "buildx", "imagetools", "inspect", reference)
    found = re.search(r"^Digest:\s+(sha256:[0-9a-f]{64})$", told, re.MULTILINE)
    return found[1] if found else ""


def nodes() -> list[str]:
    """The nodes of the kind cluster that run on this machine."""
    label = f"label=io.x-k8s.kind.cluster={CLUSTER}"
    return run(["docker", "ps", "-q", "--filter", label, "--format", "{{.Names}}"]).split()


def stale(reference: str) -> dict[str, bool]:
    """Nodes without the image that the registry has under this name -> whether they have another image of that name."""
    wanted = manifest(reference)
    stale_nodes = {}
    for node in nodes() if wanted else []:
        listed = run([*_ctr(node), "ls", f"name=={_full(reference)}"]).splitlines()[1:]
        if wanted and not (listed and wanted.digest in listed[0]):
            stale_nodes[node] = bool(listed)
    return stale_nodes


def pull(reference: str) -> bool:
    """Bring what the registry has under this name onto every node.

    Says whether one had another image of that name: then what runs there is to be restarted.
    """
    replaced = False
    for node, other in stale(reference).items():
        run([*_ctr(node), "pull", "--hosts-dir=/etc/containerd/certs.d", _full(reference)])
        replaced = replaced or other
    return replaced


def _ctr(node: str) -> list[str]:
    return ["docker", "exec", node, "ctr", "--namespace=k8s.io", "images"]


def _full(reference: str) -> str:
    """As containerd lists it: with the registry's name."""
    first = reference.partition("/")[0]
    return (
        reference
        if "." in first or ":" in first
        else f"docker.io/{repository(reference)}:{reference.rpartition(':')[2]}"
    )
