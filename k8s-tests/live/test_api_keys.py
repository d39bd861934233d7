"""Keys of the model API in the cluster: the chart asks for one for feedback, the command makes and revokes them."""

from __future__ import annotations

import sys
from typing import Any

import httpx
import pytest
from load import FLOWER
from namespace import wait_for
from release import CONTEXT, Platform, run
from runs import registry_of

from app.clients.model_api import WITH_TOKENS
from app.registry import feedback_store

pytestmark = pytest.mark.quiet

CLIENT = "live-test"
FOLLOWS = 150  # seconds: the kubelets bring a changed Secret to the pods within two minutes
IN_A_ROW = 8  # answers, so that each pod has given one


def keys(command: str, *words: str) -> str:
    """Run `mlops keys` on this machine, as people do; what it printed."""
    return run([sys.executable, "-m", "app.cli", "keys", command, CLIENT, *words, "--context", CONTEXT]).strip()


def predict(api: httpx.Client) -> dict[str, Any]:
    """A new prediction, with a feedback token."""
    return api.get(FLOWER, headers=WITH_TOKENS).raise_for_status().json()


def label(api: httpx.Client, prediction: dict[str, Any] | None = None) -> dict[str, Any]:
    """A right label for a prediction, by default a new one."""
    prediction = prediction or predict(api)
    return {"feedback_token": prediction["feedback_token"], "label": prediction["prediction"]}


def statuses(api: httpx.Client, key: str) -> set[int]:
    """What feedback with this key is answered by all pods."""
    headers = {"Authorization": f"Bearer {key}"}
    return {api.post("/feedback", json=label(api), headers=headers).status_code for _ in range(IN_A_ROW)}


def test_feedback_needs_a_key_and_predictions_do_not(platform: Platform) -> None:
    with platform.client("api", account=False) as api:
        refused = api.post("/feedback", json=label(api))
        assert refused.status_code == 401
        assert "no key was sent" in refused.json()["detail"]
        assert statuses(api, platform.credentials["api-key"]) == {201}
        assert statuses(api, platform.credentials["worker-api-key"]) == {201}


def test_a_client_comes_and_goes_without_a_restart(platform: Platform) -> None:
    before = {pod.metadata.name for pod in platform.pods("model-api")}
    key = keys("create", "--scopes", "feedback", "--feedback-per-day", "1000")
    with platform.client("api", account=False) as api:
        try:
            wait_for(lambda: statuses(api, key) == {201}, f"all pods know the client {CLIENT}", FOLLOWS)
            prediction = predict(api)
            sent = label(api, prediction)
            answer = api.post("/feedback", json=sent, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == 201, answer.text
            with registry_of(platform) as registry:
                stored = feedback_store.read(registry, "iris")
            (row,) = [row for row in stored if row["id"] == prediction["prediction_id"]]
            assert row["client"] == CLIENT
        finally:
            keys("revoke")
        wait_for(lambda: statuses(api, key) == {401}, f"no pod knows the client {CLIENT}", FOLLOWS)
    assert before <= {pod.metadata.name for pod in platform.pods("model-api")}, "no pod was replaced for it"
