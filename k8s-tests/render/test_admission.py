"""The policy about what the worker may make; what it refuses is tested by a real API server, in k8s-tests/live."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from chart import CHART, KUBERNETES, Loader, Manifest, containers, helm, job_template, render_chart
from profiles import PROFILES

KINDS = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def both(manifests: list[Manifest]) -> list[Manifest]:
    return [m for m in manifests if m["kind"] in KINDS]


def test_it_is_about_the_workers_account_in_the_namespace_alone() -> None:
    policy, binding = both(render_chart())
    (condition,) = policy["spec"]["matchConditions"]
    assert condition["expression"] == 'request.userInfo.username == "system:serviceaccount:mlops:mlops-prefect-worker"'
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"]
    assert binding["spec"]["matchResources"] == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "mlops"}}
    }


def test_another_account_of_the_worker_is_meant() -> None:
    policy, _ = both(render_chart({"prefect-worker": {"serviceAccount": {"create": False, "name": "ours"}}}))
    assert '"system:serviceaccount:mlops:ours"' in policy["spec"]["matchConditions"][0]["expression"]


@pytest.mark.parametrize(
    "values", [{"global": {"clusterScoped": False}}, {"prefect-worker": {"admissionPolicy": {"enabled": False}}}]
)
def test_there_is_none_where_it_is_not_wanted_or_cannot_be(values: dict[str, Any]) -> None:
    assert both(render_chart(values)) == []


def test_no_two_releases_of_any_namespaces_have_one_name() -> None:
    """Namespaces have no dots, and no two of these pairs are told apart by a hyphen."""
    names = set()
    pairs = [("a", "b-c"), ("a-b", "c"), ("a", "b"), ("a-prefect-worker", "b")]
    for namespace, release in pairs:
        done = helm(
            *("template", release, str(CHART), "--namespace", namespace, "--kube-version", KUBERNETES),
            "--show-only=charts/prefect-worker/templates/validatingadmissionpolicy.yaml",
        )
        assert done.returncode == 0, done.stderr
        names |= {m["metadata"]["name"] for m in yaml.load_all(done.stdout, Loader) if m}
    assert len(names) == len(pairs)


def test_secrets_and_images_are_those_of_the_jobs_template(profile: str) -> None:
    manifests = render_chart(PROFILES[profile])
    policy, _ = both(manifests)
    job = job_template(manifests)["spec"]["template"]
    expressions = {v["name"]: v["expression"] for v in policy["spec"]["variables"]}
    refs = [
        entry["valueFrom"]["secretKeyRef"]
        for container in containers(job)
        for entry in container.get("env", [])
        if "secretKeyRef" in entry.get("valueFrom", {})
    ]
    keys = {f"{ref['name']}/{ref['key']}" for ref in refs}
    # the template is of trainings; promotions have the gate's password in place of theirs
    assert listed(expressions["keys"]) == keys | {key.replace("mlflow-trainer", "mlflow-gate") for key in keys}
    assert listed(expressions["images"]) == {container["image"] for container in containers(job)}
    sources = {e["secretRef"]["name"] for c in containers(job) for e in c.get("envFrom", []) if "secretRef" in e}
    assert listed(expressions["sources"]) == sources


def listed(expression: str) -> set[str]:
    """The strings of the list that an expression asks for membership."""
    match = re.search(r" in (\[.*?\])", expression)
    assert match, expression
    return set(json.loads(match[1]))


def test_every_refusal_says_where_and_what_to_do() -> None:
    for validation in both(render_chart())[0]["spec"]["validations"]:
        said = validation.get("message") or validation["messageExpression"].strip('"')
        assert said.startswith(("spec.", "metadata.")), said
        assert re.search(r"; (leave|set|add) ", said), said
        assert said.endswith("."), said
