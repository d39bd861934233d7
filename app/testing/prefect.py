"""Prefect's REST API as tests use it: what they make, change and look at beside what the platform asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.clients.prefect import PrefectClient


class PrefectAdmin(PrefectClient):
    """A client that makes deployments and moves flow runs from state to state."""

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer of any request; None where it has no body."""
        response = self._send(method, path, json=body)
        return response.json() if response.content else None

    def deploy(self, flow: str, name: str, parameters: Mapping[str, Any]) -> str:
        """Make a deployment of the flow; returns its id."""
        flow_id = self.request("POST", "/flows/", {"name": flow})["id"]
        body = {"name": name, "flow_id": flow_id, "parameters": dict(parameters)}
        return str(self.request("POST", "/deployments/", body)["id"])

    def set_state(self, run_id: str, state: str, message: str = "") -> None:
        """Put a flow run into a state of this type, whatever Prefect's rules say."""
        body = {"state": {"type": state, "name": state.capitalize(), "message": message}, "force": True}
        self.request("POST", f"/flow_runs/{run_id}/set_state", body)
