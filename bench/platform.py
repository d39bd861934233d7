"""The platform on the kind cluster, for `make bench ARGS=--platform`: install, idle memory, skaffold dev."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from app.runtime.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "mlops"
KUBECTL = ["kubectl", "--context", "kind-mlops", "--namespace", NAMESPACE]
HELM = ["helm", "--kube-context", "kind-mlops", "--namespace", NAMESPACE]
INGRESS = "http://127.0.0.1:8080"
API = {"Host": "api.localhost:8080"}  # Python's resolver does not know *.localhost
ROW = "sepal_length=5.1&sepal_width=3.5&petal_length=1.4&petal_width=0.2"
SETTLE = 60  # seconds after the last Job until the platform counts as idle
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
EDITED, BEFORE, AFTER = "app/api/main.py", 'title="Model API"', 'title="Model API, edited"'


def measure(add: Callable[[str, str, str], None], folder: Path) -> None:
    """Install the platform and measure it. The images must be on the nodes: `make cluster images`.

    Raises:
        SystemExit: there is no cluster, or the platform is installed already: the measurement would end its data.
    """
    if subprocess.run([*KUBECTL, "get", "namespace", NAMESPACE], capture_output=True, check=False).returncode == 0:
        raise SystemExit(
            f"the namespace {NAMESPACE} is there; the bench installs anew. To delete it and all of its data:\n"
            f"  kubectl --context kind-mlops delete namespace {NAMESPACE}"
        )
    add("helm install to first prediction", f"{install():.0f} s", "240 s")
    add("whole platform idle, memory", f"{idle() / 2**30:.2f} GiB", "2.5 GiB")
    add("skaffold dev, edit to served", f"{edit(folder):.1f} s", "10 s")


def install() -> float:
    """Seconds from `helm install` to the first prediction."""
    begun = time.monotonic()
    # Grafana's image is not everywhere, and no prediction waits for it
    run([*HELM, "install", "mlops", "charts/platform", "--create-namespace", "--set=grafana.enabled=false"])
    wait(lambda: prediction() == "setosa", "a prediction", 600)
    return time.monotonic() - begun


def prediction() -> str:
    """What the API answers for one flower; "" while it does not."""
    answer = httpx.get(f"{INGRESS}/predict?{ROW}", headers=API)
    return str(answer.json().get("prediction", "")) if answer.is_success else ""


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
        ["skaffold", "dev", "--cleanup=false", "--port-forward=off"],
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


def title() -> str:
    """The title in the API's OpenAPI document; "" while it does not answer."""
    answer = httpx.get(f"{INGRESS}/openapi.json", headers=API)
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
