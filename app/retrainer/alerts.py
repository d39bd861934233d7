"""What Alertmanager sends, https://prometheus.io/docs/alerting/latest/configuration/#webhook_config, version 4."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from app.retrainer.decision import stamp

ACTION = "retrain"
MAX_CAUSE = 1000  # characters

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Labels = dict[Name, Annotated[str, StringConstraints(max_length=2000)]]


class WebhookAlert(BaseModel):
    """Fields that are not read here are let through: a newer Alertmanager that sends more must not stop retraining."""

    status: Literal["firing", "resolved"]
    labels: Labels
    startsAt: AwareDatetime


class Notification(BaseModel):
    version: Literal["4"]
    status: Literal["firing", "resolved"]
    alerts: list[WebhookAlert] = Field(max_length=5000)


def wanted(notification: Notification) -> dict[str, str]:
    """Model -> cause, of the models that firing alerts want retrained. Resolved alerts want nothing."""
    found: dict[str, dict[str, list[WebhookAlert]]] = {}
    for alert in notification.alerts:
        model = alert.labels.get("model")
        if alert.status == "firing" and alert.labels.get("action") == ACTION and model:
            found.setdefault(model, {}).setdefault(alert.labels.get("alertname", "alert"), []).append(alert)
    return {
        model: "; ".join(_cause(name, alerts) for name, alerts in sorted(by_name.items()))[:MAX_CAUSE]
        for model, by_name in sorted(found.items())
    }


def _cause(name: str, alerts: list[WebhookAlert]) -> str:
    """Such as: FeatureDrift petal_length, petal_width since 2026-01-01T00:00:00Z."""
    features = sorted({alert.labels["feature"] for alert in alerts if alert.labels.get("feature")})
    since: datetime = min(alert.startsAt for alert in alerts)
    return " ".join(f"{name} {', '.join(features)} since {stamp(since.astimezone(UTC))}".split())
