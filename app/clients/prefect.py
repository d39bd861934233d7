"""What the retrainer asks Prefect, over its REST API: importing prefect costs 100 MB and seconds of start-up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx

from app.runtime.settings import PrefectSettings

FLOW = "train"
TAG = "retrainer"
PAGE = 200  # the most that Prefect gives at once
PAUSES = (
    0.2,
    0.5,
    1.0,
)  # seconds; Prefect answers 503 while its SQLite is busy, and every request may be repeated
WEEK = timedelta(days=7)
SOON = timedelta(minutes=1)
UNDER_WAY = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
FAILED = ("FAILED", "CRASHED")


class PrefectUnavailable(Exception):
    """Prefect does not answer, or refuses; the message says what it said."""


@dataclass(frozen=True)
class FlowRun:
    """seconds: for which it ran; ended: None while it is waited for or runs."""

    id: str
    name: str
    state: str  # its type, such as COMPLETED
    state_name: str
    parameters: dict[str, Any]
    created: datetime
    ended: datetime | None
    seconds: float


class PrefectClient:
    """A thread-safe client of one Prefect server. Every method raises PrefectUnavailable.

    Args:
        url: of its REST API, such as http://prefect:4200/api; default from the environment, as is the account.
        timeout: seconds for one request.
    """

    def __init__(self, url: str | None = None, timeout: float = 10.0) -> None:
        settings = PrefectSettings()
        user, _, password = settings.prefect_api_auth_string.partition(":")
        self.http = httpx.Client(
            base_url=url or settings.prefect_api_url, auth=(user, password) if user else None, timeout=timeout
        )

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            for pause in (*PAUSES, 0.0):
                answer = self.http.request(method, path, json=body)
                if answer.status_code != 503 or not pause:
                    break
                time.sleep(pause)
        except httpx.HTTPError as error:
            raise PrefectUnavailable(
                f"Prefect at {self.http.base_url} does not answer: {error or type(error).__name__}"
            ) from error
        if answer.is_success or answer.status_code == 404:
            return answer
        hint = " (check PREFECT_API_AUTH_STRING)" if answer.status_code == 401 else ""
        raise PrefectUnavailable(
            f"Prefect at {self.http.base_url} answered {answer.status_code} to {path}: {answer.text[:300]}{hint}"
        )

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        answer = self._send("POST", path, body)
        if answer.status_code == 404:
            raise PrefectUnavailable(f"Prefect at {self.http.base_url} does not know {path}: is PREFECT_API_URL right?")
        return answer.json()

    def _runs(self, body: dict[str, Any]) -> list[FlowRun]:
        return [_flow_run(raw) for raw in self._ask("/flow_runs/filter", {"limit": PAGE, **body})]

    def deployment(self, model: str) -> str | None:
        """The id of the model's training deployment, or None where there is none."""
        answer = self._send("GET", f"/deployments/name/{FLOW}/{quote(model, safe='')}")
        return None if answer.status_code == 404 else str(answer.json()["id"])

    def under_way(self, model: str, now: datetime) -> FlowRun | None:
        """A training of the model that runs, or is due within a minute; those of its schedule lie further ahead."""
        body = {
            "flows": {"name": {"any_": [FLOW]}},
            "flow_runs": {
                "state": {"type": {"any_": UNDER_WAY}},
                "expected_start_time": {"before_": (now + SOON).isoformat()},
            },
            "sort": "EXPECTED_START_TIME_DESC",
        }
        return next((run for run in self._runs(body) if run.parameters.get("model") == model), None)

    def retrainings(self, model: str) -> list[FlowRun]:
        """The runs that the retrainer started for the model, newest first, at most 200."""
        body = {
            "flows": {"name": {"any_": [FLOW]}},
            "flow_runs": {"tags": {"all_": tags(model)}},
            "sort": "EXPECTED_START_TIME_DESC",
        }
        return self._runs(body)

    def start(self, deployment: str, model: str, name: str, key: str, cause: str) -> FlowRun:
        """The flow run with this idempotency key: a new one of this name, or that of whoever asked first."""
        body = {
            "name": name,
            "idempotency_key": key,
            "tags": tags(model),
            "parameters": {
                "model": model, "feedback": True, "only_if_better": True, "who": TAG, "cause": cause,
            },
            "state": {"type": "SCHEDULED", "name": "Scheduled"},
        }  # fmt: skip
        return _flow_run(self._ask(f"/deployments/{deployment}/create_flow_run", body))

    # -- what the exporter tells Prometheus ------------------------------------------------------------------------

    def deployments(self) -> dict[str, str]:
        """Name, such as train/iris, -> id; at most 200."""
        found = self._ask("/deployments/filter", {"limit": PAGE})
        flows = self._ask("/flows/filter", {"limit": PAGE, "flows": {"id": {"any_": [d["flow_id"] for d in found]}}})
        names = {flow["id"]: flow["name"] for flow in flows}
        return {f"{names[d['flow_id']]}/{d['name']}": d["id"] for d in found if d["flow_id"] in names}

    def counts(self, deployment: str, now: datetime) -> dict[str, int]:
        """State type, lower case, -> runs of the last 7 days."""
        body = {
            "history_start": (now - WEEK).isoformat(),
            "history_end": now.isoformat(),
            "history_interval_seconds": WEEK.total_seconds(),
            "deployments": {"id": {"any_": [deployment]}},
        }
        found: dict[str, int] = {}
        for interval in self._ask("/flow_runs/history", body):
            for state in interval["states"]:
                name = state["state_type"].lower()
                found[name] = found.get(name, 0) + state["count_runs"]
        return found

    def last(self, deployment: str, states: Sequence[str]) -> FlowRun | None:
        """The run of the deployment that ended last in one of these states."""
        body = {
            "deployments": {"id": {"any_": [deployment]}},
            "flow_runs": {"state": {"type": {"any_": list(states)}}},
            "sort": "END_TIME_DESC",
            "limit": 1,
        }
        return next(iter(self._runs(body)), None)


def tags(model: str) -> list[str]:
    """Of the runs that the retrainer starts."""
    return [TAG, f"model:{model}"]


def _flow_run(raw: dict[str, Any]) -> FlowRun:
    over = raw["state_type"] not in UNDER_WAY
    # a run that was cancelled before it began may have no end: its last change is one
    ended = raw["end_time"] or (raw["state"] or {}).get("timestamp") or raw["updated"]
    return FlowRun(
        id=raw["id"],
        name=raw["name"],
        state=raw["state_type"],
        state_name=raw["state_name"],
        parameters=raw["parameters"],
        created=_time(raw["created"]),
        ended=_time(ended) if over else None,
        seconds=raw["total_run_time"],
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
