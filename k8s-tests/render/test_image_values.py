"""Where images come from, by which tag and digest, and what an upgrade with another one restarts."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml
from chart import Manifest, containers, job_template, named, pods, render_chart

from images import chart, push

OURS = {"mlops/api", "mlops/flows", "mlops/mlflow", "mlops/prefect", "mlops/retrainer", "mlops/ui"}
ON = {"postgres": {"enabled": True}, "global": {"existingSecret": "ours"}}  # every image, and no passwords made anew
DIGEST = "sha256:" + "0a" * 32


def references(manifests: list[Manifest]) -> set[str]:
    """All image references, those that the operator starts included."""
    of_pods = {container["image"] for pod in pods(manifests).values() for container in containers(pod)}
    operated = {m["spec"]["image"] for m in manifests if m["kind"] in ("Prometheus", "Alertmanager")}
    (operator,) = named(manifests, "Deployment", "mlops-operator")["spec"]["template"]["spec"]["containers"]
    reloader = next(word for word in operator["args"] if word.startswith("--prometheus-config-reloader="))
    return of_pods | operated | {reloader.partition("=")[2]}


def with_global(**settings: Any) -> dict[str, Any]:
    return ON | {"global": ON["global"] | settings}


def repositories(found: set[str], registry: str) -> set[str]:
    """Those that are in a registry, without it and the tag."""
    inside = {reference.removeprefix(f"{registry}/") for reference in found if reference.startswith(f"{registry}/")}
    return {reference.partition(":")[0] for reference in inside}


THEIRS = {image.repository: image.registry for image in chart.images().values() if image.registry}


def test_by_default_ours_are_by_name_and_the_others_upstream() -> None:
    found = {reference.rpartition(":")[0] for reference in references(render_chart(ON))}
    assert found == OURS | {f"{registry}/{repository}" for repository, registry in THEIRS.items()}


@pytest.mark.parametrize("registry", ["registry.example.com/team/", "registry.example.com:5000"])
def test_the_registry_is_for_our_images(registry: str) -> None:
    found = references(render_chart(with_global(imageRegistry=registry)))
    assert repositories(found, registry.rstrip("/")) == OURS
    assert "quay.io/prometheus/prometheus" in {reference.rpartition(":")[0] for reference in found}
    assert len(found) == len(OURS) + len(THEIRS)


def test_the_mirror_is_for_the_others_by_path_alone() -> None:
    mirror = "registry.example.com/mirror"
    found = references(render_chart(with_global(mirrorRegistry=f"{mirror}/")))
    assert repositories(found, mirror) == set(THEIRS)
    assert "registry.example.com/mirror/prometheus/prometheus:v3.16.0" in found
    assert not [reference for reference in found if "quay.io" in reference or "docker.io" in reference]


def test_both_leave_nothing_elsewhere() -> None:
    found = references(render_chart(with_global(mirrorRegistry="a.example.com/m", imageRegistry="b.example.com/t")))
    assert repositories(found, "a.example.com/m") == set(THEIRS)
    assert repositories(found, "b.example.com/t") == OURS


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "own.example.com/x/mlops/ui"),
        ({"imageRegistry": "registry.example.com/team"}, "own.example.com/x/mlops/ui"),
        ({"mirrorRegistry": "mirror.example.com"}, "mirror.example.com/mlops/ui"),
    ],
)
def test_a_registry_of_its_own_goes_before_ours_and_the_mirror_before_it(
    settings: dict[str, str], expected: str
) -> None:
    found = references(render_chart(with_global(**settings) | {"ui": {"image": {"registry": "own.example.com/x"}}}))
    assert expected in {reference.rpartition(":")[0] for reference in found}


def settings_of(**entry: str) -> dict[str, Any]:
    """Values that set this in every image of the chart."""
    values: dict[str, Any] = copy.deepcopy(ON)
    for *above, last in chart.images():
        inner = values
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = {key: value for key, value in entry.items() if (key, last) != ("pullPolicy", "reloader")}
    return values


def test_a_digest_is_rendered_after_the_tag_of_every_image() -> None:
    found = references(render_chart(settings_of(digest=DIGEST)))
    assert len(found) == len(OURS) + len(THEIRS)
    for reference in found:
        assert re.fullmatch(rf"[a-z][a-z0-9/.-]*:v?[\d.]+@{DIGEST}", reference), reference
    job = job_template(render_chart(settings_of(digest=DIGEST)))
    env = job["spec"]["template"]["spec"]["containers"][0]["env"]
    (image,) = [variable["value"] for variable in env if variable["name"] == "MLOPS_IMAGE"]
    assert image.endswith(f"@{DIGEST}")


def test_the_pull_policy_is_that_of_every_container() -> None:
    manifests = render_chart(settings_of(pullPolicy="Always") | {"global": ON["global"] | {"devSync": True}})
    for name, pod in pods(manifests).items():
        for container in containers(pod):
            assert container["imagePullPolicy"] == "Always", f"{name}: {container['name']}"
    for kind in ("Prometheus", "Alertmanager"):
        assert named(manifests, kind, "mlops")["spec"]["imagePullPolicy"] == "Always"
        assert named(render_chart(), kind, "mlops")["spec"]["imagePullPolicy"] == "IfNotPresent"


def pushed(tags: dict[str, str], mirror: bool) -> dict[str, Any]:
    """The values of `make push`, with other tags for some images of ours."""
    chosen = [
        push.Part(part.place, part.source, part.repository, tags.get(part.name, part.tag), part.name)
        for part in push.parts(mirror=mirror)
    ]
    to = "registry.example.com/team"
    values: dict[str, Any] = yaml.safe_load(
        push.values(to, chosen, {part.target(to): DIGEST for part in chosen}, mirror)
    )
    values["global"] |= ON["global"]
    return values | {"postgres": values.get("postgres", {}) | ON["postgres"]}


@pytest.mark.parametrize("mirror", [False, True])
def test_the_values_of_make_push_are_taken(mirror: bool) -> None:
    found = references(render_chart(pushed({}, mirror)))
    expected = OURS | (set(THEIRS) if mirror else set())
    assert repositories(found, "registry.example.com/team") == expected
    for reference in found:
        assert reference.endswith(f"@{DIGEST}") == (mirror or "/mlops/" in reference), reference
        assert "/mlops/" not in reference or re.search(r":[\d.]+-[0-9a-f]{12}@", reference), reference


@pytest.mark.parametrize(
    ("image", "restarted"),
    [
        ("flows", {"Deployment/mlops-prefect-worker"}),  # as after a new model
        ("retrainer", {"Deployment/mlops-retrainer"}),
        ("prefect", {"Deployment/mlops-prefect-server"}),
        ("api", {"Deployment/mlops-model-api"}),
        ("mlflow", {"Deployment/mlops-mlflow"}),
        ("ui", {"Deployment/mlops-ui"}),
    ],
)
def test_another_image_restarts_what_has_it_and_nothing_else(image: str, restarted: set[str]) -> None:
    before, after = (pods(render_chart(pushed(tags, False))) for tags in ({}, {image: "0.1.0-123456789abc"}))
    changed = {name for name in before if json.dumps(before[name]) != json.dumps(after[name])}
    assert changed - {"training Job", "Pod/mlops-loop"} == restarted
