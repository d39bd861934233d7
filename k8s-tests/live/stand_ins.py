"""What tests put beside the platform in place of somebody's own: the images of stand-ins/, a Redis and an S3."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from namespace import IMAGE, RESTRICTED, Namespace, wait_for
from release import run

from images import registry
from images.offline import content, tools

FOLDER = Path(__file__).parent / "stand-ins"
PASSWORD = "of-the-stand-ins"  # noqa: S105


def image(name: str) -> str:
    """The image of stand-ins/<name>, which nodes can pull; built where the cluster's registry does not have it.

    A folder with a go.mod has its programs (`tool` there) built beside the Dockerfile first.
    """
    folder = FOLDER / name
    reference = f"stand-ins/{name}:{content.key(content.files(folder))}"
    if registry.manifest(reference) is None:
        with TemporaryDirectory() as copy:
            shutil.copytree(folder, copy, dirs_exist_ok=True)
            if (folder / "go.mod").exists():
                flags = [*tools.FLAGS, "-ldflags=-s -w"]
                run([tools.go_command(), "build", "-C", copy, *flags, "-o", f"{copy}/", "tool"], 1200, tools.ENV)
            run(["docker", "buildx", "build", "--provenance=false", "--load", "-t", reference, copy], 600)
        registry.push(reference)
    return reference


def stand_in(namespace: Namespace, name: str, port: int, env: dict[str, str]) -> str:
    """A pod of an image of stand-ins/, with a folder /data; its address."""
    container = {
        "name": name,
        "image": image(name),
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "256Mi"}},
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
    }
    folders = {
        **{key: container[key] for key in ("resources", "securityContext", "volumeMounts")},
        "name": "folders",
        "image": IMAGE,
        "command": ["mkdir", "-p", "/data/attributes", "/data/buckets/mlflow"],
    }
    spec = {
        "initContainers": [folders],
        "containers": [container],
        "securityContext": {"fsGroup": RESTRICTED["runAsUser"]},
        "volumes": [{"name": "data", "emptyDir": {}}],
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
    }
    namespace.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def is_ready() -> bool:
        return any(c.type == "Ready" and c.status == "True" for c in namespace.status(name).conditions or [])

    wait_for(is_ready, f"{name} ready", 120)
    return str(namespace.status(name).pod_ip)


def secret(namespace: Namespace, name: str, values: dict[str, str]) -> str:
    """Make a Secret; its name."""
    namespace.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values})
    return name
