"""The clusters of clusters/*.yaml: values that people can start from, rendered as they would render them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, KUBERNETES, OPERATOR, Loader, Manifest, helm, pods, title
from pod_security import violations
from validity import VERSIONS, all_of, invalid

FILES = sorted((Path(__file__).parent / "clusters").glob("*.yaml"))


def rendered(path: Path | None = None) -> list[Manifest]:
    """What `helm template -f` makes of a file, or of none, for a release `mlops` in the namespace `team`."""
    return [manifest for manifest in yaml.load_all(printed(path), Loader) if manifest]


@cache
def printed(path: Path | None) -> str:
    """The same as text."""
    fixed = ("--namespace", "team", "--kube-version", KUBERNETES, "--api-versions", OPERATOR)
    done = helm("template", "mlops", str(CHART), *fixed, *(["--values", str(path)] if path else []))
    assert done.returncode == 0, done.stderr
    return done.stdout


clusters = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def given(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


@clusters
def test_everything_is_valid_and_restricted(path: Path) -> None:
    manifests = rendered(path)
    worker = next(
        m for m in manifests if m["kind"] == "ConfigMap" and m["metadata"]["name"].endswith("-prefect-worker")
    )
    worker["metadata"]["name"] = "mlops-prefect-worker"  # where the helpers look for the Job's template
    assert not [problem for m in all_of(manifests) if (problem := invalid(m, VERSIONS[-1]))]
    for pod_name, pod in pods(manifests).items():
        assert not violations(pod), pod_name


@clusters
def test_what_is_given_is_used(path: Path) -> None:
    """Every string of the file is somewhere in what it makes: a setting without effect would be a lie."""
    text = "\n".join(yaml.safe_dump(manifest, width=10000) for manifest in rendered(path))
    assert not [value for value in strings(given(path)) if value not in text], path.name


def strings(values: Any) -> list[str]:
    """Each string that is rendered as it is."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list):
        return [text for value in values for text in strings(value)]
    return [values] if isinstance(values, str) and not set(values) & set("'\"{}") else []


def test_two_releases_have_no_object_in_common() -> None:
    (path,) = (path for path in FILES if path.stem == "second-release")
    first, second = ({title(manifest) for manifest in rendered(each)} for each in (None, path))
    assert first
    assert second
    assert not first & second


def test_a_namespace_is_enough_where_it_has_to_be() -> None:
    (path,) = (path for path in FILES if path.stem == "namespace-only")
    assert {m["metadata"].get("namespace") for m in rendered(path)} == {"team"}
    assert not [title(m) for m in rendered(path) if "monitoring.coreos.com" in m["apiVersion"]]
