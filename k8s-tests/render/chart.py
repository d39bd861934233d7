"""What `helm template` makes of charts/platform, without a cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from images.offline import tools

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "platform"
PREBUILT = ROOT.parent / "shared" / "bin"
RELEASE = NAMESPACE = "mlops"
KUBERNETES = "1.34.0"  # of `helm template`; without it, a helm that was built by `go install` believes in 1.20
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")

OPERATOR = "monitoring.coreos.com/v1/ServiceMonitor"  # by which a cluster has the Prometheus Operator
# Kinds that the Prometheus Operator makes pods of, their ports, and the fields that such pods get as they are.
OPERATED = {"Prometheus": 9090, "Alertmanager": 9093}
POD_FIELDS = ("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "securityContext")

Manifest = dict[str, Any]


class Loader(yaml.CSafeLoader):
    """YAML in which no key comes twice: of two, one would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As in YAML's own loader; raises ConstructorError where a key comes twice."""
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {', '.join(sorted(twice))}", node.start_mark)
        return super().construct_mapping(node, deep)


@cache
def program() -> str:
    """helm: of PATH if it is new enough, of .tools/bin, or made now, from TOOL_CACHE or by Go."""
    helm = tools.load()["helm"]
    if not helm.on_path() and not helm.built():
        env = {**({"TOOL_CACHE": str(PREBUILT)} if PREBUILT.is_dir() else {}), **os.environ}
        made = subprocess.run([sys.executable, "-B", "-m", "images.offline", "tool", "helm"], cwd=ROOT, env=env)
        assert made.returncode == 0, "no helm, and none could be made: see .tools/logs"
    return helm.on_path() or str(helm.path)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm in the checkout."""
    env = {**os.environ, "GOGC": "off"}  # it ends before it has used much: a fifth less work
    return subprocess.run([program(), *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def template(
    values: dict[str, Any] | None = None, *options: str, release: str = RELEASE
) -> subprocess.CompletedProcess[str]:
    """`helm template` with values: a nested dict, as in values.yaml."""
    fixed = ("--namespace", NAMESPACE, "--kube-version", KUBERNETES, "--api-versions", OPERATOR)
    return helm("template", release, str(CHART), *fixed, *_set(values), *options)


def refusals(values: dict[str, Any], *options: str) -> dict[str, list[str]]:
    """Chart -> messages of its schema about these values. Fails unless the schemas refuse the values."""
    done = template(values, *options)
    assert done.returncode != 0, f"accepted: {json.dumps(values)}"
    assert "don't meet the specifications of the schema(s)" in done.stderr, done.stderr
    messages: dict[str, list[str]] = {}
    for line in done.stderr.splitlines():
        if chart := re.fullmatch(r"([a-z-]+):", line):
            messages[chart[1]] = []
        elif line.strip().startswith("- at '"):
            list(messages.values())[-1].append(line.strip())
    return messages


def notes(values: dict[str, Any] | None = None) -> str:
    """What `helm install` prints for people."""
    done = helm("install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--dry-run=client", *_set(values))
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\nNOTES:\n")[1]


def _set(values: dict[str, Any] | None) -> list[str]:
    return [f"--set-json={key}={json.dumps(value)}" for key, value in _flat(values or {})]


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = prefix + key.replace(".", r"\.")
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def render_chart(
    values: dict[str, Any] | None = None, show_only: Sequence[str] = (), kube_version: str = ""
) -> list[Manifest]:
    """The manifests, of the templates `show_only` where given; shared by all tests, so not to be changed.

    Fails with helm's message when there are none.
    """
    return list(_manifests(*_key(values, show_only, kube_version)))


def rendered_text(values: dict[str, Any] | None = None) -> str:
    """What helm prints, which render_chart(values) is made of."""
    return _text(*_key(values))


def _key(
    values: dict[str, Any] | None, show_only: Sequence[str] = (), kube_version: str = ""
) -> tuple[str, tuple[str, ...]]:
    options = [f"--show-only={path}" for path in show_only]
    return json.dumps(values or {}, sort_keys=True), (
        *options,
        *([f"--kube-version={kube_version}"] if kube_version else []),
    )


@cache
def _text(values: str, options: tuple[str, ...]) -> str:
    done = template(json.loads(values), *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def _manifests(values: str, options: tuple[str, ...]) -> tuple[Manifest, ...]:
    return tuple(manifest for manifest in yaml.load_all(_text(values, options), Loader) if manifest)


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one manifest of this kind and name."""
    matches = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    assert len(matches) == 1, f"{len(matches)} manifests are {kind}/{name}"
    return matches[0]


def title(manifest: Manifest) -> str:
    """Kind and name, such as Deployment/mlops-ui."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def job_template(manifests: list[Manifest]) -> Manifest:
    """The Job that Prefect makes of a flow run, with its variables at their defaults."""
    config = named(manifests, "ConfigMap", f"{RELEASE}-prefect-worker")
    template = json.loads(config["data"]["base-job-template.json"])
    fields = template["variables"]["properties"].items()
    defaults = {name: field["default"] for name, field in fields if "default" in field}
    defaults |= {"name": "example", "labels": {}, "annotations": {}, "command": ["prefect", "flow-run", "execute"]}
    job: Manifest = _filled(template["job_configuration"]["job_manifest"], defaults)
    for field in ("parallelism", "completions"):  # Prefect insists on them in the wrong place, where they mean nothing
        assert job["spec"]["template"]["spec"].pop(field) == 1
    return job


def _filled(value: Any, variables: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        filled = {key: _filled(item, variables) for key, item in value.items()}
        return {key: item for key, item in filled.items() if item is not None}  # as Prefect leaves out what is not set
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    if isinstance(value, str) and "{{" in value:
        for name, content in variables.items():
            placeholder = f"{{{{ {name} }}}}"
            if value == placeholder:
                return content
            value = value.replace(placeholder, str(content))
        return None if re.fullmatch(r"{{ \w+ }}", value) else value
    return value


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Title -> pod template (metadata and spec) of everything that runs, the training Job included."""
    templates = {title(m): m["spec"]["template"] for m in manifests if m["kind"] in WORKLOADS}
    templates |= {title(m): m["spec"]["jobTemplate"]["spec"]["template"] for m in manifests if m["kind"] == "CronJob"}
    templates |= {title(m): m for m in manifests if m["kind"] == "Pod"}
    return templates | {"training Job": job_template(manifests)["spec"]["template"]}


def operated(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Title -> pod of what the Prometheus Operator makes: what the chart says of it, and its port."""
    return {
        title(m): {
            "metadata": {
                "labels": {
                    **m["spec"]["podMetadata"]["labels"],
                    "app.kubernetes.io/instance": m["metadata"]["name"],  # the operator says so
                }
            },
            "spec": {
                **{key: m["spec"][key] for key in POD_FIELDS},
                "containers": [{"name": "web", "ports": [{"containerPort": OPERATED[m["kind"]]}]}],
            },
        }
        for m in manifests
        if m["kind"] in OPERATED
    }


def containers(pod: Manifest, init: bool = True) -> list[Manifest]:
    """The pod's containers, by default with those that run before them."""
    spec = pod["spec"]
    return [*(spec.get("initContainers", []) if init else []), *spec["containers"]]
