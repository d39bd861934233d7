"""What the retrainer's tests share: notifications of Alertmanager, a training deployment and its runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from app.clients.prefect import FlowRun
from app.testing.prefect import PrefectAdmin
from app.vocabulary import TRAIN_FLOW

TOKEN = "a-token-for-the-tests"  # noqa: S105
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


def alert(model: str, feature: str = "petal_length", status: str = "firing", **labels: str) -> dict[str, Any]:
    """An alert as Alertmanager sends it, with fields that the retrainer does not read."""
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
    """The body of Alertmanager's webhook request with these alerts."""
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


class Trainings:
    """The training deployment of a model in Prefect, and its runs. No worker takes them up."""

    def __init__(self, prefect: PrefectAdmin, model: str) -> None:
        self.prefect, self.model = prefect, model

    def deploy(self) -> str:
        """Make the model's training deployment; returns its id."""
        return self.prefect.deploy(TRAIN_FLOW, self.model, {"model": self.model})

    def start(self, deployment: str, at: datetime | None = None) -> str:
        """A run that the retrainer did not ask for, due at once or later; returns its id."""
        due = {"state_details": {"scheduled_time": at.isoformat()}} if at else {}
        body = {"state": {"type": "SCHEDULED", **due}}
        return str(self.prefect.request("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])

    def runs(self) -> list[FlowRun]:
        """All runs of the deployment, newest first."""
        deployment = self.prefect.deployment(TRAIN_FLOW, self.model)
        assert deployment, f"there is no deployment {TRAIN_FLOW}/{self.model}"
        return self.prefect.runs(deployment_id=deployment.id)

    def end(self, run_id: str, state: str = "FAILED") -> None:
        """Let the run run and end in a state of this type."""
        for state_type in ("RUNNING", state):
            self.prefect.set_state(run_id, state_type)
