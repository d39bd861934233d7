"""What `helm template` makes of charts/platform, without a cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "platform"
RELEASE = NAMESPACE = "mlops"
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")

Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm, of PATH or of .tools/bin."""
    path = f"{os.environ['PATH']}:{ROOT / '.tools' / 'bin'}"
    program = shutil.which("helm", path=path)
    assert program, "there is no helm: `make test` makes one, or run `python -m images.offline tool helm`"
    return subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def template(values: dict[str, Any] | None = None, *options: str) -> subprocess.CompletedProcess[str]:
    """`helm template` with values: a nested dict, as in values.yaml."""
    pairs = [f"--set-json={key}={json.dumps(value)}" for key, value in _flat(values or {})]
    return helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, *pairs, *options)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = prefix + key.replace(".", r"\.")
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def render_chart(values: dict[str, Any] | None = None, *options: str) -> list[Manifest]:
    """The manifests. Fails with helm's message when there are none."""
    return list(_render(json.dumps(values or {}, sort_keys=True), options))


@cache
def _render(values: str, options: tuple[str, ...]) -> tuple[Manifest, ...]:
    done = template(json.loads(values), *options)
    assert done.returncode == 0, done.stderr
    return tuple(manifest for manifest in yaml.safe_load_all(done.stdout) if manifest)


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one manifest of this kind and name."""
    found = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} manifests are {kind}/{name}"
    return found[0]


def title(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def job_template(manifests: list[Manifest]) -> Manifest:
    """The Job that Prefect makes of a flow run, with its variables at their defaults."""
    config = named(manifests, "ConfigMap", f"{RELEASE}-prefect-worker")
    template = json.loads(config["data"]["base-job-template.json"])
    defaults = {name: field.get("default", "") for name, field in template["variables"]["properties"].items()}
    defaults |= {"name": "example", "labels": {}, "annotations": {}, "command": ["prefect", "flow-run", "execute"]}
    job: Manifest = _filled(template["job_configuration"]["job_manifest"], defaults)
    for field in ("parallelism", "completions"):  # Prefect insists on them in the wrong place, where they mean nothing
        assert job["spec"]["template"]["spec"].pop(field) == 1
    return job


def _filled(value: Any, variables: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    if isinstance(value, str) and "{{" in value:
        for name, content in variables.items():
            placeholder = f"{{{{ {name} }}}}"
            if value == placeholder:
                return content
            value = value.replace(placeholder, str(content))
    return value


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Title -> pod template (metadata and spec) of everything that runs, the training Job included."""
    found = {title(m): m["spec"]["template"] for m in manifests if m["kind"] in WORKLOADS}
    found |= {title(m): m for m in manifests if m["kind"] == "Pod"}
    return found | {"training Job": job_template(manifests)["spec"]["template"]}


def containers(pod: Manifest, init: bool = True) -> list[Manifest]:
    spec = pod["spec"]
    return [*(spec.get("initContainers", []) if init else []), *spec["containers"]]
