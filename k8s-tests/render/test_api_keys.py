"""Keys of the model API: what asks for them, who has which, and that no manifest has one."""

from __future__ import annotations

from typing import Any

import pytest
from chart import Manifest, containers, named, notes, pods, render_chart

from app.runtime.api_keys import BUILT_IN

CLIENTS = "/clients"


def api(required: list[str] | None = None) -> Manifest:
    """The API's pod, with this model-api.keys.required."""
    values: dict[str, Any] = {} if required is None else {"model-api": {"keys": {"required": required}}}
    pod: Manifest = named(render_chart(values), "Deployment", "mlops-model-api")["spec"]["template"]
    return pod


def environment(pod: Manifest) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize(
    ("required", "asked"), [(None, "feedback"), (["predict", "feedback"], "predict,feedback"), (["predict"], "predict")]
)
def test_the_api_asks_for_what_the_setting_says_and_has_the_clients_as_files(
    required: list[str] | None, asked: str
) -> None:
    pod = api(required)
    assert environment(pod)["MLOPS_API_KEYS_REQUIRED"] == asked
    assert environment(pod)["MLOPS_API_KEYS_DIR"] == CLIENTS
    (mount,) = [m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["mountPath"] == CLIENTS]
    assert mount["readOnly"] is True
    (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == mount["name"]]
    of_people, of_platform = (source["secret"] for source in volume["projected"]["sources"])
    assert of_people == {"name": "mlops-api-keys", "optional": True}
    files = {item["path"]: item["key"] for item in of_platform["items"]}
    assert files == {name: f"api-client-{name}" for name in BUILT_IN}, "hashes, and no key itself"


def test_where_nothing_needs_a_key_there_is_nothing_of_it() -> None:
    pod = api([])
    assert not [name for name in environment(pod) if "KEYS" in name]
    assert "clients" not in [volume["name"] for volume in pod["spec"]["volumes"]]


def test_who_has_which_key() -> None:
    """The pages everything, as people use them; what runs `mlops drift` and `helm test` no more than it does."""
    keys = {
        name: entry["valueFrom"]["secretKeyRef"]["key"]
        for name, pod in pods(render_chart()).items()
        for container in containers(pod)
        for entry in container.get("env", [])
        if entry["name"] == "MLOPS_API_KEY"
    }
    assert keys == {
        "Deployment/mlops-ui": "api-key",
        "Deployment/mlops-prefect-worker": "worker-api-key",
        "Pod/mlops-loop": "worker-api-key",
    }


def test_the_notes_tell_how_to_get_a_key() -> None:
    text = notes()
    assert "\n  curl 'http://api.localhost:8080/predict?" in text
    assert "asks for a key for: feedback." in text
    assert "\n  mlops keys create CLIENT --scopes predict,feedback --namespace mlops --name mlops-api-keys\n" in text
    text = notes({"model-api": {"keys": {"required": ["predict", "feedback"]}}})
    assert "{.data.api-key}" in text
    assert '\n  curl -H "Authorization: Bearer $key" \'http://api.localhost:8080/predict?' in text
    assert "keys create" not in notes({"model-api": {"keys": {"required": []}}})
