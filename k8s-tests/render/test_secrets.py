"""Passwords and keys are in the Secret, and nowhere else."""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
from chart import Manifest, named, notes, pods, render_chart, rendered_text, title
from profiles import PROFILES
from secrets_in_clear import in_config, in_pod


def generated(manifests: list[Manifest]) -> list[Manifest]:
    """The Secret of passwords and keys; that of Prometheus' configuration has none."""
    return [m for m in manifests if m["kind"] == "Secret" and m["metadata"]["name"] != "mlops-prometheus"]


def test_no_generated_value_is_printed_a_second_time(profile: str, manifests: list[Manifest]) -> None:
    text = rendered_text(PROFILES[profile])
    for secret in generated(manifests):
        assert not secret.get("stringData"), f"{title(secret)}: stringData"
        for key, encoded in secret["data"].items():
            value = base64.b64decode(encoded, validate=True).decode()
            if key.endswith("-username"):
                continue
            times = 2 if key == "prefect-password" else 1  # it is in prefect-auth-string, too
            assert text.count(encoded) == times, f"{key} is elsewhere, too"
            for part in {value, value.removeprefix("admin:")}:
                assert part not in text, f"{key} is in clear"


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


def test_the_generated_values_are_long_random_and_kept() -> None:
    secret = named(render_chart(), "Secret", "mlops-credentials")
    values = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    # what Prometheus wants apart
    assert (values.pop("mlflow-admin-username"), values.pop("prefect-username")) == ("admin", "admin")
    assert f"admin:{values.pop('prefect-password')}" == values["prefect-auth-string"]
    assert re.fullmatch(r"admin:\$2a\$10\$[./\w]{53}", values.pop("pages-users"))  # a bcrypt hash
    assert len(set(values.values())) == len(values)
    for key, value in values.items():
        assert len(value.removeprefix("admin:")) == 32, key
        assert value.removeprefix("admin:").isalnum(), f"{key} is quoted nowhere, in a database's address neither"
    assert values["prefect-auth-string"].startswith("admin:")


def test_a_secret_of_yours_takes_the_place_of_the_generated_one() -> None:
    manifests = render_chart({"global": {"existingSecret": "ours"}})
    assert not generated(manifests)
    assert "mlops-credentials" not in rendered_text({"global": {"existingSecret": "ours"}})


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
