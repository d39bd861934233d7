"""The Prefect automations that end runs whose pod or node is gone."""

from __future__ import annotations

from datetime import timedelta

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

TAG = "mlops"  # of everything that the platform makes in Prefect
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = [f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed", "AwaitingRetry")]
# The worker's name of a pod's condition -> the message of the state, and whether it replaces one that says less.
DIAGNOSES = {
    "ImagePullError": ("The image of the Job cannot be pulled: see the run's log for its name and the answer.", False),
    "OOMKilled": ("The Job needed more memory than its model file's resources allow, and was killed.", True),
    "Evicted": ("The Job's pod was evicted by its node: see the run's log for the reason.", True),
}


def crash_automations(heartbeat_seconds: int) -> list[AutomationCore]:
    """The automations that end a run which cannot end itself, as Crashed and with the reason.

    Args:
        heartbeat_seconds: after so long without a heartbeat a run is crashed.
    """
    silent = EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*"},
        for_each={"prefect.resource.id"},
        after={HEARTBEAT},
        expect={HEARTBEAT, *ENDS},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=heartbeat_seconds),
    )
    gone = f"Nothing was heard of the run for {heartbeat_seconds} s: its pod or node is gone."
    return [
        _crash("Crash runs without heartbeat", silent, gone, force=False),
        *(
            _crash(f"Crash runs whose pod has {diagnosis}", _diagnosed(diagnosis), message, force)
            for diagnosis, (message, force) in DIAGNOSES.items()
        ),
    ]


def _diagnosed(diagnosis: str) -> EventTrigger:
    """Fires when the worker sees a pod in this condition, which is in the labels of its event."""
    return EventTrigger(
        match={"kubernetes.diagnosis": diagnosis},
        for_each={"prefect.resource.id"},
        expect={"prefect.kubernetes.pod.*"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


def _crash(name: str, trigger: EventTrigger, message: str, force: bool) -> AutomationCore:
    action = ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message, force=force)
    return AutomationCore(
        name=name, description="From flows/automations.py.", enabled=True, tags=[TAG], trigger=trigger, actions=[action]
    )


async def ensure_automations(client: PrefectClient, automations: list[AutomationCore]) -> None:
    """Create the automations, or bring those of the same names to what they are here."""
    for automation in automations:
        existing = await client.read_automations_by_name(automation.name)
        if existing:
            await client.update_automation(existing[0].id, automation)
        else:
            await client.create_automation(automation)
