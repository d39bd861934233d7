"""Prefect's REST API: importing prefect itself costs 100 MB and seconds of start-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

import httpx
from pydantic import AliasPath, AwareDatetime, BaseModel, ConfigDict, Field
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_chain, wait_fixed

from app.clients.errors import ServiceError
from app.clients.service import ServiceClient
from app.runtime.settings import PrefectSettings

PAGE = 200  # the most that Prefect gives at once
ATTEMPTS = 4
BUSY = 503  # the status while its SQLite is busy; nothing was changed then, so every request may be repeated
PAUSES = (0.2, 0.5, 1.0)  # seconds before the second, the third and each later attempt
UNDER_WAY = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")  # state types of a run that has not ended
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

Sort = Literal["EXPECTED_START_TIME_DESC", "END_TIME_DESC"]


class FlowRun(BaseModel):
    """A flow run.

    state: the type of its state, such as COMPLETED; state_name: its name, which says more, such as Late.
    message: of the state.
    seconds: for which it ran.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    state: str | None = Field(validation_alias="state_type")
    state_name: str | None
    message: str | None = Field(None, validation_alias=AliasPath("state", "message"))
    parameters: dict[str, Any]
    tags: list[str]
    created: AwareDatetime
    updated: AwareDatetime
    state_since: AwareDatetime | None = Field(None, validation_alias=AliasPath("state", "timestamp"))
    end_time: AwareDatetime | None
    seconds: float = Field(validation_alias="total_run_time")

    @property
    def is_over(self) -> bool:
        """Whether it has ended, in whatever state."""
        return self.state not in UNDER_WAY

    @property
    def ended(self) -> datetime | None:
        """When it ended, in UTC; None while it is waited for or runs."""
        if not self.is_over:
            return None
        # a run that was cancelled before it began may have no end: its last change is one
        return (self.end_time or self.state_since or self.updated).astimezone(UTC)


