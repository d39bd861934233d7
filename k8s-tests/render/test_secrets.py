"""Passwords and keys are in the Secret, and nowhere else."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from chart import ROOT, Manifest, named, notes, pods, render_chart, rendered_text, title
from secrets_in_clear import in_config, in_pod

HOOKS = [
    f"templates/credentials/{name}.yaml" for name in ("networkpolicy", "serviceaccount", "role", "rolebinding", "job")
]


def test_no_manifest_is_a_secret_of_ours(profile: str, manifests: list[Manifest]) -> None:
    """That of Prometheus' configuration has no passwords."""
    assert {title(m) for m in manifests if m["kind"] == "Secret"} <= {"Secret/mlops-prometheus"}


def test_variables_and_commands_carry_no_secret(manifests: list[Manifest]) -> None:
    problems_by_pod = {name: list(in_pod(pod)) for name, pod in pods(manifests).items()}
    assert not {name: problems for name, problems in problems_by_pod.items() if problems}


def test_configurations_carry_no_secret(manifests: list[Manifest]) -> None:
    problems_by_config_map = {title(m): list(in_config(m)) for m in manifests if m["kind"] == "ConfigMap"}
    assert problems_by_config_map
    assert not {name: problems for name, problems in problems_by_config_map.items() if problems}


def test_notes_tell_how_to_read_the_passwords_and_not_the_passwords() -> None:
    text = notes()
    assert "base64 -d" in text
    assert "admin:<password>" in text
    assert not [word for word in text.split() if len(word) >= 32 and word.isalnum()]


def test_the_job_that_makes_the_secret_comes_first_and_leaves_nothing_behind() -> None:
    made = render_chart(show_only=HOOKS)
    assert {m["kind"] for m in made} == {"Job", "NetworkPolicy", "Role", "RoleBinding", "ServiceAccount"}
    hook = {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    }
    for manifest in made:
        weight = "0" if manifest["kind"] == "Job" else "-1"
        assert manifest["metadata"]["annotations"] == {**hook, "helm.sh/hook-weight": weight}, title(manifest)
    job = named(made, "Job", "mlops-credentials")["spec"]
    assert job["ttlSecondsAfterFinished"] <= 600, "`kubectl apply` of another template needs the old Job gone"
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["serviceAccountName"] == "mlops-credentials"


def test_the_job_runs_a_command_that_there_is() -> None:
    job = named(render_chart(show_only=HOOKS), "Job", "mlops-credentials")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    python, *words = [*container["command"], *container["args"]]
    done = subprocess.run(
        [sys.executable, *words, "--context=none"],
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG": "/none"},
        capture_output=True,
        text=True,
    )
    assert python == "python"
    assert done.returncode == 1, "it has read its options, and finds no Kubernetes"
    assert "Which Kubernetes is meant cannot be read" in done.stderr


def test_the_job_has_image_and_nodes_of_the_worker() -> None:
    worker = {
        "image": {"tag": "1.2.3"},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "ml", "operator": "Exists"}],
    }
    values = {
        "global": {"imageRegistry": "registry.example.com", "imagePullSecrets": ["pull"]},
        "prefect-worker": worker,
    }
    pod = named(render_chart(values), "Job", "mlops-credentials")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry.example.com/mlops/flows:1.2.3"
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert (pod["nodeSelector"], pod["tolerations"]) == (worker["nodeSelector"], worker["tolerations"])


def test_a_secret_of_yours_leaves_the_job_out() -> None:
    text = rendered_text({"global": {"existingSecret": "ours"}})
    assert "mlops-credentials" not in text
    assert "pre-install" not in text


def _env(entry: dict[str, Any]) -> Callable[[Manifest], None]:
    return lambda pod: pod["spec"]["containers"][0].setdefault("env", []).append(entry)


def _words(field: str, *words: str) -> Callable[[Manifest], None]:
    return lambda pod: pod["spec"]["containers"][0].setdefault(field, []).extend(words)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (_env({"name": "MLFLOW_TRACKING_PASSWORD", "value": "hunter2"}), "env[MLFLOW_TRACKING_PASSWORD]"),
        (_env({"name": "FEEDBACK_KEY", "value": ""}), "env[FEEDBACK_KEY]"),
        (
            _env({"name": "API_TOKEN", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}),
            "env[API_TOKEN]",
        ),
        (_env({"name": "DATABASE", "value": "postgresql://mlops:hunter2@db/mlflow"}), "env[DATABASE]"),
        (_env({"name": "OPTIONS", "value": "--user=a --password=hunter2"}), "env[OPTIONS]"),
        (_words("args", "--backend=postgresql://mlops:hunter2@db:5432/mlflow"), ".args"),
        (_words("args", "--password", "hunter2"), ".args"),
        (_words("command", "sh", "-c", "export AUTH_STRING=admin:hunter2"), ".command"),
    ],
)
def test_a_secret_in_clear_is_seen(change: Callable[[Manifest], None], place: str) -> None:
    for name, original in pods(render_chart()).items():
        pod = copy.deepcopy(original)
        change(pod)
        (problem,) = in_pod(pod)
        assert place in problem, name


def test_a_secret_in_a_configuration_is_seen() -> None:
    assert list(in_config({"data": {"auth.ini": "[mlflow]\nadmin_password = hunter2\n"}}))
    assert list(in_config({"data": {"init.sql": "CREATE USER mlops WITH PASSWORD 'hunter2';"}}))
    assert list(in_config({"data": {"routes.yaml": "url: http://admin:hunter2@mlops-mlflow:5000"}}))
