"""Prometheus' HTTP API: https://prometheus.io/docs/prometheus/latest/querying/api/"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
from pydantic import BaseModel

from app.clients.errors import ServiceError, sentence
from app.clients.service import ServiceClient


class Series(BaseModel):
    """One series of an instant query. metric: its labels; value: time in seconds since 1970, and number."""

    metric: dict[str, str]
    value: tuple[float, float]

    @property
    def number(self) -> float:
        """The value without its time; may be NaN or infinite."""
        return self.value[1]


class RangeSeries(BaseModel):
    """One series of a range query. metric: its labels; values: times in seconds since 1970, and numbers."""

    metric: dict[str, str]
    values: list[tuple[float, float]]


class ActiveAlert(BaseModel):
    """An alert whose condition holds. state: pending or firing; activeAt: since when."""

    labels: dict[str, str]
    annotations: dict[str, str]
    state: str
    activeAt: datetime


class _Vector(BaseModel):
    result: list[Series]


class _Matrix(BaseModel):
    result: list[RangeSeries]


class _Alerts(BaseModel):
    alerts: list[ActiveAlert]


class _InstantAnswer(BaseModel):
    data: _Vector


class _RangeAnswer(BaseModel):
    data: _Matrix


class _AlertsAnswer(BaseModel):
    data: _Alerts


class PrometheusClient(ServiceClient):
    """A client of a Prometheus server."""

    name = "Prometheus"
    variable = "MLOPS_PROMETHEUS_URL"

    def query(self, expression: str) -> list[Series]:
        """What a PromQL expression, whose result is a vector, gives now."""
        return self._instant(query=expression)

    def at(self, expression: str, time: float) -> list[Series]:
        """What a PromQL expression, whose result is a vector, gives at a time in seconds since 1970."""
        return self._instant(query=expression, time=time)

    def between(self, expression: str, start: float, end: float, step: float) -> list[RangeSeries]:
        """What a PromQL expression gives from start to end, both in seconds since 1970, every `step` seconds."""
        parameters = {"query": expression, "start": start, "end": end, "step": step, "timeout": self.timeout}
        return self._json("GET", "/api/v1/query_range", _RangeAnswer, params=parameters).data.result

    def alerts(self) -> list[ActiveAlert]:
        """The alerts that are pending or firing."""
        return self._json("GET", "/api/v1/alerts", _AlertsAnswer).data.alerts

    def _instant(self, **parameters: Any) -> list[Series]:
        parameters |= {"timeout": self.timeout}
        return self._json("GET", "/api/v1/query", _InstantAnswer, params=parameters).data.result

    def _unreachable(self) -> str:
        return f"It may be restarting. If this lasts, check that it runs and that {self.variable} is its address."

    def _refusal(self, response: httpx.Response) -> ServiceError:
        status = response.status_code
        answered = f"{self.name} at {self.url} answered {status}"
        if status in (401, 403):
            cure = f"Set {self.variable} to an address at which Prometheus answers without an account."
            return ServiceError(f"{answered}: it wants an account.", cure, status)
        try:
            reason = sentence(str(response.json()["error"]))
        except (ValueError, LookupError, TypeError):
            if status < 500:
                return self.foreign(f"{status} {response.reason_phrase}")
            reason = ""
        return ServiceError(f"{answered}. {reason}".strip(), "Try again in a moment. Its log says more.", status)
