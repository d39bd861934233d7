"""`make push`: the platform's images to a registry of yours, and the values with which helm takes them from there.

The tags are hashes of what the images are built from. What the registry has by its tag is neither built nor pushed
again and keeps its digest, so an upgrade restarts what has another one.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from images import build, chart, registry
from images.offline.paths import LOGS
from images.offline.steps import Failure, Log, Steps, output, stop_on_signals

VALUES = Path("images-values.yaml")  # in the current folder
INSTALL = f"helm upgrade --install mlops charts/platform -n mlops --create-namespace -f {VALUES}"
# As the schema of global.imageRegistry has it.
REGISTRY = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]*(:[0-9]+)?(/[a-z0-9._-]+)*")


@dataclass(frozen=True)
class Part:
    """An image of the chart: its place in the values, what the engine calls it, and where it is pushed."""

    place: tuple[str, ...]
    source: str
    repository: str
    tag: str
    name: str = ""  # of ours: its folder

    def target(self, to: str) -> str:
        """Its name in a registry."""
        return f"{to}/{self.repository}:{self.tag}"


def parts(mirror: bool = False, without: Iterable[str] = ()) -> list[Part]:
    """What is pushed: our images, and with `mirror` the third-party ones of all charts but those `without`."""
    found = []
    for place, image in chart.images().items():
        if not image.registry:
            name = image.repository.removeprefix("mlops/")
            found.append(Part(place, build.tag(name), image.repository, build.content_tag(name), name))
        elif mirror and place[0] not in without:
            found.append(Part(place, image.reference, image.repository, image.tag))
    return found


def digests(targets: Iterable[str]) -> dict[str, str]:
    """Name in a registry -> digest, of those that it has."""
    asked = list(targets)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return {
            target: digest for target, digest in zip(asked, pool.map(registry.digest, asked), strict=True) if digest
        }


def send(part: Part, target: str, log: Log) -> None:
    """Push one image. Raises Failure when files changed under it, or when there is no such image."""
    if part.name and build.content_tag(part.name) != part.tag:
        raise Failure("files that it is built from changed meanwhile, and the tag would be another: run it again")
    if not part.name and not output("docker", "image", "inspect", part.source):
        try:
            log.run(["docker", "pull", "-q", part.source])
        except Failure as failure:
            chart_of_it = part.place[0]
            raise Failure(
                f"{part.source} cannot be pulled: WITHOUT={chart_of_it} leaves out what the chart {chart_of_it} needs, "
                f"for an installation without it. {failure}"
            ) from None
    registry.push(part.source, target)


def push(to: str, chosen: list[Part]) -> dict[str, str]:
    """Build and push what the registry does not have; target -> digest of all ("" where it does not tell)."""
    targets = {part.target(to): part for part in chosen}
    there = digests(targets)
    missing = {target: part for target, part in targets.items() if target not in there}
    steps = Steps(LOGS)
    build.add_builds(steps, dict.fromkeys(part.name for part in missing.values() if part.name))
    before: list[str] = []  # one after the other: they have layers in common
    for target, part in missing.items():
        built = [f"image {part.source}"] if part.name else []
        steps.add(f"push {target}", partial(send, part, target), after=[*built, *before])
        before = [f"push {target}"]
    steps.run()
    print(f"  images pushed: {len(missing)}, there already: {len(there)} ({steps.seconds():.0f} s)")
    return dict.fromkeys(targets, "") | there | digests(missing)


def values(to: str, chosen: Iterable[Part], found: dict[str, str], mirror: bool) -> str:
    """The values file: where the images are, and of each the tag and the digest."""
    tree: dict[str, Any] = {"global": {"imageRegistry": to, **({"mirrorRegistry": to} if mirror else {})}}
    for part in chosen:
        inner = tree
        for key in part.place:
            inner = inner.setdefault(key, {})
        inner |= {"repository": part.repository, "tag": part.tag, "digest": found[part.target(to)]}
    called = f"make push REGISTRY={to}{' MIRROR=1' if mirror else ''}"
    return "\n".join([f"# Written by `{called}`: what was pushed. Tags are hashes of content.", *_lines(tree), ""])


def _lines(tree: dict[str, Any], indent: str = "") -> Iterable[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f'{indent}{key}: "{value}"'


def options(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked: it ends the process with a message that names what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m images.push", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("registry", nargs="?", default="", help="such as registry.example.com/team")
    parser.add_argument("--mirror", action="store_true", help="third-party images, too, for global.mirrorRegistry")
    parser.add_argument(
        "--without", action="append", default=[], help="a chart that you do not install: not its images"
    )
    given = parser.parse_args(words)
    given.registry = given.registry.rstrip("/")
    if not REGISTRY.fullmatch(given.registry):
        parser.error(
            f"REGISTRY={given.registry} is no registry with a path, and without https://: "
            "make push REGISTRY=registry.example.com/team"
        )
    charts = sorted({place[0] for place, image in chart.images().items() if image.registry})
    if unknown := set(given.without) - set(charts):
        parser.error(f"WITHOUT={' '.join(sorted(unknown))} is not one of: {', '.join(charts)}")
    return given


def main() -> None:
    """The command line."""
    given = options()
    stop_on_signals()
    try:
        chosen = parts(given.mirror, given.without)
        found = push(given.registry, chosen)
    except Failure as error:
        sys.exit(str(error))
    VALUES.write_text(values(given.registry, chosen, found, given.mirror))
    for target in (target for target, digest in found.items() if not digest):
        print(f"The registry does not tell the digest of {target}: the tag alone is in {VALUES}.")
    print(f"{VALUES} says what is where. Install or upgrade with\n  {INSTALL}")


if __name__ == "__main__":
    main()
