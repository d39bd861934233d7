"""`mlops backup` and `mlops restore`: of a cluster, whose Jobs run here; of the demo's folder."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.backup.databases import ACCOUNTS, MLFLOW, PREFECT, counts
from app.backup.secrets import new_identity
from app.cli.credentials import missing
from app.cli.folder_lock import lock_folder
from app.cli.main import main
from app.clients.kubernetes_jobs import REPLICAS
from app.testing.docs import ROOT
from app.testing.kubernetes import FakeKubernetes, fake_kubernetes

SECRET = "mlops-credentials"  # noqa: S105
SERVICES = {"mlflow": "mlops-mlflow", "prefect": "mlops-prefect-server"}


def fill(folder: Path, rows: int) -> None:
    """Databases as MLflow's and Prefect's: only what a backup looks at; and an artifact."""
    for component, database, table in (
        ("mlflow", MLFLOW, "runs"),
        ("mlflow", ACCOUNTS, "users"),
        ("prefect", PREFECT, "flow_run"),
    ):
        (folder / component / "artifacts").mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(folder / component / database.file)) as connection, connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {database.table} (version_num TEXT)")
            connection.execute(f"INSERT INTO {database.table} VALUES (?)", (max(database.known() or [""]),))  # noqa: S608
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (id INTEGER)")
            connection.executemany(f"INSERT INTO {table} VALUES (?)", [(n,) for n in range(rows)])  # noqa: S608
    (folder / "mlflow" / "artifacts" / "model.onnx").write_bytes(b"x" * rows)


def rows(folder: Path) -> tuple[int, int]:
    """Runs of MLflow, and flow runs of Prefect."""
    mlflow = counts(folder / "mlflow" / "mlflow.db", ("runs",))["runs"]
    return mlflow, counts(folder / "prefect" / "prefect.db", ("flow_run",))["flow_run"]


def mlops(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(main, [*words], input=answer)


def name_of(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output.splitlines()[0].partition(":")[0]


# -- a cluster ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """What MLflow and Prefect have: ten rows each."""
    fill(tmp_path / "volumes", 10)
    return tmp_path / "volumes"


@pytest.fixture
def cluster(tmp_path: Path, volumes: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    """A release with backups, whose Jobs are processes here."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with fake_kubernetes(tmp_path / "config") as fake:
        fake.run_job = run_here
        for component, service in SERVICES.items():
            fake.add_workload("deployments", service, {"mlflow-admin-password": SECRET}, claim=service)
            add_backup(fake, tmp_path, component, volumes / component)
        fake.add_workload("deployments", "mlops-prefect-worker", {"prefect-auth-string": SECRET})
        fake.add_secret(SECRET, missing({}))
        yield fake


def add_backup(fake: FakeKubernetes, folder: Path, component: str, data: Path, recipient: str = "") -> None:
    env = {
        "MLOPS_BACKUP_COMPONENT": component,
        "MLOPS_BACKUP_ORIGIN": "team.mlops",
        "MLOPS_BACKUP_SECRET": SECRET,
        "MLOPS_BACKUP_DATA": str(data),
        "MLOPS_BACKUP_DESTINATION": str(folder / "backups"),
        "MLOPS_BACKUP_LAST": "7",
        "MLOPS_BACKUP_DAYS": "14",
        "MLOPS_BACKUP_RECIPIENT": recipient,
    }
    fake.add_cron_job(f"mlops-backup-{component}", env)


