"""The platform on the kind cluster, for `make bench ARGS=--platform`: `make up`, images, idle memory, skaffold dev."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx

from app.runtime.waiting import wait_until
from images import build

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "mlops"
KUBECTL = ["kubectl", "--context", "kind-mlops", "--namespace", NAMESPACE]
HELM = ["helm", "--kube-context", "kind-mlops", "--namespace", NAMESPACE]
INGRESS = "http://127.0.0.1:8080"
API = {"Host": "api.localhost:8080"}  # Python's resolver does not know *.localhost
RESULTS = ROOT / "bench" / "results" / "platform.json"
FLOW = ROOT / "flows" / "train.py"
STEP = re.compile(r"^ *\d+:\d\d  (.+): (\d+) s$")  # what the steps of `make up` print
SETTLE = 60  # seconds after the last Job until the platform counts as idle
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
EDITED, BEFORE, AFTER = "app/api/fastapi_app.py", 'title="Model API"', 'title="Model API, edited"'


def measure(add: Callable[[str, str, str], None], folder: Path, fresh: bool) -> None:
    """Measure the platform of `make up`, and write the figures to bench/results/platform.json.

    fresh: take the cluster, its images and programs down first and measure how they come up: what is stored in the
    cluster is gone, and it takes minutes.

    Raises:
        SystemExit: there is no platform to be measured, or a command fails.
    """
    figures: list[dict[str, str]] = []

    def tell(what: str, figure: str, goal: str) -> None:
        figures.append({"what": what, "measured": figure, "goal": goal})
        add(what, figure, goal)

    if fresh:
        run(["make", "down", "ALL=1"])
        first = up()
        tell("make up on a fresh machine, to the prediction", f"{first.seconds:.0f} s", "480 s")
        tell("of it, helm to everything ready", f"{first.steps['helm']} s", "")
    elif subprocess.run([*HELM, "status", "mlops"], capture_output=True, check=False).returncode:
        raise SystemExit(
            "there is no platform to be measured: `make up` first, or `make bench ARGS='--platform --fresh'`"
        )
    tell("make up again, to the prediction", f"{up().seconds:.0f} s", "15 s")
    changed, image = change()
    tell("a changed line of a flow, make up to it running", f"{changed:.0f} s", "30 s")
    tell("of it, the changed image built and on the node", f"{image} s", "5 s")
    total = sum(own for *_, own in build.own_bytes(build.names()))
    tell("all images, each layer once", f"{total / 1e9:.2f} GB", "1.6 GB")
    tell("whole platform idle, memory", f"{idle() / 2**30:.2f} GiB", "2.5 GiB")
    tell("skaffold dev, edit to served", f"{edit(folder):.1f} s", "10 s")
    up()  # as it was
    load = f"{os.getloadavg()[2]:.1f} in the last quarter of an hour, the bench included"
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"cores": os.cpu_count(), "load": load, "figures": figures}, indent=2) + "\n")


@dataclass(frozen=True)
class Up:
    """One run of `make up`: seconds to the prediction, and those of its steps."""

    seconds: float
    steps: dict[str, int]


def up() -> Up:
    """Run `make up`. Raises SystemExit with the end of its output when it fails."""
    begun = time.monotonic()
    seconds, steps, printed = 0.0, {}, []
    # ARGS of `make bench` would be those of this make, too
    with subprocess.Popen(
        ["make", "up", "ARGS="], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            printed.append(line)
            if step := STEP.match(line):
                steps[step[1]] = int(step[2])
            if '"prediction": "setosa"' in line:
                seconds = time.monotonic() - begun
    if process.returncode or not seconds:
        raise SystemExit("make up failed:\n" + "".join(printed[-40:]))
    return Up(seconds, steps)


def change() -> tuple[float, int]:
    """Change a line of a flow, `make up`: seconds until the worker has it, and until its image was on the node."""
    original = FLOW.read_text()
    line = f"# bench {time.time()}"
    begun = time.monotonic()
    try:
        FLOW.write_text(f"{original}{line}\n")
        steps = up().steps
        worker = [*KUBECTL, "exec", "deployment/mlops-prefect-worker", "--", "tail", "-n1", "/srv/flows/train.py"]
        # not run(): the pod of before may be going just then
        wait(
            lambda: line in subprocess.run(worker, capture_output=True, text=True, check=False).stdout,
            "the changed line in the worker",
            60,
        )
        seconds = time.monotonic() - begun
    finally:
        FLOW.write_text(original)
    image = f"mlops/flows:{build.version()}"
    return seconds, sum(steps.get(f"{step} {image}", 0) for step in ("image", "push", "pull"))


def idle() -> float:
    """Bytes that all pods use, as the kubelet counts them, a minute after the first training's end."""
    wait(lambda: not [job for job in items("jobs") if job["status"].get("active")], "the first training's end", 300)
    time.sleep(SETTLE)
    lines = run([*KUBECTL, "top", "pods", "--no-headers"]).splitlines()
    sizes = [line.split()[2] for line in lines]
    return sum(float(size[:-2]) * UNITS[size[-2:]] for size in sizes)


