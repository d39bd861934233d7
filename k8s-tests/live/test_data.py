"""What people made stays: through upgrades, and when the release is removed and installed again; with PostgreSQL, too.

Runs last.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from backups import backup, restore
from kept import assert_the_same, kept, predicts
from namespace import wait_for
from release import CHART, CONTEXT, Platform, in_place_of, install, run, uninstall
from runs import restart, settled
from upgraded import Upgraded


def test_an_upgrade_keeps_everything(upgraded: Upgraded) -> None:
    assert_the_same(upgraded.before, upgraded.after)


def test_uninstall_and_install_again_keep_everything(upgraded: Upgraded, tmp_path: Path) -> None:
    """And it has the settings of before the upgrade again."""
    platform = upgraded.platform
    before = kept(platform, tmp_path)
    uninstall(platform, tmp_path / "values.json")
    install(platform, CHART, upgraded.settings_before)
    assert_the_same(before, kept(platform, tmp_path))
    wait_for(lambda: predicts(platform), "a prediction", 60)


@pytest.fixture(scope="module")
def on_postgres(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The platform with postgres.enabled=true, in a namespace of its own; in place of the other, for want of CPU."""
    with in_place_of(platform, "mlops-postgres", tmp_path_factory.mktemp("postgres")) as (other, values):
        install(other, CHART, values, "--set", "postgres.enabled=true", "--set", "backup.enabled=true")
        wait_for(lambda: predicts(other), "a prediction", 60)
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


@pytest.mark.drill
def test_databases_and_artifacts_that_were_destroyed_are_there_again(on_postgres: Platform, tmp_path: Path) -> None:
    before = kept(on_postgres, tmp_path)
    name = backup(on_postgres)
    for database, extension in (("mlflow", ""), ("mlflow_auth", ""), ("prefect", "pg_trgm")):
        psql(on_postgres, "postgres", f"DROP DATABASE {database} WITH (FORCE)")
        psql(on_postgres, "postgres", f"CREATE DATABASE {database}")
        if extension:
            psql(on_postgres, database, f"CREATE EXTENSION {extension}")
    (pod,) = on_postgres.pods("mlflow")
    where = ["--context", CONTEXT, "-n", on_postgres.name, pod.metadata.name]
    run(["kubectl", "exec", *where, "--", "rm", "-rf", "/data/artifacts"])
    began = time.monotonic()
    print(restore(on_postgres, name))
    print(f"restored in {time.monotonic() - began:.0f} s")
    assert_the_same(before, kept(on_postgres, tmp_path))
    wait_for(lambda: predicts(on_postgres), "a prediction", 60)
