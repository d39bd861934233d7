"""What Alertmanager sends, https://prometheus.io/docs/alerting/latest/configuration/#webhook_config, version 4."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from app.retrainer.decision import timestamp

ACTION = "retrain"
MAX_CAUSE = 1000  # characters

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Labels = dict[Name, Annotated[str, StringConstraints(max_length=2000)]]


class WebhookAlert(BaseModel):
    """One alert. Further fields are allowed: a newer Alertmanager that sends more must not stop retraining."""

    status: Literal["firing", "resolved"]
    labels: Labels
    startsAt: AwareDatetime


class Notification(BaseModel):
    """The body of a webhook request: alerts of one group."""

    version: Literal["4"]
    status: Literal["firing", "resolved"]
    alerts: list[WebhookAlert] = Field(max_length=5000)


def models_to_retrain(notification: Notification) -> dict[str, str]:
    """The models that firing alerts ask to retrain, each with its cause: the alerts in words, cut at MAX_CAUSE."""
    firing: dict[str, dict[str, list[WebhookAlert]]] = {}
    for alert in notification.alerts:
        model = alert.labels.get("model")
        if alert.status == "firing" and alert.labels.get("action") == ACTION and model:
            firing.setdefault(model, {}).setdefault(alert.labels.get("alertname", "alert"), []).append(alert)
    return {
        model: "; ".join(_cause(name, alerts) for name, alerts in sorted(by_name.items()))[:MAX_CAUSE]
        for model, by_name in sorted(firing.items())
    }


def _cause(name: str, alerts: list[WebhookAlert]) -> str:
    """The alerts of one name in words, such as: FeatureDrift petal_length since 2026-01-01T00:00:00Z."""
    features = sorted({alert.labels["feature"] for alert in alerts if alert.labels.get("feature")})
    since: datetime = min(alert.startsAt for alert in alerts)
    return " ".join(f"{name} {', '.join(features)} since {timestamp(since.astimezone(UTC))}".split())
