"""What the Job of a flow run may ask of Prefect: to report about its own run, and to have its version promoted.

Prefect has one password, and whoever has it may rewrite the work pool's template and so start any pod. These rules
list what `prefect flow-run execute` and `flows.train` need of the REST API and its websockets; all else is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from app.prefect_server.run_token import ID

Read = Callable[[str], Awaitable[dict[str, Any] | None]]

NAME = r"[^/]+"
PROMOTE = "promote"  # the flow that a training may start
PROMOTION_PARAMETERS = {"model", "version", "who", "why", "cause", "only_if_better"}
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
STATES = {"RUNNING", "PAUSED", "CANCELLING", *ENDED}
OF_A_RUN = {"flow_version", "empirical_policy", "infrastructure_pid"}
OF_A_NEW_RUN = {"state", "name", "parameters", "context", "tags", "idempotency_key", "parent_task_run_id", "labels"}
HARMLESS = re.compile(
    rf"/(?:health|ready|hello|version|csrf-token|admin/version|admin/storage|flows/{ID}|flows/name/{NAME}"
    rf"|work_queues/{ID}|work_pools/{NAME})"
)
EVENTS = re.compile(r"prefect\.(?:flow-run\.heartbeat|task-run\.\w+|artifact\.\w+|asset\.\w+|log\.write)")


class Refused(Exception):
    """The account of a run may not do this; the message says what it may."""


@dataclass(frozen=True)
class Rules:
    """The rules for one run.

    run: its id.
    read: gives what Prefect answers to a GET of a path, such as /flow_runs/ID; None where there is nothing.
    """

    run: str
    read: Read

    async def check(self, method: str, path: str, body: bytes) -> None:
        """Return when the request may pass.

        Args:
            path: below /api, such as /flow_runs/ID.

        Raises:
            Refused: it may not.
        """
        if method == "GET":
            await self._check_read(path)
            return
        content = _parsed(body)
        if method == "POST" and path == "/logs/":  # the last lines come when the run has ended
            self._check_logs(content)
            return
        if (own := await self._own()).get("state_type") in ENDED:
            raise self._refused(f"anything but logs any more: it is {own['state_type']}")
        if method == "POST" and path in ("/artifacts/", "/task_runs/"):
            self._check_own(content)
        elif method == "POST" and path == f"/flow_runs/{self.run}/set_state":
            self._check_state(content)
        elif method == "PATCH" and path == f"/flow_runs/{self.run}":
            self._check_keys(content, OF_A_RUN)
        elif method == "POST" and (match := re.fullmatch(rf"/task_runs/({ID})/set_state", path)):
            await self._check_task(match[1])
        elif method == "POST" and (match := re.fullmatch(rf"/deployments/({ID})/create_flow_run", path)):
            await self._check_promotion(match[1], content)
        else:
            raise self._refused(f"{method} {path}")

    async def _check_read(self, path: str) -> None:
        if HARMLESS.fullmatch(path) or path == f"/flow_runs/{self.run}":
            return
        if re.fullmatch(rf"/deployments/(?:{ID}|name/{NAME}/{NAME})", path):
            return
        if match := re.fullmatch(rf"/flow_runs/({ID})", path):
            other = await self.read(f"/flow_runs/{match[1]}")
            if other is None or _model(other) == _model(await self._own()):
                return
        if match := re.fullmatch(rf"/task_runs/({ID})", path):
            await self._check_task(match[1])
            return
        raise self._refused(f"GET {path}")

    async def _own(self) -> dict[str, Any]:
        """The run as Prefect has it; {} when it was deleted."""
        return await self.read(f"/flow_runs/{self.run}") or {}

    async def _check_task(self, task: str) -> None:
        found = await self.read(f"/task_runs/{task}")
        if found is not None and found.get("flow_run_id") != self.run:
            raise self._refused(f"the task run {task}, which is another run's,")

    def _check_own(self, content: Any) -> None:
        if not isinstance(content, dict) or content.get("flow_run_id") != self.run:
            raise self._refused("what belongs to another run")

    def _check_logs(self, content: Any) -> None:
        if not isinstance(content, list):
            raise self._refused("logs that are no list")
        for line in content:
            self._check_own(line)

    def _check_state(self, content: Any) -> None:
        self._check_keys(content, {"state", "force"})
        state = content.get("state")
        if not isinstance(state, dict) or state.get("type") not in STATES:
            raise self._refused("a state that would start the run again")

    def _check_keys(self, content: Any, allowed: set[str]) -> None:
        if not isinstance(content, dict):
            raise self._refused("a body that is no JSON object")
        if other := sorted(content.keys() - allowed):
            raise self._refused(f"to set {', '.join(other)}")

    async def _check_promotion(self, deployment_id: str, content: Any) -> None:
        """One kind of run may be started: the promotion of a version of the model that the run itself trains."""
        deployment = await self.read(f"/deployments/{deployment_id}") or {}
        flow = await self.read(f"/flows/{deployment.get('flow_id')}") or {}
        if flow.get("name") != PROMOTE:
            raise self._refused(f"to start a run of {flow.get('name', 'nothing')}/{deployment.get('name')}")
        if not isinstance(content, dict):
            raise self._refused("a body that is no JSON object")
        given = {name: value for name, value in content.items() if value not in (None, {}, [])}
        self._check_keys(given, OF_A_NEW_RUN)
        parameters = given.get("parameters") or {}
        self._check_keys(parameters, PROMOTION_PARAMETERS)
        own = _model(await self._own())
        if not own or parameters.get("model") != own:
            raise self._refused(f"to promote a version of {parameters.get('model')!r}, which it does not train")
        if (given.get("state") or {}).get("type", "SCHEDULED") != "SCHEDULED":
            raise self._refused("to start a run in another state than SCHEDULED")

    async def check_event(self, message: str) -> None:
        """Return when the event, as a JSON text, may be sent to Prefect.

        Raises:
            Refused: it says something about another run, or is none of those that a run emits.
        """
        event = _parsed(message.encode())
        if not isinstance(event, dict) or not EVENTS.fullmatch(str(event.get("event"))):
            raise self._refused(f"the event {event.get('event') if isinstance(event, dict) else event!r}")
        subject, related = event.get("resource"), event.get("related") or []
        if not isinstance(subject, dict) or not isinstance(related, list):
            raise self._refused("an event without a resource")
        resources = [subject, *(resource for resource in related if isinstance(resource, dict))]
        names = [str(resource.get("prefect.resource.id")) for resource in resources]
        runs = {name for name in names if name.startswith("prefect.flow-run.")}
        if runs != {f"prefect.flow-run.{self.run}"}:
            raise self._refused("an event about another run")
        if names[0].startswith("prefect.task-run."):
            await self._check_task(names[0].removeprefix("prefect.task-run."))

    def narrowed(self, message: str) -> str:
        """The filter of a subscription to events, as JSON text, for those of this run alone."""
        content = _parsed(message.encode())
        wanted = content.get("filter") if isinstance(content, dict) and content.get("type") == "filter" else None
        if not isinstance(wanted, dict):
            raise self._refused("a subscription without a filter")
        of_run = {"any_resource": None, "resource": {"id": [f"prefect.flow-run.{self.run}"]}}
        return json.dumps({**content, "filter": {**wanted, **of_run}})

    def _refused(self, what: str) -> Refused:
        return Refused(
            f"the account of the flow run {self.run} does not allow {what}: it reports about this run and has "
            "its version promoted. What people do in Prefect needs Prefect's own account (docs/security.md)"
        )


def _model(run: dict[str, Any]) -> str:
    return str((run.get("parameters") or {}).get("model") or "")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body or b"null")
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is no JSON: {error}") from error
