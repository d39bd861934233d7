"""The platform on the kind cluster, for `make up`: its images, the chart, and a prediction from it."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterable
from functools import partial

from images import build
from images.build import ROOT
from images.offline.steps import Failure, Log, Steps

INSTALL = ["helm", "upgrade", "--install", "mlops", "charts/platform", "--namespace", "mlops"]
NAMESPACE = ["apply", "--server-side", "--force-conflicts", "--filename", "images/namespace.yaml"]
PATH = "/predict?sepal_length=5.1&sepal_width=3.5&petal_length=1.4&petal_width=0.2"
SECONDS = 60.0


def add_images(steps: Steps, chosen: list[str], after: Iterable[str]) -> str:
    """Steps for images of the platform, from the build to the nodes; `after` is for the first. The last one's name."""
    build.add_builds(steps, chosen, after=after)
    pushes = build.add_pushes(steps, chosen, after=["registry"])
    replaced: list[str] = []
    pulls = build.add_pulls(steps, pushes, ["registry for the nodes"], replaced)
    steps.add("images in use", lambda _: build.roll(replaced), after=pulls)
    return "images in use"


def add(steps: Steps, context: str, options: list[str], after: Iterable[str]) -> None:
    """Steps for the platform, with these options for helm, in the cluster that is kubectl's context."""
    steps.add("helm", partial(install, context, options), after=after)
    steps.add("prediction", lambda _: predict(), after=["helm"])


def install(context: str, options: list[str], log: Log) -> None:
    """Install or upgrade the chart, wait until everything is ready, and print how to reach it."""
    log.run(["kubectl", "--context", context, *NAMESPACE], cwd=ROOT, retries=2)
    log.run([*INSTALL, "--kube-context", context, "--wait", "--timeout", "10m", *options], cwd=ROOT)
    print(log.path.read_text().partition("NOTES:\n")[2], flush=True)


def ask() -> dict[str, object]:
    """The API's answer. The name goes into the header, as not every resolver knows *.localhost."""
    request = urllib.request.Request(f"http://127.0.0.1:8080{PATH}", headers={"Host": "api.localhost:8080"})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        body: dict[str, object] = json.load(answer)
        return body


def predict() -> None:
    """Ask the API for a prediction, through the ingress, and print it. Raises Failure when it does not answer."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            answer = ask()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise Failure(
                    f"the API does not answer at http://api.localhost:8080{PATH} ({error}): "
                    "`kubectl --context kind-mlops -n mlops get pods` shows what is not ready"
                ) from None
            time.sleep(0.5)
    print(f"\n$ curl 'http://api.localhost:8080{PATH}'\n{json.dumps(answer)}", flush=True)