def edit(folder: Path) -> float:
    """Seconds from writing a file of the API to the first answer that has the change, with `skaffold dev` running."""
    clone = folder / "skaffold"
    run(["git", "clone", "-q", ".", str(clone)])
    path, text = clone / EDITED, (clone / EDITED).read_text()
    assert BEFORE in text
    with subprocess.Popen(
        ["skaffold", "dev", "--cleanup=false", "--port-forward=off", *_profile()],
        cwd=clone,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as skaffold:
        try:
            assert skaffold.stdout
            printed: list[str] = []
            for line in skaffold.stdout:
                printed.append(line)
                if "Watching for changes" in line:
                    break
            else:
                raise SystemExit("skaffold dev ended:\n" + "".join(printed[-40:]))
            threading.Thread(target=skaffold.stdout.read, daemon=True).start()
            run([*KUBECTL, "rollout", "status", "deployment/mlops-model-api", "--timeout=5m"])
            wait(lambda: title() == "Model API", "the API", 120)
            begun = time.monotonic()
            path.write_text(text.replace(BEFORE, AFTER))
            wait(lambda: title() == "Model API, edited", "the edited file served", 300)
            return time.monotonic() - begun
        finally:
            os.killpg(skaffold.pid, signal.SIGINT)


def _profile() -> list[str]:
    """skaffold's profile without Grafana, where the release that runs has none: its image cannot be had."""
    has_grafana = "mlops-grafana" in run([*KUBECTL, "get", "deployments", "-o", "name"])
    return [] if has_grafana else ["--profile", "without-grafana"]


@cache
def _account() -> tuple[str, str]:
    """The account of the API's docs; asked for once, as title() is what is timed."""
    query = ["get", "secret", "mlops-credentials", "-o", "jsonpath={.data.pages-password}"]
    return "admin", base64.b64decode(run([*KUBECTL, *query])).decode()


def title() -> str:
    """The title in the API's OpenAPI document; "" while it does not answer."""
    answer = httpx.get(f"{INGRESS}/openapi.json", headers=API, auth=_account())
    return str(answer.json()["info"]["title"]) if answer.is_success else ""


def items(kind: str) -> list[dict[str, dict[str, object]]]:
    """The objects of this kind in the platform's namespace."""
    objects: list[dict[str, dict[str, object]]] = json.loads(run([*KUBECTL, "get", kind, "-o", "json"]))["items"]
    return objects


def run(command: list[str]) -> str:
    """What the command prints, run in the repository's root. Raises SystemExit with its message when it fails."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def wait(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until it is true; the server may be away meanwhile. Raises SystemExit when it is not true in time."""

    def is_true() -> bool:
        try:
            return condition()
        except (httpx.HTTPError, ValueError):
            return False

    try:
        wait_until(is_true, seconds, f"{what} did not come", pause=0.2)
    except TimeoutError as error:
        raise SystemExit(str(error)) from error