def run_here(container: dict[str, Any]) -> tuple[int, str]:
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    command = [sys.executable, "-m", "app.backup", *container["args"]]
    done = subprocess.run(command, env={**os.environ, **env}, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr  # as in a cluster: JSON and nothing else


def on_cluster(*words: str, answer: str = "") -> Result:
    return mlops(*words, "--namespace", "team", answer=answer)


def add_rows(volumes: Path) -> None:
    fill(volumes, 3)
    assert rows(volumes) == (13, 13)


def test_a_backup_is_made_listed_and_restored(cluster: FakeKubernetes, volumes: Path) -> None:
    made = on_cluster("backup")
    name = name_of(made)
    assert "10 runs" in made.output
    assert "10 flow run" in made.output
    assert "without passwords and keys" in made.output
    assert f"`mlops restore {name}` puts it back" in made.output
    listed = on_cluster("backup", "--list").output
    assert listed.startswith(f"{name}  mlflow 0.1 MB, prefect 0.1 MB")
    add_rows(volumes)
    restored = on_cluster("restore", name, "--yes")
    assert restored.exit_code == 0, restored.output
    assert rows(volumes) == (10, 10)
    assert (volumes / "mlflow" / "artifacts" / "model.onnx").read_bytes() == b"x" * 10
    for service in SERVICES.values():
        assert cluster.deployments[service]["spec"]["replicas"] == 1
        assert REPLICAS not in cluster.deployments[service]["metadata"].get("annotations", {})
    assert cluster.restarted() == {"mlops-prefect-worker"}, "it tells Prefect anew what it can run"


def test_a_dry_run_and_a_no_change_nothing(cluster: FakeKubernetes, volumes: Path) -> None:
    name = name_of(on_cluster("backup"))
    add_rows(volumes)
    dry = on_cluster("restore", name, "--dry-run")
    assert dry.exit_code == 0
    assert "would replace what mlflow and prefect-server have; nothing was changed" in dry.output
    declined = on_cluster("restore", name, answer="n\n")
    assert declined.exit_code == 1
    assert rows(volumes) == (13, 13)
    assert {d["spec"]["replicas"] for d in cluster.deployments.values()} == {1}


def test_one_damaged_archive_keeps_all_from_being_restored(
    cluster: FakeKubernetes, volumes: Path, tmp_path: Path
) -> None:
    name = name_of(on_cluster("backup"))
    add_rows(volumes)
    path = tmp_path / "backups" / f"{name}.prefect.tar.gz"
    path.write_bytes(path.read_bytes()[:-200])
    refused = on_cluster("restore", name, "--yes")
    assert refused.exit_code == 1
    assert "cut off" in refused.output
    assert rows(volumes) == (13, 13)
    assert {d["spec"]["replicas"] for d in cluster.deployments.values()} == {1}


def test_a_job_that_was_killed_leaves_the_service_stopped_until_it_is_restored_again(
    cluster: FakeKubernetes, volumes: Path
) -> None:
    name = name_of(on_cluster("backup"))
    add_rows(volumes)

    def killed(container: dict[str, Any]) -> tuple[int, str]:
        if container["args"][0] == "restore" and "prefect" in str(container["env"]):
            return 137, "half a line"
        return run_here(container)

    cluster.run_job = killed
    failed = on_cluster("restore", name, "--yes")
    assert failed.exit_code == 1
    assert "was ended before it was done" in failed.output
    assert "stopped until you restore again: mlops-prefect-server" in failed.output
    assert cluster.deployments["mlops-prefect-server"]["spec"]["replicas"] == 0
    assert cluster.deployments["mlops-mlflow"]["spec"]["replicas"] == 1
    cluster.run_job = run_here
    assert on_cluster("restore", name, "--yes").exit_code == 0
    assert rows(volumes) == (10, 10)
    assert cluster.deployments["mlops-prefect-server"]["spec"]["replicas"] == 1


def test_a_component_that_fails_does_not_keep_the_others_from_being_saved(
    cluster: FakeKubernetes, volumes: Path
) -> None:
    (volumes / "prefect" / "prefect.db").unlink()
    made = on_cluster("backup")
    assert made.exit_code == 1
    assert "has no prefect.db" in made.output
    assert "mlflow" in on_cluster("backup", "--list").output


def test_passwords_and_keys_come_back_by_the_key_that_never_was_in_the_cluster(
    cluster: FakeKubernetes, volumes: Path, tmp_path: Path
) -> None:
    recipient = new_identity(tmp_path / "key.txt")
    before = cluster.values(SECRET)
    (tmp_path / "secret").mkdir()
    for key, value in before.items():
        (tmp_path / "secret" / key).write_text(value)
    add_backup(cluster, tmp_path, "secrets", tmp_path / "secret", recipient)
    name = name_of(on_cluster("backup"))
    cluster.add_secret(SECRET, missing({}))
    assert on_cluster("restore", name, "--yes").exit_code == 0
    assert cluster.values(SECRET) != before, "nobody asked for them"
    new_identity(tmp_path / "other.txt")
    assert "does not open" in on_cluster("restore", name, "--yes", "--identity", str(tmp_path / "other.txt")).output
    restored = on_cluster("restore", name, "--yes", "--identity", str(tmp_path / "key.txt"))
    assert restored.exit_code == 0, restored.output
    assert cluster.values(SECRET) == before
    assert not [value for value in before.values() if len(value) > 8 and value in restored.output]


def test_what_is_not_set_up_or_not_there_is_said_with_what_to_do(cluster: FakeKubernetes) -> None:
    unknown = on_cluster("restore", "team.mlops-20200101T000000Z", "--yes")
    assert unknown.exit_code == 1
    assert "there is no backup" in unknown.output
    assert "is not the name of a backup" in on_cluster("restore", "latest", "--yes").output
    cluster.cronjobs.clear()
    for words in (["backup"], ["backup", "--list"], ["restore", "x"]):
        off = on_cluster(*words)
        assert off.exit_code == 1
        assert "--set backup.enabled=true" in off.output


def test_a_job_that_never_ran_is_said(cluster: FakeKubernetes) -> None:
    cluster.run_job = lambda _: (1, "")
    failed = on_cluster("backup")
    assert failed.exit_code == 1
    assert "was ended before it was done (BackoffLimitExceeded: x)" in failed.output
    cluster.refused.add("GET pods")
    assert "refused to list pods" in on_cluster("backup").output


def test_without_rights_the_error_says_which(cluster: FakeKubernetes) -> None:
    cluster.refused.add("POST jobs")
    refused = on_cluster("backup")
    assert refused.exit_code == 1
    assert "refused to create the Job mlops-backup-" in refused.output


# -- the demo's folder -------------------------------------------------------------------------------------------------


def test_a_folder_is_saved_and_restored(tmp_path: Path) -> None:
    (folder := tmp_path / "demo").mkdir()
    fill(folder, 5)
    place = ["--folder", str(folder), "--to", str(tmp_path / "kept")]
    made = mlops("backup", *place)
    assert made.exit_code == 0, made.output
    name = made.output.splitlines()[-1].split()[0]
    assert name in mlops("backup", "--list", *place).output
    fill(folder, 2)
    assert "nothing was changed" in mlops("restore", name, "--dry-run", *place).output
    with closing(lock_folder(folder)):
        assert "another demo is running" in mlops("restore", name, "--yes", *place).output
    assert rows(folder) == (7, 7)
    restored = mlops("restore", name, "--yes", *place)
    assert restored.exit_code == 0, restored.output
    assert rows(folder) == (5, 5)
    other = tmp_path / "new" / "demo"
    assert mlops("restore", name, "--yes", "--folder", str(other), *place[2:]).exit_code == 0
    assert rows(other) == (5, 5)


def test_a_folder_that_is_none_of_a_demo_is_refused(tmp_path: Path) -> None:
    refused = mlops("backup", "--folder", str(tmp_path), "--to", str(tmp_path / "kept"))
    assert refused.exit_code == 1
    assert "is not the folder of a demo" in refused.output
    assert "no backups in" in mlops("backup", "--list", "--folder", "x", "--to", str(tmp_path / "kept")).output


def test_a_new_key_is_made_once(tmp_path: Path) -> None:
    made = mlops("backup", "--new-identity", str(tmp_path / "key.txt"))
    assert made.output.startswith("age1")
    again = mlops("backup", "--new-identity", str(tmp_path / "key.txt"))
    assert again.exit_code == 1
    assert "is not there yet" in again.output
