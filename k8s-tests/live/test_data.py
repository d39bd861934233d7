"""What people made stays: through upgrades, and when the release is removed and installed again; with PostgreSQL, too.

Runs last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kubernetes import client
from load import FLOWER
from namespace import wait_for
from release import CHART, CONTEXT, Platform, run
from runs import registry_of, restart, runs_of

from app.clients.prefect import ENDED

SERVICES = ("mlflow", "prefect-server", "prefect-worker", "model-api", "ui", "traefik")


@dataclass(frozen=True)
class Kept:
    """What must be the same afterwards."""

    credentials: dict[str, str]
    versions: dict[str, list[str]]
    aliases: dict[str, dict[str, str]]
    experiments: dict[str, int]  # name -> runs
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
            flow_runs={run.id for run in runs.prefect.runs(states=ENDED)},
        )


def predicts(platform: Platform) -> bool:
    with platform.client("api") as http:
        answer = http.get(FLOWER)
        return answer.status_code == 200 and answer.json()["prediction"] == "setosa"


def assert_the_same(before: Kept, after: Kept) -> None:
    assert after.credentials == before.credentials
    assert after.versions == before.versions
    assert after.aliases == before.aliases
    assert after.experiments == before.experiments
    assert before.flow_runs <= after.flow_runs
    assert before.versions["iris"], "there was nothing to keep"


def test_two_upgrades_keep_everything(platform: Platform, tmp_path: Path) -> None:
    before = kept(platform, tmp_path)
    for retention in (80, 90):  # a change, so that Prefect's server is replaced
        options = ["--reset-then-reuse-values", "--set", f"prefect-server.retentionDays={retention}", "--wait"]
        platform.helm("upgrade", platform.release, CHART, *options, "--timeout", "5m")
    platform.ready()
    assert_the_same(before, kept(platform, tmp_path))
    assert predicts(platform)


def uninstall(platform: Platform, values: Path) -> None:
    """Its values are kept: what `make up` chose, such as no Grafana where its image is not there."""
    values.write_text(platform.helm("get", "values", platform.release, "--output", "json"))
    platform.helm("uninstall", platform.release, "--wait")
    wait_for(lambda: not [p for p in SERVICES if platform.pods(p)], "no pod of the release is left")


def install(platform: Platform, values: Path, *options: str) -> None:
    options = ("--values", str(values), "--create-namespace", "--wait", "--timeout", "5m", *options)
    platform.helm("install", platform.release, CHART, *options)
    platform.ready()


def test_uninstall_and_install_again_keep_everything(platform: Platform, tmp_path: Path) -> None:
    before = kept(platform, tmp_path)
    values = tmp_path / "values.json"
    uninstall(platform, values)
    install(platform, values)
    assert_the_same(before, kept(platform, tmp_path))
    wait_for(lambda: predicts(platform), "a prediction", 60)


@pytest.fixture
def on_postgres(platform: Platform, tmp_path: Path) -> Iterator[Platform]:
    """The platform with postgres.enabled=true, in a namespace of its own; in place of the other, for want of CPU."""
    values = tmp_path / "values.json"
    uninstall(platform, values)
    other = Platform("mlops-postgres", platform.api)
    try:
        install(other, values, "--set", "postgres.enabled=true")
        yield other
    finally:
        other.helm("uninstall", other.release, "--ignore-not-found")  # what is not in the namespace, too
        core = client.CoreV1Api(platform.api)
        core.delete_namespace(other.name)
        wait_for(
            lambda: other.name not in [namespace.metadata.name for namespace in core.list_namespace().items],
            "the port of the node is free again",
            180,
        )
        install(platform, values)


def rows(platform: Platform, database: str, table: str) -> int:
    """As PostgreSQL itself says."""
    query = ["psql", "-U", "mlops", "-d", database, "-tAc", f"select count(*) from {table}"]  # noqa: S608
    where = ["--context", CONTEXT, "-n", platform.name, f"{platform.release}-postgres-0"]
    return int(run(["kubectl", "exec", *where, "--", *query]))


@pytest.mark.drill
def test_the_loop_and_what_it_made_are_on_postgres(on_postgres: Platform, tmp_path: Path) -> None:
    wait_for(lambda: predicts(on_postgres), "a prediction", 60)
    on_postgres.helm("test", on_postgres.release, "--timeout", "10m")
    before = kept(on_postgres, tmp_path)
    for component, database, table in (
        ("mlflow", "mlflow", "model_versions"),
        ("prefect-server", "prefect", "flow_run"),
    ):
        assert rows(on_postgres, database, table) >= 2
        restart(on_postgres, component)
    assert_the_same(before, kept(on_postgres, tmp_path))
    assert predicts(on_postgres)