class Deployment(BaseModel):
    """A deployment of a flow. status: READY while a worker or a process asks for its runs."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    flow_id: str
    status: str | None
    paused: bool


class _Flow(BaseModel):
    id: str
    name: str


class _StateCount(BaseModel):
    state_type: str
    count_runs: int


class _Interval(BaseModel):
    states: list[_StateCount]


class PrefectClient(ServiceClient):
    """A client of a Prefect server. A request that finds it busy is sent again.

    Args:
        url: of its REST API, such as http://prefect:4200/api; default from the environment, as is the account.
        timeout: seconds for one request.
        http: what sends the requests, where the environment's account is not the right one.
        attempts: how often a request is sent while Prefect is busy.
    """

    name = "Prefect"
    variable = "PREFECT_API_URL"

    def __init__(
        self,
        url: str | None = None,
        timeout: float = 10.0,
        http: httpx.Client | None = None,
        attempts: int = ATTEMPTS,
    ) -> None:
        settings = PrefectSettings()
        user, _, password = settings.prefect_api_auth_string.partition(":")
        http = http or httpx.Client(auth=(user, password) if user else None, timeout=timeout)
        super().__init__(url or settings.prefect_api_url, timeout, http)
        self._retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, ServiceError) and error.status == BUSY),
            stop=stop_after_attempt(attempts),
            wait=wait_chain(*map(wait_fixed, PAUSES)),
            reraise=True,
        )

    def version(self) -> str:
        """The server's version."""
        return self._json("GET", "/admin/version", str)

    def deployment(self, flow: str, name: str) -> Deployment | None:
        """The deployment of the flow with this name; None where there is none."""
        try:
            return self._json("GET", f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}", Deployment)
        except ServiceError as error:
            if error.status == 404:
                return None
            raise

    def deployments(self) -> dict[str, Deployment]:
        """The deployments by flow and name, such as train/iris; at most 200."""
        deployments = self._json("POST", "/deployments/filter", list[Deployment], json={"limit": PAGE})
        chosen = {"id": {"any_": [deployment.flow_id for deployment in deployments]}}
        flows = self._json("POST", "/flows/filter", list[_Flow], json={"limit": PAGE, "flows": chosen})
        names = {flow.id: flow.name for flow in flows}
        return {f"{names[d.flow_id]}/{d.name}": d for d in deployments if d.flow_id in names}

    def run(self, run_id: str) -> FlowRun:
        """The flow run with this id; the error has status 404 where there is none."""
        return self._json("GET", f"/flow_runs/{run_id}", FlowRun)

    def runs(
        self,
        *,
        flow: str = "",
        deployment_id: str = "",
        states: Sequence[str] = (),
        tags: Sequence[str] = (),
        due_after: datetime | None = None,
        due_before: datetime | None = None,
        sort: Sort = "EXPECTED_START_TIME_DESC",
        limit: int = PAGE,
    ) -> list[FlowRun]:
        """The flow runs that meet every condition which is given.

        Args:
            flow: name of the flow.
            deployment_id: id of the deployment.
            states: types, such as COMPLETED; a run is in one of them.
            tags: a run has all of them.
            due_after, due_before: limits of the time at which a run was or is to begin.
            sort: the latest first, by when it is due or by its end.
            limit: how many at most, up to 200.
        """
        conditions: dict[str, Any] = {}
        if states:
            conditions["state"] = {"type": {"any_": list(states)}}
        if tags:
            conditions["tags"] = {"all_": list(tags)}
        if due_after or due_before:
            limits = {"after_": due_after, "before_": due_before}
            conditions["expected_start_time"] = {name: time.isoformat() for name, time in limits.items() if time}
        body: dict[str, Any] = {"sort": sort, "limit": limit, "flow_runs": conditions}
        if flow:
            body["flows"] = {"name": {"any_": [flow]}}
        if deployment_id:
            body["deployments"] = {"id": {"any_": [deployment_id]}}
        return self._json("POST", "/flow_runs/filter", list[FlowRun], json=body)

    def start(
        self,
        deployment_id: str,
        parameters: Mapping[str, Any],
        *,
        name: str = "",
        tags: Sequence[str] = (),
        idempotency_key: str = "",
        job_variables: Mapping[str, Any] | None = None,
    ) -> FlowRun:
        """Have the deployment run at once.

        Args:
            parameters: of the flow, over those of the deployment.
            name: of the run; by default Prefect makes one up.
            idempotency_key: where a run of this flow has it, that run is returned and none is made.
            job_variables: of the run's infrastructure, over those of the deployment.
        """
        body: dict[str, Any] = {
            "parameters": dict(parameters),
            "tags": list(tags),
            "state": {"type": "SCHEDULED", "name": "Scheduled"},
        }
        if name:
            body["name"] = name
        if idempotency_key:
            body["idempotency_key"] = idempotency_key
        if job_variables:
            body["job_variables"] = dict(job_variables)
        return self._json("POST", f"/deployments/{deployment_id}/create_flow_run", FlowRun, json=body)

    def counts(self, deployment_id: str, start: datetime, end: datetime) -> dict[str, int]:
        """How many runs of the deployment were or are due from start to end, by the type of their state."""
        body = {
            "history_start": start.isoformat(),
            "history_end": end.isoformat(),
            "history_interval_seconds": (end - start).total_seconds(),
            "deployments": {"id": {"any_": [deployment_id]}},
        }
        counts: dict[str, int] = {}
        for interval in self._json("POST", "/flow_runs/history", list[_Interval], json=body):
            for state in interval.states:
                counts[state.state_type] = counts.get(state.state_type, 0) + state.count_runs
        return counts

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._retrying(super()._send, method, path, **options)

    def _unreachable(self) -> str:
        return f"Start it with `make demo`, or set {self.variable} to where it runs."

    def _refusal(self, response: httpx.Response) -> ServiceError:
        status, path = response.status_code, response.request.url.path
        answered = f"{self.name} at {self.url} answered {status}"
        if status in (401, 403):
            cure = "Set PREFECT_API_AUTH_STRING to its account, as user:password."
            return ServiceError(f"{answered}: it wants an account.", cure, status)
        if status == 404:
            return ServiceError(f"{answered} to {path}.", f"Check that {self.variable} ends in /api.", status)
        return ServiceError(
            f"{answered} to {path}: {response.text[:300]}", "Try again in a moment. Its log says more.", status
        )
