"""What the schemas of Kubernetes and of the Prometheus Operator say of a manifest."""

from __future__ import annotations

from functools import cache

import custom_resources
import kubernetes_validate
import kubernetes_validate.utils
from chart import Manifest, job_template, title

# It would read a megabyte of schemas for each manifest.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)
VERSIONS = ("1.34", "1.35", "1.36")
# Kinds of others, whose schemas Kubernetes does not have: of these, metadata alone is looked at.
OTHERS = ("gateway.networking.k8s.io/", "route.openshift.io/", "external-secrets.io/")


def invalid(manifest: Manifest, version: str) -> str:
    """A problem of a manifest by the schemas of a Kubernetes version or of the operator's kinds; "" if valid."""
    if manifest["apiVersion"].startswith(custom_resources.GROUP) and (problem := custom_resources.invalid(manifest)):
        return problem
    if manifest["apiVersion"].startswith((custom_resources.GROUP, *OTHERS)):
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{title(manifest)}: {'.'.join(map(str, error.path))}: {error.message}"
    return ""


def all_of(manifests: list[Manifest]) -> list[Manifest]:
    """The manifests, and the Job that Prefect makes."""
    job = job_template(manifests)
    job["metadata"]["name"] = "training"
    return [*manifests, job]
