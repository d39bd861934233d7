"""The platform's own images, images/<name>/Dockerfile, as mlops/<name>:<version>.

build   builds them; --cluster: and pushes them to the kind cluster's registry, and restarts what uses them
sizes   the table of the README
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from images import registry
from images.offline import content
from images.offline.paths import LOGS
from images.offline.steps import Failure, Log, Steps, stop_on_signals
from images.registry import CLUSTER, run

ROOT = Path(__file__).resolve().parents[1]
# Taken from the caller's environment by what installs packages; they are in no layer of the result.
PASSED = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# What the others stand on, or are built with: nobody runs these.
PARENTS = ("python", "install", "common", "tracking")


def names() -> list[str]:
    """The images of an installation, by the folders that have a Dockerfile here."""
    return sorted({path.parent.name for path in (ROOT / "images").glob("*/Dockerfile")} - set(PARENTS))


def version() -> str:
    """The one version number of package, charts and images."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def tag(name: str) -> str:
    """The name by which the charts ask for an image."""
    return f"mlops/{name}:{version()}"


def dockerfile(name: str) -> Path:
    """The file an image is built from."""
    return ROOT / "images" / name / "Dockerfile"


def arguments(name: str) -> dict[str, str]:
    """The build's arguments, without those of the caller's environment."""
    return {"MLOPS_GIT_SHA": commit(name)} if name == "flows" else {}


def instructions(name: str) -> str:
    """The Dockerfile without its comments, with the values of the arguments that have one."""
    lines = dockerfile(name).read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    declared = " ".join(re.findall(r"^ARG (.+)$", text, re.MULTILINE))
    values = dict(re.findall(r"(\w+)=(\S+)", declared))
    return re.sub(r"\$(\w+)", lambda match: values.get(match[1], match[0]), text)


def parents(name: str) -> list[str]:
    """The images of ours that one is built from, the one that it stands on first."""
    named = re.findall(r"^FROM mlops/(\S+)|\bfrom=mlops/(\S+?),", instructions(name), re.MULTILINE)
    return [word for pair in named for word in pair if word]


def sources(name: str) -> list[str]:
    """Files and folders that an image is built from, its Dockerfile first, without those of its parents."""
    text = instructions(name)
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE)]
    mounted = re.findall(r"--mount=type=bind,source=([^,\s]+)", text)
    return [str(dockerfile(name).relative_to(ROOT)), *(word for words in copied for word in words), *mounted]


