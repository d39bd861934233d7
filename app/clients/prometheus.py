"""Prometheus, as the pages use it: https://prometheus.io/docs/prometheus/latest/querying/api/"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from app.clients.errors import ServiceError, sentence

Shape = TypeVar("Shape", bound=BaseModel)


class Series(BaseModel):
    """A series of an instant query: time in seconds since 1970, and value."""

    metric: dict[str, str]
    value: tuple[float, float]


class History(BaseModel):
    """A series of a range query: times in seconds since 1970, and values."""

    metric: dict[str, str]
    values: list[tuple[float, float]]


class ActiveAlert(BaseModel):
    """state: pending or firing."""

    labels: dict[str, str]
    annotations: dict[str, str]
    state: str
    activeAt: datetime


class _Vector(BaseModel):
    result: list[Series]


class _Matrix(BaseModel):
    result: list[History]


class _Alerts(BaseModel):
    alerts: list[ActiveAlert]


class _Instant(BaseModel):
    data: _Vector


class _Range(BaseModel):
    data: _Matrix


class _AlertList(BaseModel):
    data: _Alerts


class PrometheusClient:
    """A thread-safe client. Every method raises ServiceError, and nothing else, when there is no usable answer.

    Args:
        url: base URL.
        timeout: seconds for one request.
    """

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._http = httpx.Client(timeout=timeout)

    def at(self, query: str, time: float) -> list[Series]:
        """What a query gives at a time, in seconds since 1970."""
        return self._ask("query", _Instant, query=query, time=time, timeout=self.timeout).data.result

    def between(self, query: str, start: float, end: float, step: float) -> list[History]:
        """What a query gives at each step; all in seconds, times since 1970."""
        of = {"query": query, "start": start, "end": end, "step": step, "timeout": self.timeout}
        return self._ask("query_range", _Range, **of).data.result

    def alerts(self) -> list[ActiveAlert]:
        """The pending and the firing ones."""
        return self._ask("alerts", _AlertList).data.alerts

    def foreign(self, detail: str) -> ServiceError:
        """What to say of an answer that is not Prometheus'."""
        return ServiceError(
            f"What answers at {self.url} does not answer as Prometheus does ({detail[:200]}).",
            "Check that MLOPS_PROMETHEUS_URL is the address of a Prometheus server.",
        )

    def _ask(self, path: str, shape: type[Shape], **parameters: Any) -> Shape:
        try:
            response = self._http.get(f"{self.url}/api/v1/{path}", params=parameters)
        except httpx.TimeoutException as error:
            raise ServiceError(
                f"Prometheus at {self.url} did not answer within {self.timeout:g} s.",
                "It may be starting or overloaded, and is asked again every few seconds. Its log says more.",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ServiceError(
                f"Prometheus at {self.url} does not answer ({str(error) or type(error).__name__}).",
                "It may be restarting, and is asked again every few seconds. Where it stays like this, see that it "
                "runs and that MLOPS_PROMETHEUS_URL is its address.",
            ) from error
        if not response.is_success:
            raise self._refusal(response)
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise self.foreign(f"/api/v1/{path}: {where + ': ' if where else ''}{first['msg']}") from error

    def _refusal(self, response: httpx.Response) -> ServiceError:
        answered = f"Prometheus at {self.url} answered {response.status_code}"
        if response.status_code in (401, 403):
            return ServiceError(f"{answered}: it wants to know who is asking.", "The pages ask it without an account.")
        try:
            said = sentence(str(response.json()["error"]))
        except (ValueError, LookupError, TypeError):
            if response.status_code < 500:
                return self.foreign(f"{response.status_code} {response.reason_phrase}")
            said = ""
        return ServiceError(f"{answered}. {said}".strip(), "It is asked again every few seconds. Its log says more.")
