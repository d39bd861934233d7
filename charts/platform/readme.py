"""Writes the chart's README.md: every setting with its default and what it is, from values.yaml and the schemas."""

from __future__ import annotations

import json
import runpy
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent
COMMON = runpy.run_path(str(CHART / "schemas.py"))
HEAD = """# The chart `platform`

Train, register, promote, serve, watch and retrain scikit-learn models. [Kubernetes](../../docs/kubernetes.md) says how
to install it, [from a registry](../../docs/kubernetes.md#from-a-registry), too, and has the settings by what you want
to do; these are all there are, by chart. `make schemas` writes this page.

Every pod takes what `global` has for all of them:
{pods}.
Under a chart's name they are for its pods alone, beside `serviceAccount.create`, `.name` and `.annotations`, and the
timing of `startupProbe`, `readinessProbe` and `livenessProbe` (`periodSeconds`, `failureThreshold` and so on). Maps are
merged, lists put one after the other. `monitoring.prometheus`, `.alertmanager`, `.operator`, `.kubeStateMetrics` and
`prefect-worker.jobs` (the training Jobs) take them, too.

The charts that people reach (`ui`, `model-api`, `mlflow`, `prefect-server`, `grafana`, `monitoring.prometheus`) take
`ingress.enabled`, `.className`, `.annotations`, `.hosts`, `.path`, `.pathType` and `.tls`, and
{service}.
"""
# What other charts learn from a chart being there, and what is said above.
LEFT_OUT = {"shared", "serviceAccount"}


def settings(schema: dict[str, Any], values: Any, place: str = "") -> Iterator[tuple[str, Any, str]]:
    """(name, default, description) of every setting of a schema, in its order."""
    for name, child in schema.get("properties", {}).items():
        description = child.get("description", "")
        if name in LEFT_OUT or "not by you" in description or "not a setting" in description:
            continue
        value = values.get(name) if isinstance(values, dict) else None
        if "properties" in child:
            yield from settings(child, value, f"{place}{name}.")
        elif description:
            yield f"{place}{name}", value, description


def page() -> str:
    """The text of README.md."""
    platform = yaml.safe_load((CHART / "values.yaml").read_text())
    said_above = {*COMMON["POD"], *COMMON["PROBES"], "ingress", "service"}
    head = HEAD.format(pods=_names("", COMMON["POD"]), service=_names("service.", COMMON["SERVICE"]))
    charts = {path.parent.name for path in CHART.glob("charts/*/Chart.yaml")}
    sections = [
        head,
        _section("platform", CHART, platform, {*charts, "global"}),
        _section("global", CHART, {"global": platform["global"]}, set()),
    ]
    for path in sorted(CHART.glob("charts/*/values.yaml")):
        name = path.parent.name
        values = _merged(yaml.safe_load(path.read_text()), platform.get(name) or {})
        sections.append(_section(name, path.parent, values, said_above))
    return "\n".join(sections)


def _names(before: str, settings: dict[str, Any]) -> str:
    return "\n".join(textwrap.wrap(", ".join(f"`{before}{name}`" for name in settings), 120))


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {key: _merged(one[key], other[key]) for key in one if isinstance(other.get(key), dict)}
    return {**one, **other, **both}


def _section(name: str, folder: Path, values: dict[str, Any], left_out: set[str]) -> str:
    schema = json.loads((folder / "values.schema.json").read_text())
    prefix = f"{name}."
    if name == "global":
        schema = schema["properties"]["global"]
        values = values["global"]
    elif name == "platform":
        prefix = ""
        schema["properties"] = {key: of for key, of in schema["properties"].items() if key not in left_out}
    else:
        schema["properties"].pop("global")
    rows = [
        f"| `{prefix}{key}` | {_cell(default)} | {description.replace('|', ' or ')} |"
        for key, default, description in settings(schema, values)
        if not left_out & set(key.split(".")) or default
    ]
    return "\n".join([f"## {name}\n", "| setting | default | what |", "|---|---|---|", *rows, ""])


def _cell(default: Any) -> str:
    if default in (None, "", [], {}):
        return ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def main() -> None:
    """Write it."""
    (CHART / "README.md").write_text(page())


if __name__ == "__main__":
    main()