def ignored() -> list[str]:
    """Names of files and folders that are in no image, wherever they are: the lines **/name of .dockerignore."""
    return re.findall(r"^\*\*/(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)


def inputs(name: str) -> dict[str, str]:
    """File of the checkout -> its hash, of all that an image is built from besides its Dockerfile and its parents."""
    hashes: dict[str, str] = {}
    for source in sources(name)[1:]:
        path = ROOT / source
        inside = content.files(path, ignored()) if path.is_dir() else {"": content.file(path)}
        hashes |= {f"{source}/{file}".rstrip("/"): value for file, value in inside.items()}
    return hashes


def key(name: str) -> str:
    """The hash of all that an image is built from: the same files give the same key on every machine."""
    return content.key(instructions(name), arguments(name), inputs(name), [key(parent) for parent in parents(name)])


def content_tag(name: str) -> str:
    """The tag that says what is in an image, such as 0.2.0-3f2a9c01d4e7; by the version it always has a digit."""
    return f"{version()}-{key(name)[:12]}"


def with_parents(chosen: Iterable[str]) -> list[str]:
    """The images and all that they stand on, parents first."""
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        for parent in parents(name):
            visit(parent)
        ordered[name] = None

    for name in chosen:
        visit(name)
    return list(ordered)


def commit(name: str) -> str:
    """The last commit that changed what an image is built from; "" where there is no git.

    With "-dirty" where that was changed since. A commit of something else, such as of the docs, gives no other image.
    """
    paths = [source for image in with_parents([name]) for source in sources(image)]
    paths += [f":(exclude,glob)**/{word}{inside}" for word in ignored() for inside in ("", "/**")]
    last = _git("log", "-1", "--format=%H", "--", *paths)
    return f"{last}-dirty" if last and _git("status", "--porcelain", "--", *paths) else last


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def build(name: str, also: Iterable[str], log: Log) -> None:
    """Build one image; `also` are further tags for it. Raises Failure with the end of what the build printed."""
    words = [
        "docker",
        "buildx",
        "build",
        "--provenance=false",
        "--load",
        "--progress=plain",
        "-f",
        str(dockerfile(name)),
    ]
    for parent in parents(name):
        words += ["--build-context", f"mlops/{parent}=docker-image://{tag(parent)}"]
    for key in PASSED:
        words += ["--build-arg", key] if key in os.environ else []
    for key, value in arguments(name).items():
        words += ["--build-arg", f"{key}={value}"]
    for reference in (tag(name), *also):
        words += ["-t", reference]
    log.run([*words, "."], cwd=ROOT)


def add_builds(steps: Steps, chosen: Iterable[str], after: Iterable[str] = (), also: Iterable[str] = ()) -> None:
    """A step for each image and what it stands on."""
    chosen = list(chosen)
    for name in with_parents(chosen):
        steps.add(
            f"image {tag(name)}",
            partial(build, name, also if name in chosen else ()),
            after=[*after, *(f"image {tag(parent)}" for parent in parents(name))],
            kind="image",
        )


def add_pushes(
    steps: Steps, chosen: Iterable[str], after: Iterable[str] = (), also: Iterable[str] = ()
) -> dict[str, str]:
    """A step for each image that brings it to the cluster's registry; the chosen ones' references there -> its name.

    After what it stands on, as layers that two pushes have in common would be compressed twice. also: names in place of
    the usual one.
    """
    chosen, pushed = list(chosen), dict[str, str]()
    for name in with_parents(chosen):
        if name == "install":
            continue
        references = list(also) if also and name in chosen else [tag(name)]
        steps.add(
            f"push {tag(name)}",
            partial(_push, references),
            after=[f"image {tag(name)}", *(f"push {tag(parent)}" for parent in parents(name)[:1]), *after],
            kind="image",
            is_done=partial(_pushed, references),
        )
        if name in chosen:
            pushed |= dict.fromkeys(references, f"push {tag(name)}")
    return pushed


def _push(references: list[str], _: Log) -> None:
    for reference in references:
        registry.push(reference)


def _pushed(references: list[str]) -> bool:
    return all(map(registry.has, references))


def add_pulls(steps: Steps, references: dict[str, str], after: Iterable[str], replaced: list[str]) -> list[str]:
    """A step for each image (-> the step that pushes it) that brings it onto the nodes; their names.

    replaced: gets those of which a node had another build.
    """

    def pull(reference: str, _: Log) -> None:
        if registry.pull(reference):
            replaced.append(reference)

    def is_there(reference: str) -> bool:
        return not registry.stale(reference)

    for reference, pushed in references.items():
        steps.add(
            f"pull {reference}",
            partial(pull, reference),
            after=[pushed, *after],
            kind="pull",
            is_done=partial(is_there, reference),
        )
    return [f"pull {reference}" for reference in references]


def restart(references: Iterable[str]) -> list[str]:
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


def roll(replaced: Iterable[str]) -> None:
    """Restart what runs these, and say so."""
    if replaced and (restarted := restart(replaced)):
        print(f"       restarted {', '.join(restarted)}: another build of {', '.join(replaced)}", flush=True)


def make(chosen: list[str], also: list[str], to_cluster: bool) -> None:
    """Build the chosen images; bring them into the cluster."""
    steps = Steps(LOGS)
    add_builds(steps, chosen, also=also)
    replaced: list[str] = []
    if to_cluster and registry.answers():
        add_pulls(steps, add_pushes(steps, chosen, also=also), [], replaced)
    steps.run()
    roll(replaced)
    print(f"  images: {steps.seconds():.0f} s")


def size(reference: str) -> int:
    """Bytes of all layers, unpacked."""
    return int(run(["docker", "image", "inspect", "-f", "{{.Size}}", reference]))


def own_bytes(chosen: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """For each image and what it stands on: its name, its size, and the bytes that it adds to its parent."""
    for name in with_parents(chosen):
        if name == "install":
            continue
        parent = next(iter(parents(name)), "")
        whole = size(tag(name))
        yield tag(name), whole, whole - (size(tag(parent)) if parent else 0)


def sizes() -> str:
    """The table of the README, MB of 10^6 bytes, unpacked; the sum counts each layer once."""
    entries = list(own_bytes(names()))
    rows = [f"| `{reference}` | {whole / 1e6:.0f} MB | {own / 1e6:.0f} MB |" for reference, whole, own in entries]
    total = f"| all, each layer once | | {sum(own for *_, own in entries) / 1e6:.0f} MB |"
    return "\n".join(["| image | size | of it its own |", "|---|---|---|", *rows, total])


def has(reference: str) -> bool:
    """Whether the engine has an image of this name."""
    return bool(run(["docker", "image", "ls", "-q", reference]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m images.build", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", choices=["build", "sizes"])
    parser.add_argument("names", nargs="*", help="build: images, by default all")
    parser.add_argument("--cluster", action="store_true", help="push them to the kind cluster's registry")
    parser.add_argument("--tag", action="append", default=[], help="build: a further tag, as skaffold asks for")
    options = parser.parse_intermixed_args()
    known = [*names(), *PARENTS]
    unknown = set(options.names) - set(known) if options.command == "build" else set()
    if unknown:
        parser.error(f"there is no image {', '.join(sorted(unknown))}; known are: {', '.join(known)}")
    stop_on_signals()
    try:
        if options.command == "build":
            make(options.names or names(), options.tag, options.cluster)
        else:
            print(sizes())
    except Failure as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
