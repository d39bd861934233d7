"""What people and trainings have made on the platform, to be compared before and after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from load import FLOWER
from release import Platform
from runs import registry_of, runs_of

from app.clients.prefect import ENDED
from app.registry import feedback_store


@dataclass(frozen=True)
class Kept:
    """What must be the same afterwards."""

    credentials: dict[str, str]
    versions: dict[str, list[str]]
    aliases: dict[str, dict[str, str]]
    experiments: dict[str, int]  # name -> runs: trainings, and entries of the ledger
    feedback: list[str]  # prediction ids that were labelled
    flow_runs: set[str]


def kept(platform: Platform, home: Path) -> Kept:
    """Read from the Secret, MLflow and Prefect as they are now."""
    platform.__dict__.pop("credentials", None)  # read anew
    with registry_of(platform) as registry, runs_of(platform, home) as runs:
        models = registry.models()
        names = ("iris", "promotions")
        return Kept(
            credentials=platform.credentials,
            versions={m.name: [v.version for v in registry.versions(m.name)] for m in models},
            aliases={m.name: m.aliases for m in models},
            experiments={name: len(registry.search_runs(name, {})) for name in names},
            feedback=sorted(str(row["id"]) for row in feedback_store.read(registry, "iris")),
            flow_runs={run.id for run in runs.prefect.runs(states=ENDED)},
        )


def assert_the_same(before: Kept, after: Kept) -> None:
    """Fail where something is another, gone or new; flow runs may have ended since."""
    assert after.credentials == before.credentials
    assert after.versions == before.versions
    assert after.aliases == before.aliases
    assert after.experiments == before.experiments
    assert after.feedback == before.feedback
    assert before.flow_runs <= after.flow_runs
    assert before.versions["iris"], "there was nothing to keep"


def predicts(platform: Platform) -> bool:
    """Whether the API predicts, through the ingress."""
    with platform.client("api") as http:
        answer = http.get(FLOWER)
        return answer.status_code == 200 and answer.json()["prediction"] == "setosa"
