"""The values schemas against the values: closed, complete, explained, and short."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, refusals

FOLDERS = [CHART, *sorted(path.parent for path in CHART.glob("charts/*/values.yaml"))]
SUBCHARTS = [folder.name for folder in FOLDERS[1:]]
# What writes the settings that charts have in common: they have no default in values.yaml but `global`'s.
COMMON = runpy.run_path(str(CHART / "schemas.py"))
# Maps of people's own keys, and what is Kubernetes' own.
OPEN = {*COMMON["POD"], "annotations", "labels", "config", "commonLabels", "commonAnnotations"}
# What the other charts learn from one being on, and no settings.
INTERNAL = ("/shared", "/operator/shared", "/lib", "/global/alone")
CHARTS = ("postgres", "monitoring", "serviceMonitors", "grafana", "traefik", "retrainer")
GIVEN = ("fullnameOverride", "nameOverride", "commonLabels", "commonAnnotations")
HANDED_DOWN = (*GIVEN, "addresses", "claims", "artifacts")
SHARED = {f"/global/{name}" for name in (*CHARTS, *HANDED_DOWN)}
# Their defaults are in the umbrella's values.yaml, as that is what reads them.
OF_UMBRELLA = {"traefik": {"/enabled"}, "grafana": {"/enabled", "/dashboardLabel"}}


def schema(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "values.schema.json").read_text())
    return loaded


def values(folder: Path) -> dict[str, Any]:
    """values.yaml; of the umbrella without what is the subcharts'."""
    loaded: dict[str, Any] = yaml.safe_load((folder / "values.yaml").read_text())
    return {key: value for key, value in loaded.items() if folder != CHART or key not in SUBCHARTS}


def properties(of: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, schema) of every property at any depth, but for those that another chart's schema describes."""
    for name, child in of.get("properties", {}).items():
        if not child or child.get("description", "").startswith("Settings of all charts: "):
            continue
        yield f"{path}/{name}", child
        yield from properties(child, f"{path}/{name}")


def settings(of: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every setting of a values.yaml; maps of people's own keys are one setting."""
    for name, value in of.items():
        if f"{path}/{name}" in INTERNAL:
            continue
        if isinstance(value, dict) and value:
            yield from settings(value, f"{path}/{name}")
        else:
            yield f"{path}/{name}", value


charts = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@charts
def test_every_object_of_a_schema_is_closed(folder: Path) -> None:
    for path, child in [("", schema(folder)), *properties(schema(folder))]:
        if child.get("type") == "object" and path.rpartition("/")[2] not in {*OPEN, *SUBCHARTS, "lib", "shared"}:
            assert child.get("additionalProperties") is False, f"{folder.name}: {path or 'the schema'} is open"


@charts
def test_every_property_is_explained(folder: Path) -> None:
    for path, child in properties(schema(folder)):
        assert child.get("description"), f"{folder.name}: {path} has no description"


def common(folder: Path, path: str) -> bool:
    """Whether a chart's setting is one that many charts take: its default is `global`'s, or nothing."""
    *_, section, name = path.split("/")
    lists = {**COMMON, "POD": {} if folder == CHART else COMMON["POD"]}
    return (
        name in lists["POD"]
        or section in ("serviceAccount", "ingress", *COMMON["PROBES"])
        or (section == "service" and folder != CHART)
        or (section == "persistence" and name in lists["PERSISTENCE"])
    )


@charts
def test_schema_and_values_have_the_same_settings(folder: Path) -> None:
    in_schema = {
        path
        for path, child in properties(schema(folder))
        if "properties" not in child
        and not (folder == CHART and path.split("/")[1] in {*SUBCHARTS, "lib"})
        and path not in {*SHARED, "/global"}
        and not path.startswith(INTERNAL)
    }
    in_values = {path for path, _ in settings(values(folder))}
    assert not in_values - in_schema, f"{folder.name}/values.yaml has settings that its schema does not know"
    without = {path for path in in_schema - in_values if not (path.endswith("/limits/cpu") or common(folder, path))}
    umbrellas = OF_UMBRELLA.get(folder.name, set())
    above = yaml.safe_load((CHART / "values.yaml").read_text()).get(folder.name) or {}
    assert umbrellas <= without & {path for path, _ in settings(above)}, f"{folder.name}: defaults of {umbrellas}"
    without -= umbrellas
    assert not without, f"{folder.name}/values.schema.json has settings without a default"


@charts
def test_what_charts_have_in_common_is_described_once(folder: Path) -> None:
    path = folder / "values.schema.json"
    assert COMMON["schemas"]()[path] == json.loads(path.read_text()), "run: make schemas"


def wrong(value: Any) -> Any:
    """A value of another type."""
    return ["no"] if isinstance(value, (str, dict)) else "no"


def nested(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.strip("/").split("/")):
        value = {part: value}
    return dict(value)


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        **one,
        **{
            k: merged(one[k], v) if isinstance(v, dict) and isinstance(one.get(k), dict) else v
            for k, v in other.items()
        },
    }


def given(folder: Path, paths: dict[str, Any]) -> dict[str, Any]:
    """The values that set each path of a chart. Charts that are off are switched on: others are not validated."""
    tree: dict[str, Any] = {}
    for path, value in paths.items():
        tree = merged(tree, nested(path if folder == CHART else f"/{folder.name}{path}", value))
    is_off = folder.name in ("postgres", "backup") and "/enabled" not in paths
    return merged(tree, {folder.name: {"enabled": True}} if is_off else {})


@charts
def test_every_setting_has_a_type(folder: Path) -> None:
    """One wrong value for each setting of values.yaml: the schema names every one of them."""
    paths = {path: wrong(value) for path, value in settings(values(folder)) if path != "/enabled"}
    named = " ".join(refusals(given(folder, paths))[folder.name])
    for path in paths:
        assert f"at '{path}'" in named, f"{folder.name}: {path} takes {paths[path]!r}"


@charts
def test_an_unknown_key_is_refused_in_every_section(folder: Path) -> None:
    sections = {path.rpartition("/")[0] for path, _ in settings(values(folder))} - ({""} if folder == CHART else set())
    messages = refusals(given(folder, {f"{section}/unheard-of": 1 for section in sections}))[folder.name]
    for section in sections:
        assert f"- at '{section}': additional properties 'unheard-of' not allowed" in messages, (
            f"{folder.name}: {section}"
        )


def test_the_readme_has_every_setting_as_it_is() -> None:
    page = runpy.run_path(str(CHART / "readme.py"))["page"]()
    assert (CHART / "README.md").read_text() == page, "run: make schemas"
    for setting in (
        "global.ingress.domain",
        "mlflow.persistence.size",
        "monitoring.operator.image.tag",
        "retrainer.cooldown",
    ):
        assert f"| `{setting}` | `" in page, f"{setting} and its default"
