"""The schemas of the Prometheus Operator's kinds, from the CRDs that the chart installs."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema
from chart import CHART, Loader, Manifest, title

FOLDER = CHART / "charts" / "monitoring" / "charts" / "operator" / "crds"
GROUP = "monitoring.coreos.com"


class CrdLoader(Loader):
    """In which `=` is a string, as it is in YAML 1.2."""


CrdLoader.add_constructor("tag:yaml.org,2002:value", CrdLoader.construct_yaml_str)


@cache
def crds() -> dict[str, Manifest]:
    """Kind -> CRD."""
    loaded = [CrdLoader(path.read_text()).get_single_data() for path in sorted(FOLDER.glob("*.yaml"))]
    return {crd["spec"]["names"]["kind"]: crd for crd in loaded}


@cache
def _validator(kind: str, version: str) -> jsonschema.Draft202012Validator:
    """Made once a kind: `jsonschema.validate` would check the schema itself for each object, which takes a second."""
    (entry,) = [v for v in crds()[kind]["spec"]["versions"] if v["name"] == version]
    schema = _strict(entry["schema"]["openAPIV3Schema"]["properties"]["spec"])
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def _strict(schema: Any) -> Any:
    """As the API server with fieldValidation=Strict: of the fields that are listed, no others."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict_schema = {key: _strict(value) for key, value in schema.items()}
    if "(?i)" in (pattern := str(schema.get("pattern", ""))):
        strict_schema["pattern"] = "(?i)" + pattern.replace("(?i)", "")  # Python has flags at the start only
    if "properties" in schema and isinstance(schema.get("type"), str):
        strict_schema.setdefault("additionalProperties", False)
    return strict_schema


def invalid(manifest: Manifest) -> str:
    """What the schema of its kind says against an object's spec; "" for nothing. Raises KeyError for others."""
    group, _, version = manifest["apiVersion"].partition("/")
    if group != GROUP:
        raise KeyError(manifest["apiVersion"])
    for error in _validator(manifest["kind"], version).iter_errors(manifest["spec"]):
        return f"{title(manifest)}: {'.'.join(map(str, error.absolute_path))}: {error.message}"
    return ""
