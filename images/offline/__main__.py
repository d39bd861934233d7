"""`make cluster`, `make up` and `make down`: a kind cluster, from a container registry or from package registries.

up      a running cluster; skips what is there. --platform: and the platform on it, with what follows -- for helm
down    removes the cluster and stops the engine that `up` started; --all: images and programs too
tool    one program of tools.toml that people call themselves (helm), into .tools/bin where PATH has none
pack    compresses the programs of .tools/bin into a folder that TOOL_CACHE can name, and lists their sums
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from images import build, registry
from images import up as platform
from images.offline import cluster, host, images, tools
from images.offline.paths import BIN, LOGS, ROOT, TEMPORARY, TOOLS
from images.offline.steps import Failure, Log, Steps, fail, stop_on_signals

SKAFFOLD_ENV = ROOT / "skaffold.env"
NO_GRAFANA = "MLOPS_GRAFANA=unavailable"  # activates a profile of skaffold.yaml
CHOICES = {"auto": None, "": None, "1": True, "0": False}


@contextmanager
def only_one() -> Iterator[None]:
    """One run at a time in this checkout. Raises Failure when another one is at it."""
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                f"another `make cluster` or `make down` is running here ({TOOLS / 'lock'}): wait for it"
            ) from None
        shutil.rmtree(TEMPORARY, ignore_errors=True)
        TEMPORARY.mkdir()
        yield


def wanted() -> bool | None:
    """OFFLINE as True, False, or None for auto. Raises Failure for anything else."""
    value = os.environ.get("OFFLINE", "auto")
    if value not in CHOICES:
        raise Failure(
            f"OFFLINE={value} is not one of auto, 0 (pull from a container registry), 1 (build from packages)"
        )
    return CHOICES[value]


def tool_cache() -> Path | None:
    """The folder that TOOL_CACHE names. Raises Failure when there is none."""
    if not (named := os.environ.get("TOOL_CACHE")):
        return None
    folder = Path(named).resolve()
    if not folder.is_dir():
        raise Failure(
            f"TOOL_CACHE={named} is no folder: unset it to build the programs, or name the folder of their .zst files"
        )
    return folder


def make_program(tool: tools.Tool, cache: Path | None, steps: Steps, log: Log) -> None:
    """Take a program from the cache, or build it and say why."""
    if cache:
        reason = tools.from_cache(tool, cache)
        if not reason:
            return
        steps.say(f"building {tool.name}: {reason}")
    tools.build(tool, log)


def add_tools(steps: Steps, offline: bool, cache: Path | None) -> None:
    """A step for each program that is missing. What people call themselves is taken from PATH when it is new enough."""
    every = tools.load()
    names = [name for name in every if (offline and name != "promtool") or name in tools.USER_TOOLS]
    if offline:
        names.remove("kubectl")  # hyperkube is that too
    for name in names:
        tool = every[name]
        steps.add(
            program(name),
            partial(make_program, tool, cache, steps),
            after=["packages"] if cache and not shutil.which("zstd") else [],
            kind="" if cache and not tools.refused(tool, cache) else "go",
            is_done=partial(_have, tool) if name in tools.USER_TOOLS else tool.built,
        )
    if offline and not every["kubectl"].on_path():
        steps.add(
            "program kubectl",
            lambda _: tools.link_kubectl(),
            after=[program("hyperkube")],
            is_done=(BIN / "kubectl").is_symlink,
        )


def _have(tool: tools.Tool) -> bool:
    return tool.built() or bool(tool.on_path())


def program(name: str) -> str:
    """The step that makes a program."""
    return f"program {name} {tools.load()[name].version}"


def add_images(steps: Steps) -> None:
    """A step for each Debian release and each Dockerfile."""
    present: dict[str, str] = {}
    steps.add("images that are there", lambda _: present.update(images.keys_present()), after=["packages"])
    builds = defaultdict(list)
    for image in images.load().values():
        builds[image.step].append(image)

    def up_to_date(group: list[images.Image]) -> bool:
        return all(present.get(image.name) == image.key for image in group)

    for name, group in builds.items():
        first = group[0]
        needed = {images.load()[other].step for other in [*first.bases, *images.inner_images(first)]}
        steps.add(
            name,
            partial(images.build_base, first) if first.suite else partial(images.build, group),
            after=["images that are there", *sorted(needed), *map(program, first.tools)],
            kind="" if first.suite else "docker",
            is_done=partial(up_to_date, group),
        )


def choose_path(mark: cluster.Mark | None, choice: bool | None) -> bool:
    """Whether to work offline: an existing cluster decides, else OFFLINE, else whether a container registry answers."""
    if mark:
        return mark.offline
    if choice is not None:
        return choice
    if cluster.registry_answers():
        print("       a container registry answers: pulling images (OFFLINE=1 would build them)", flush=True)
        return False
    print("       no container registry answers: building images from packages (OFFLINE=0 would pull)", flush=True)
    return True


def add_registry(steps: Steps, config: cluster.Config, made: str, offline: bool) -> None:
    """Steps for the registry; `made` is the one that makes the cluster."""
    steps.add(
        "registry",
        lambda _: registry.start(),
        after=[images.load()[registry.IMAGE].step] if offline else ["container engine"],
        is_done=registry.answers,
    )
    steps.add(
        "registry for the nodes",
        partial(cluster.add_registry, config),
        after=["registry", made],
        is_done=partial(cluster.has_registry, config),
    )


def _push(image: images.Image, _: Log) -> None:
    registry.push(image.name)


def add_listed(steps: Steps, offline: bool, late: bool) -> list[str]:
    """Steps for images that charts refer to: onto the nodes, late ones to the registry alone. The names of the last."""
    chosen = [image for image in images.load().values() if offline and image.push and image.late == late]
    for image in chosen:
        steps.add(
            f"push {image.name}",
            partial(_push, image),
            after=[image.step, "registry"],
            kind="image",
            is_done=partial(registry.has, image.name),
        )
    pushes = {image.name: f"push {image.name}" for image in chosen}
    return list(pushes.values()) if late else build.add_pulls(steps, pushes, ["registry for the nodes"], [])


def add_cluster(steps: Steps, config: cluster.Config, mark: cluster.Mark | None, offline: bool) -> str:
    """The step for the cluster itself; its name."""
    name = f"cluster {config.name} ({config.nodes} node{'s'[: config.nodes > 1]})"
    kubectl = "program kubectl" if "program kubectl" in steps.steps else program("hyperkube" if offline else "kubectl")
    needed = [program("kind"), kubectl, *([images.node_image().step] if offline else [])]
    if mark:
        repair = partial(cluster.repair, config, offline)
        steps.add(name, repair, after=needed, is_done=partial(cluster.healthy, config))
    else:
        steps.add(name, partial(cluster.create, config, offline), after=needed)
    return name


def add_late(steps: Steps, config: cluster.Config, made: str, offline: bool) -> None:
    """What no prediction waits for: metrics-server, which HorizontalPodAutoscalers ask, and what is off by default."""
    pushes = add_listed(steps, offline, late=True)
    steps.add(
        "metrics-server",
        partial(cluster.install_metrics_server, config),
        after=["registry for the nodes", *pushes],
    )
    if offline:
        steps.add(
            "crictl on the nodes",
            partial(cluster.add_crictl, config),
            after=[made, program("crictl")],
            is_done=partial(cluster.has_crictl, config),
        )


def up(config_path: Path, with_platform: bool, for_helm: list[str]) -> None:
    """A running cluster with metrics-server, and in the offline case with all images that the charts refer to.

    with_platform: and the platform installed on it; for_helm are further options for that.
    """
    config, choice, cache = cluster.read_config(config_path), wanted(), tool_cache()
    steps = Steps(LOGS)
    if host.engine_installed() and not host.engine_answers():
        host.start_engine(Log(LOGS / "container-engine.log"))  # now, as a stopped engine keeps stopped clusters
        steps.say("container engine started")
    mark = cluster.find(config, choice)
    offline = choose_path(mark, choice)
    if not mark:
        from_source = offline and not cache and not BIN.exists()
        cluster.check_room(config, host.DISK_FROM_SOURCE if from_source else host.DISK)

    tell_skaffold(has_grafana(offline))
    steps.add("container engine", host.start_engine, is_done=host.engine_answers)
    steps.add(
        "packages",
        lambda _: host.install(*host.builders_missing(), why="what base images are built with"),
        after=["container engine"],
        is_done=lambda: not offline or not host.builders_missing(),
    )
    add_tools(steps, offline, cache)
    if offline:
        add_images(steps)
    made = add_cluster(steps, config, mark, offline)
    add_registry(steps, config, made, offline)
    chosen = ["python", *(build.names() if with_platform else [])]  # python: of the pods of tests, too
    in_use = platform.add_images(steps, chosen, [images.debian().step] if offline else ["container engine"])
    listed = add_listed(steps, offline, late=False)
    if with_platform:
        platform.add(steps, config.context, options(offline) + for_helm, [in_use, *listed, program("helm")])
    add_late(steps, config, made, offline)
    steps.run()

    if mark and mark.offline and mark.image != images.node_image().key:
        print("       the node image has changed since: `make down`, then `make cluster` takes the new one")
    took = f"{steps.seconds():.0f} s ({steps.skipped} steps had nothing to do)"
    if with_platform:
        print(f"       ready after {took}")
        return
    print(f"\nThe cluster {config.name} is ready after {took}. Try it:")
    if BIN.exists():
        print(f'  export PATH="{BIN}:$PATH"')
    print(f"  kubectl --context {config.context} get nodes")


def down(config_path: Path, everything: bool) -> None:
    """Remove the cluster, stop the engine if `up` started it."""
    config = cluster.read_config(config_path)
    if not host.engine_installed():
        print("There is no container engine here, and so no cluster")
    else:
        host.start_engine(Log(LOGS / "container-engine.log"))  # a stopped one keeps stopped clusters
        remove(config, everything)
    if everything:
        for path in TOOLS.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        print(f"Removed {TOOLS.relative_to(ROOT)}")


def remove(config: cluster.Config, everything: bool) -> None:
    """What `down` removes from the engine; then stops the engine if it is ours."""
    if cluster.containers(config.name):
        cluster.remove(config.name)
        print(f"Removed the cluster {config.name}")
    if registry.remove(content=everything):
        print("Removed its registry" + ("" if everything else "; what was pushed to it is kept for the next one"))
    if everything:
        names = [name for name in images.load() if name in images.keys_present()]
        if names:
            subprocess.run(["docker", "image", "rm", "-f", *names], check=False, capture_output=True)
        subprocess.run(["docker", "buildx", "prune", "-f", "-a"], check=False, capture_output=True)
        print(f"Removed {len(names)} images and the build cache")
    tell_skaffold(grafana=True)
    if host.stop_engine():
        print("Stopped the container engine that `make cluster` started")


def has_grafana(offline: bool) -> bool:
    """Whether a cluster can have Grafana: its image can be pulled, or is on our list."""
    return not offline or any("/grafana/grafana:" in name for name in images.load())


def tell_skaffold(grafana: bool) -> None:
    """Say in skaffold.env, which skaffold reads, whether to take its profile without Grafana; other lines stay."""
    lines = SKAFFOLD_ENV.read_text().splitlines() if SKAFFOLD_ENV.exists() else []
    lines = [line for line in lines if line != NO_GRAFANA] + ([] if grafana else [NO_GRAFANA])
    if lines:
        SKAFFOLD_ENV.write_text("\n".join(lines) + "\n")
    else:
        SKAFFOLD_ENV.unlink(missing_ok=True)


def options(offline: bool) -> list[str]:
    """Options for helm: parts whose images are on no list of ours are left out of an offline cluster; says so."""
    if has_grafana(offline):
        return []
    print("       no container registry, and no package has Grafana's image: installing without it", flush=True)
    return ["--set=grafana.enabled=false"]


def tool(name: str) -> None:
    """Make one program of those that people or tests call themselves. Raises Failure for others."""
    known = (*tools.USER_TOOLS, *tools.TEST_TOOLS)
    if name not in known:
        raise Failure(f"there is no program {name!r} to make by itself; known are: {', '.join(known)}")
    entry, cache = tools.load()[name], tool_cache() if shutil.which("zstd") else None
    if not _have(entry):
        steps = Steps(LOGS)
        steps.add(program(name), partial(make_program, entry, cache, steps), kind="go")
        steps.run()


def pack(folder: Path) -> None:
    """Compress what .tools/bin has into a folder for TOOL_CACHE and write the sums of all that is in it.

    An archive that is there is left as it is where it was packed from today's sources, and packed anew where not.
    Raises Failure where there is no program of today's sources to do that with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for tool in tools.load().values():
        tools.pack(tool, folder)
    tools.write_sums(folder)
    print(f"wrote {tools.SUMS.relative_to(ROOT)}: commit it, then TOOL_CACHE={folder} saves the building")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m images.offline", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", choices=["up", "down", "tool", "pack"])
    parser.add_argument("folder", nargs="?", type=Path, help="tool: its name; pack: where to")
    parser.add_argument("--config", type=Path, default=ROOT / "kind-config.yaml")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--platform", action="store_true")
    words, for_helm = sys.argv[1:], []
    if "--" in words:
        words, for_helm = words[: words.index("--")], words[words.index("--") + 1 :]
    arguments = parser.parse_args(words)
    stop_on_signals()
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"
    try:
        with only_one():
            if arguments.command == "up":
                up(arguments.config, arguments.platform, for_helm)
            elif arguments.command == "down":
                down(arguments.config, arguments.all)
            elif arguments.command == "tool":
                tool(str(arguments.folder or ""))
            else:
                pack(arguments.folder or parser.error("pack wants a folder"))
    except Failure as failure:
        fail(failure)
    except KeyboardInterrupt:
        print("\nStopped. Run it again: it goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
