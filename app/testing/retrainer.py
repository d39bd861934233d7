"""What the retrainer's tests share: notifications of Alertmanager, a training deployment and its runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

TOKEN = "a-token-for-the-tests"  # noqa: S105
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


def alert(model: str, feature: str = "petal_length", status: str = "firing", **labels: str) -> dict[str, Any]:
    """As Alertmanager sends it, with fields that nobody here reads."""
    return {
        "status": status,
        "labels": {
            "alertname": "FeatureDrift", "action": "retrain", "model": model, "feature": feature, **labels,
        },
        "annotations": {"summary": "drift"},
        "startsAt": "2026-01-01T10:00:00.123Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": "0123456789abcdef",
    }  # fmt: skip


def notification(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "retrainer",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager",
        "alerts": list(alerts),
    }


@dataclass
class Trainings:
    """The training deployment of a model in Prefect, and its runs. No worker takes them up."""

    http: httpx.Client
    model: str

    def request(self, method: str, path: str, body: Any = None) -> Any:
        for _ in range(20):
            answer = self.http.request(method, path, json=body)
            if answer.status_code != 503:
                break
            time.sleep(0.5)  # SQLite is busy
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def deploy(self) -> str:
        flow = self.request("POST", "/flows/", {"name": "train"})["id"]
        body = {"name": self.model, "flow_id": flow, "parameters": {"model": self.model}}
        return str(self.request("POST", "/deployments/", body)["id"])

    def start(self, deployment: str, at: datetime | None = None) -> str:
        """A run that the retrainer did not ask for, due at once or later."""
        due = {"state_details": {"scheduled_time": at.isoformat()}} if at else {}
        body = {"state": {"type": "SCHEDULED", **due}}
        return str(self.request("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])

    def runs(self) -> list[dict[str, Any]]:
        """All runs of the deployment, newest first."""
        chosen = {"deployments": {"name": {"any_": [self.model]}}, "sort": "EXPECTED_START_TIME_DESC"}
        found: list[dict[str, Any]] = self.request("POST", "/flow_runs/filter", chosen)
        return found

    def end(self, run: str, state: str = "FAILED") -> None:
        """Let the run run and end in this state."""
        for name in ("RUNNING", state):
            body = {"state": {"type": name, "name": name.capitalize()}, "force": True}
            self.request("POST", f"/flow_runs/{run}/set_state", body)
