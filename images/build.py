"""`make images` and `make push`: the platform's own images, images/<name>/Dockerfile, as mlops/<name>:<version>.

build   builds them; --load: and brings them onto the nodes of the kind cluster, if it runs
push    builds them, tags and pushes them to a registry, for `global.imageRegistry`
sizes   the table of the README
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = "mlops"
BASE = "python:3.13.5-slim"
# Taken from the caller's environment by the build stages; they are in no layer of the result.
PASSED = ("PIP_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class BuildError(Exception):
    """A command failed; the message says which, and what it printed."""


VARIANTS = {"api-skops": "api"}  # images from another's Dockerfile, with their own lock; built when asked for


def names() -> list[str]:
    """The images of an installation, by the folders that have a Dockerfile here."""
    return sorted(path.parent.name for path in (ROOT / "images").glob("*/Dockerfile"))


def version() -> str:
    """The one version number of package, charts and images."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def tag(name: str) -> str:
    return f"mlops/{name}:{version()}"


def run(command: list[str]) -> str:
    """What the command printed. Raises BuildError when it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout.strip()


def commit() -> str:
    """The checkout's commit, "-dirty" where files were changed, "" where there is no git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def build(name: str, also: Iterable[str] = ()) -> None:
    """Build one image; `also` are further tags for it."""
    tags = [word for reference in (tag(name), *also) for word in ("-t", reference)]
    arguments = [word for key in PASSED if key in os.environ for word in ("--build-arg", key)]
    if name == "flows":
        arguments += ["--build-arg", f"MLOPS_GIT_SHA={commit()}"]
    if name in VARIANTS:
        arguments += ["--build-arg", f"LOCK={name}"]
    dockerfile = f"images/{VARIANTS.get(name, name)}/Dockerfile"
    command = ["docker", "buildx", "build", "--provenance=false", "--load", "-f", dockerfile]
    run([*command, *arguments, *tags, "."])


def nodes() -> list[str]:
    """The nodes of the kind cluster, where it runs on this machine."""
    label = f"label=io.x-k8s.kind.cluster={CLUSTER}"
    return run(["docker", "ps", "-q", "--filter", label, "--format", "{{.Names}}"]).split()


def image_id(reference: str) -> str:
    """The engine's id of an image: the digest of its configuration, which containerd lists too."""
    return run(["docker", "image", "inspect", "-f", "{{.Id}}", reference])


def has(node: str, reference: str) -> bool:
    listed = run(["docker", "exec", node, "crictl", "inspecti", "-q", "-o", "json", reference])
    return bool(json.loads(listed)["status"]["id"] == image_id(reference))


def load(references: list[str]) -> list[str]:
    """Bring images onto every node; returns those that were not there.

    As `kind load docker-image`, but without a file in between and without the layers that a node has: after a change of
    code that is a few kilobytes instead of a gigabyte.
    """
    loaded = []
    for node in nodes():
        missing = [reference for reference in references if not _is_there(node, reference)]
        if missing:
            _send(node, missing)
            loaded += missing
    return sorted(set(loaded))


def _is_there(node: str, reference: str) -> bool:
    try:
        return has(node, reference)
    except BuildError:
        return False  # crictl fails where the name is unknown


