"""What people and trainings have made on the platform, to be compared before and after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load import FLOWER
from release import Platform
from runs import registry_of, runs_of

from app.clients.mlflow import ModelVersion, Run
from app.clients.prefect import ENDED
from app.registry import feedback_store


@dataclass(frozen=True)
class Kept:
    """What must be the same afterwards."""

    credentials: dict[str, str]
    runs: dict[str, Run]  # whole: of trainings, and of the ledger
    versions: dict[str, ModelVersion]  # by model/version
    aliases: dict[str, dict[str, str]]
    feedback: list[Any]  # rows; the runs that hold them may be compacted at any time
    flow_runs: set[str]


def kept(platform: Platform, home: Path) -> Kept:
    """Read from the Secret, MLflow and Prefect as they are now."""
    platform.__dict__.pop("credentials", None)  # read anew
    with registry_of(platform) as registry, runs_of(platform, home) as runs:
        models = registry.models()
        experiments = [n for n in ("promotions", *(m.name for m in models)) if registry.find_experiment(n)]
        feedback = [row for m in models for row in feedback_store.read(registry, m.name)]
        return Kept(
            credentials=platform.credentials,
            runs={run.run_id: run for n in experiments for run in registry.search_runs(n, {}, 50_000)},
            versions={f"{m.name}/{v.version}": v for m in models for v in registry.versions(m.name)},
            aliases={m.name: m.aliases for m in models},
            feedback=sorted(feedback, key=lambda row: (row["id"], row["time"])),
            flow_runs={run.id for run in runs.prefect.runs(states=ENDED)},
        )


def assert_the_same(before: Kept, after: Kept) -> None:
    """Fail where something is another, gone or new; flow runs may have ended since."""
    assert after.credentials == before.credentials
    assert after.runs == before.runs
    assert after.versions == before.versions
    assert after.aliases == before.aliases
    assert after.feedback == before.feedback
    assert before.flow_runs <= after.flow_runs
    assert before.runs, "there was nothing to keep"
    assert before.versions


def predicts(platform: Platform) -> bool:
    """Whether the API predicts, through the ingress."""
    with platform.client("api") as http:
        answer = http.get(FLOWER)
        return answer.status_code == 200 and answer.json()["prediction"] == "setosa"
