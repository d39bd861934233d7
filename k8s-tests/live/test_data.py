"""What people made stays: through upgrades, and when the release is removed and installed again; with PostgreSQL, too.

Runs last.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kept import assert_the_same, kept, predicts
from namespace import wait_for
from release import CHART, CONTEXT, Platform, in_place_of, install, run, uninstall
from runs import restart, settled


def test_two_upgrades_keep_everything(platform: Platform, tmp_path: Path) -> None:
    before = kept(platform, tmp_path)
    for retention in (80, 90):  # a change, so that Prefect's server is replaced
        options = ["--reset-then-reuse-values", "--set", f"prefect-server.retentionDays={retention}", "--wait"]
        platform.helm("upgrade", platform.release, CHART, *options, "--timeout", "5m")
    platform.ready()
    assert_the_same(before, kept(platform, tmp_path))
    assert predicts(platform)


def test_uninstall_and_install_again_keep_everything(platform: Platform, tmp_path: Path) -> None:
    before = kept(platform, tmp_path)
    values = tmp_path / "values.json"
    uninstall(platform, values)
    install(platform, CHART, values)
    assert_the_same(before, kept(platform, tmp_path))
    wait_for(lambda: predicts(platform), "a prediction", 60)


@pytest.fixture
def on_postgres(platform: Platform, tmp_path: Path) -> Iterator[Platform]:
    """The platform with postgres.enabled=true, in a namespace of its own; in place of the other, for want of CPU."""
    with in_place_of(platform, "mlops-postgres", tmp_path) as (other, values):
        install(other, CHART, values, "--set", "postgres.enabled=true")
        yield other


def psql(platform: Platform, database: str, query: str) -> str:
    """What PostgreSQL itself says."""
    where = ["--context", CONTEXT, "-n", platform.name, f"{platform.release}-postgres-0"]
    return run(["kubectl", "exec", *where, "--", "psql", "-U", "mlops", "-d", database, "-tAqc", query]).strip()


def assert_a_later_schema_is_refused(platform: Platform, component: str, database: str) -> None:
    """As after a rollback; with the real one back, the server starts."""
    known = psql(platform, database, "select version_num from alembic_version")
    psql(platform, database, "update alembic_version set version_num = 'ffffffffffff'")
    (pod,) = platform.pods(component)
    platform.core.delete_namespaced_pod(pod.metadata.name, platform.name)
    sentence = wait_for(lambda: platform.refusal(component), "the refusal", 180)
    assert "schema revision ffffffffffff" in sentence
    assert known in sentence
    assert platform.credentials["postgres-password"] not in sentence
    psql(platform, database, f"update alembic_version set version_num = '{known}'")  # noqa: S608
    wait_for(lambda: settled(platform, component), f"{component} again", 400)


@pytest.mark.drill
def test_the_loop_and_what_it_made_are_on_postgres(on_postgres: Platform, tmp_path: Path) -> None:
    wait_for(lambda: predicts(on_postgres), "a prediction", 60)
    on_postgres.helm("test", on_postgres.release, "--timeout", "10m")
    before = kept(on_postgres, tmp_path)
    for component, database, table in (
        ("mlflow", "mlflow", "model_versions"),
        ("prefect-server", "prefect", "flow_run"),
    ):
        assert int(psql(on_postgres, database, f"select count(*) from {table}")) >= 2  # noqa: S608
        restart(on_postgres, component)
        assert_a_later_schema_is_refused(on_postgres, component, database)
    assert_the_same(before, kept(on_postgres, tmp_path))
    assert predicts(on_postgres)