def _send(node: str, references: list[str]) -> None:
    ctr = ["docker", "exec", "-i", node, "ctr", "--namespace=k8s.io"]
    there = set(run([*ctr, "content", "ls", "-q"]).replace("sha256:", "").split())
    importing = [*ctr, "images", "import", "--all-platforms", "--digests", "--snapshotter=overlayfs", "-"]
    with (
        subprocess.Popen(["docker", "save", *references], stdout=subprocess.PIPE) as saved,
        subprocess.Popen(
            importing, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as imported,
    ):
        assert saved.stdout
        assert imported.stdin
        with contextlib.suppress(BrokenPipeError):  # what ctr printed says why
            _copy_without(saved.stdout, imported.stdin, there)
        imported.stdin.close()
        assert imported.stdout
        printed = imported.stdout.read().decode(errors="replace")
    if saved.returncode or imported.returncode:
        raise BuildError(f"loading {', '.join(references)} onto {node} failed:\n{printed}")


def _copy_without(source: IO[bytes], target: IO[bytes], digests: set[str]) -> None:
    """Copy a tar stream of an OCI layout but for these blobs."""
    with tarfile.open(fileobj=source, mode="r|") as old, tarfile.open(fileobj=target, mode="w|") as new:
        for member in old:
            if member.name == "manifest.json" or Path(member.name).name in digests:
                continue  # without manifest.json it is read as an OCI layout, in which blobs may be missing
            new.addfile(member, old.extractfile(member) if member.isreg() else None)


def restart(references: list[str]) -> list[str]:
    """Restart what runs an image whose name was given to another build; returns the names."""
    kubectl = ["kubectl", "--context", f"kind-{CLUSTER}"]
    selector = ["--selector", "app.kubernetes.io/part-of=mlops"]
    listed = run([*kubectl, "get", "deployments", "--all-namespaces", *selector, "-o", "json"])
    restarted = []
    for item in json.loads(listed)["items"]:
        name, namespace = item["metadata"]["name"], item["metadata"]["namespace"]
        if {container["image"] for container in item["spec"]["template"]["spec"]["containers"]} & set(references):
            run([*kubectl, "--namespace", namespace, "rollout", "restart", f"deployment/{name}"])
            restarted.append(name)
    return restarted


def size(reference: str) -> int:
    """Bytes of all layers, unpacked."""
    return int(run(["docker", "image", "inspect", "-f", "{{.Size}}", reference]))


def sizes() -> str:
    """The table of the README, MB of 10^6 bytes, unpacked."""
    base = size(BASE)
    found = {tag(name): size(tag(name)) / 1e6 for name in [*names(), *VARIANTS]}
    rows = [f"| `{reference}` | {mb:.0f} MB | {mb - base / 1e6:.0f} MB |" for reference, mb in found.items()]
    return "\n".join(["| image | size | above the Python base |", "|---|---|---|", *rows])


def make(chosen: list[str], also: list[str], to_cluster: bool) -> None:
    """Build the chosen images, two at a time, and load them."""
    begun = time.monotonic()

    def one(name: str) -> None:
        started = time.monotonic()
        build(name, also)
        print(f"  built {tag(name)}: {time.monotonic() - started:.0f} s", flush=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, chosen))
    if to_cluster:
        started = time.monotonic()
        references = also or [tag(name) for name in chosen]
        loaded = load(references)
        what = ", ".join(loaded) if loaded else "they are there"
        print(f"  onto the cluster's nodes: {what}: {time.monotonic() - started:.0f} s")
        if restarted := restart(loaded) if loaded else []:
            print(f"  restarted {', '.join(restarted)}")
    print(f"  images: {time.monotonic() - begun:.0f} s")


def push(registry: str) -> None:
    """Push the images under the registry's name. Raises BuildError when it refuses."""
    for name in [*names(), *VARIANTS]:
        build(name)
        there = f"{registry.rstrip('/')}/{tag(name)}"
        run(["docker", "tag", tag(name), there])
        run(["docker", "push", there])
        print(f"  pushed {there}")
    print(f"Install with --set global.imageRegistry={registry.rstrip('/')}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m images.build", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", choices=["build", "push", "sizes"])
    parser.add_argument("names", nargs="*", help="build: images, by default all; push: the registry")
    parser.add_argument("--load", action="store_true", help="onto the nodes of the kind cluster")
    parser.add_argument("--tag", action="append", default=[], help="build: a further tag, as skaffold asks for")
    arguments = parser.parse_intermixed_args()
    unknown = set(arguments.names) - {*names(), *VARIANTS} if arguments.command == "build" else set()
    if unknown:
        parser.error(f"there is no image {', '.join(sorted(unknown))}; known are: {', '.join([*names(), *VARIANTS])}")
    try:
        if arguments.command == "build":
            make(arguments.names or names(), arguments.tag, arguments.load)
        elif arguments.command == "push":
            if len(arguments.names) != 1:
                parser.error("push wants a registry: make push REGISTRY=registry.example.com/team")
            push(arguments.names[0])
        else:
            print(sizes())
    except BuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
