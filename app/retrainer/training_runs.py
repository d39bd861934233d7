"""The training runs of models in Prefect, as far as the retrainer reads and starts them."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from app.clients.prefect import UNDER_WAY, Deployment, FlowRun, PrefectClient
from app.vocabulary import RETRAINER, TRAIN_FLOW

SOON = timedelta(minutes=1)


class TrainingRuns:
    """Every method raises ServiceError when Prefect does not answer, or refuses."""

    def __init__(self, prefect: PrefectClient) -> None:
        self.prefect = prefect

    def deployment(self, model: str) -> Deployment | None:
        """The deployment that trains the model; None where there is none."""
        return self.prefect.deployment(TRAIN_FLOW, model)

    def under_way(self, model: str, now: datetime) -> FlowRun | None:
        """A training of the model that runs, or is due within a minute; those of its schedule lie further ahead."""
        runs = self.prefect.runs(flow=TRAIN_FLOW, states=UNDER_WAY, due_before=now + SOON)
        return next((run for run in runs if run.parameters.get("model") == model), None)

    def retrainings(self, model: str) -> list[FlowRun]:
        """The runs that the retrainer started for the model, newest first, at most 200."""
        return self.prefect.runs(flow=TRAIN_FLOW, tags=_tags(model))

    def start_retraining(self, deployment: Deployment, model: str, key: str, cause: str) -> tuple[FlowRun, bool]:
        """The retraining with this idempotency key: started now, or by whoever asked first.

        Args:
            cause: the alerts, for the promotion ledger.

        Returns:
            the run, and whether this call started it.
        """
        name = f"retrain-{model}-{secrets.token_hex(4)}"
        parameters = {"model": model, "feedback": True, "only_if_better": True, "who": RETRAINER, "cause": cause}
        run = self.prefect.start(deployment.id, parameters, name=name, tags=_tags(model), idempotency_key=key)
        return run, run.name == name


def _tags(model: str) -> list[str]:
    return [RETRAINER, f"model:{model}"]
