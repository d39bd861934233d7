"""`mlops credentials`: what it makes, what it never changes, and what it restarts."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from app.api.settings import MIN_KEY
from app.cli.credentials import BY_KEY, CREDENTIALS, create, missing, refusal, rotated, run
from app.cli.main import main
from app.clients.kubernetes import KubernetesClient, Workload
from app.runtime.api_keys import is_key, key_digest
from app.runtime.processes import free_port
from app.testing.docs import ROOT
from app.testing.kubernetes import FakeKubernetes, fake_kubernetes, write_kubeconfig

NAME = "ours"
RANDOM = [c.key for c in CREDENTIALS if not c.source and c.key != "mlflow-admin-username"]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with fake_kubernetes(tmp_path / "config") as cluster:
        yield cluster


def credentials(command: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["credentials", command, "--namespace", "team", "--name", NAME, *words])


# -- the values ------------------------------------------------------------------------------------------------------


def test_values_are_long_random_and_all_different() -> None:
    values = missing({})
    assert list(values) == list(BY_KEY)
    random = {values[key].removeprefix("admin:") for key in RANDOM}
    assert len(random) == len(RANDOM)
    assert not random & {value.removeprefix("admin:") for value in missing({}).values()}
    for value in random:
        is_password = re.fullmatch(r"[A-Za-z0-9]{32}", value)
        assert is_password or is_key(value), "it is quoted nowhere, in a database's address neither"


def test_values_that_are_made_from_others_fit_them() -> None:
    values = missing({})
    assert values["mlflow-admin-username"] == values["prefect-username"] == "admin"
    assert values["prefect-auth-string"] == f"admin:{values['prefect-password']}"
    digest = base64.b64encode(hashlib.sha1(values["pages-password"].encode()).digest()).decode()  # noqa: S324
    assert values["pages-users"] == f"admin:{{SHA}}{digest}"


def test_the_key_of_the_prediction_ids_is_long_enough_for_the_api() -> None:
    assert len(missing({})["feedback-key"].encode()) >= MIN_KEY


def test_a_password_outlives_the_new_name_of_its_key() -> None:
    """Before, it was of Prometheus alone; people have it."""
    there = missing({}) | {"prometheus-password": "known"}
    del there["pages-password"], there["pages-users"]
    new = missing(there)
    assert new["pages-password"] == "known"
    assert new["pages-users"] == missing(there | {"pages-password": "known"})["pages-users"]
    assert rotated(there | new, ["pages-password"])["pages-password"] != "known"


def test_only_what_lacks_is_added_and_it_fits_what_is_there() -> None:
    assert missing(missing({})) == {}
    there = missing({}) | {"prefect-auth-string": "ops:a:b", "feedback-key": "", "of-yours": "x"}
    del there["prefect-username"], there["prefect-password"]
    new = missing(there)
    assert set(new) == {"prefect-username", "prefect-password", "feedback-key"}
    assert (new["prefect-username"], new["prefect-password"]) == ("ops", "a:b")


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        ("pages-password", {"pages-password", "pages-users"}),
        ("api-key", {"api-key", "api-client-admin"}),
        ("worker-api-key", {"worker-api-key", "api-client-worker"}),
        ("prefect-auth-string", {"prefect-auth-string", "prefect-username", "prefect-password"}),
        ("mlflow-admin-password", {"mlflow-admin-password"}),
    ],
)
def test_a_rotation_changes_a_key_and_what_is_made_from_it(key: str, changed: set[str]) -> None:
    before = missing({}) | {"prefect-auth-string": "ops:old"}
    new = rotated(before, [key])
    assert set(new) == changed
    assert new[key] != before[key]
    after = before | new
    assert after["prefect-auth-string"].startswith("ops:"), "the account stays"
    if key == "prefect-auth-string":
        assert after[key] == f"ops:{new['prefect-password']}"


GRAFANA = {"grafana-admin-password", "grafana-secret-key"}
VOLUME = Workload("deployment", "grafana", frozenset((NAME, key) for key in GRAFANA), has_volume=True)
NO_VOLUME = Workload("deployment", "grafana", VOLUME.reads)


@pytest.mark.parametrize("workloads", [[], [NO_VOLUME], [VOLUME]], ids=["no grafana", "no volume", "a volume"])
def test_what_another_value_would_break_is_refused(workloads: list[Workload]) -> None:
    refused = {key for key in BY_KEY if refusal(key, NAME, workloads)}
    made = {credential.key for credential in CREDENTIALS if credential.source}
    kept = GRAFANA if workloads == [VOLUME] else set()
    assert refused == {"postgres-password", "mlflow-admin-username", *made, *kept}
    assert not refusal("grafana-secret-key", "another", workloads)


def test_the_docs_have_every_key() -> None:
    security, operations = ((ROOT / "docs" / f"{page}.md").read_text() for page in ("security", "operations"))
    for key in BY_KEY:
        assert f"`{key}`" in security, f"docs/security.md: {key}"
    for key in RANDOM:
        assert f"`{key}`" in operations, f"docs/operations.md: {key}"


# -- in a cluster ----------------------------------------------------------------------------------------------------


def test_the_secret_is_made_once_and_stays(cluster: FakeKubernetes) -> None:
    done = credentials("create")
    assert done.output == f"made the Secret {NAME} with {len(BY_KEY)} keys\n"
    made = cluster.values(NAME)
    assert set(made) == set(BY_KEY)
    labels = cluster.secrets[NAME]["metadata"]["labels"]
    assert "app.kubernetes.io/instance" not in labels, "Argo CD would take it for one of its own, and remove it"
    assert credentials("create").output == f"the Secret {NAME} has all keys: nothing was changed\n"
    assert cluster.values(NAME) == made


def test_a_secret_of_an_earlier_version_keeps_its_values(cluster: FakeKubernetes) -> None:
    old = missing({}) | {"of-yours": "x"}
    del old["retrainer-token"]
    cluster.add_secret(NAME, old)
    assert credentials("create").output == f"added to the Secret {NAME}: retrainer-token\n"
    new = cluster.values(NAME)
    assert len(new.pop("retrainer-token")) == 32
    assert new == old


@pytest.mark.parametrize("there", [None, {"feedback-key": "old"}], ids=["none", "one with a key"])
def test_of_two_at_once_one_makes_the_values(cluster: FakeKubernetes, there: dict[str, str] | None) -> None:
    if there:
        cluster.add_secret(NAME, there)
    cluster.together = threading.Barrier(2)

    def make() -> str:
        return run(KubernetesClient("team"), lambda api: create(api, NAME))

    with ThreadPoolExecutor(2) as pool:
        first, second = sorted(future.result() for future in [pool.submit(make), pool.submit(make)])
    assert cluster.conflicts == 1
    assert first.startswith("added to" if there else "made")
    assert second.endswith("nothing was changed")
    assert set(cluster.values(NAME)) == set(BY_KEY)
    assert cluster.values(NAME).items() >= (there or {}).items()


def test_a_rotation_restarts_what_reads_the_keys_and_nothing_else(cluster: FakeKubernetes) -> None:
    before = missing({}) | {"of-yours": "x"}
    cluster.add_secret(NAME, before)
    cluster.add_workload("deployments", "ingress", {"pages-users": NAME})
    cluster.add_workload("deployments", "mlflow", {"mlflow-admin-password": NAME}, claim="mlflow")
    cluster.add_workload("deployments", "other", {"pages-users": "theirs"})
    cluster.add_workload("statefulsets", "stateful", {"pages-password": NAME}, claim="data")
    done = credentials("rotate", "pages-password")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        f"new values in the Secret {NAME}: pages-password, pages-users",
        "restarted deployment/ingress",
        "restarted statefulset/stateful",
    ]
    after = cluster.values(NAME)
    assert {key for key in after if after[key] != before[key]} == {"pages-password", "pages-users"}
    assert set(after) == set(before)
    assert cluster.restarted() == {"ingress", "stateful"}
    assert not [value for value in after.values() if len(value) > 20 and value in done.output]


def test_a_new_key_of_the_api_restarts_who_sends_it_and_not_the_api(cluster: FakeKubernetes) -> None:
    """The API reads the hash as a file, and follows it."""
    cluster.add_secret(NAME, missing({}))
    cluster.add_workload("deployments", "ui", {"api-key": NAME})
    cluster.add_workload("deployments", "prefect-worker", {"worker-api-key": NAME})
    cluster.add_workload("deployments", "model-api", {"feedback-key": NAME}, mounts=NAME)
    done = credentials("rotate", "api-key")
    assert done.output.splitlines() == [
        f"new values in the Secret {NAME}: api-key, api-client-admin",
        "restarted deployment/ui",
    ]
    assert key_digest(cluster.values(NAME)["api-key"]) in cluster.values(NAME)["api-client-admin"]


def test_all_is_all_that_can_be_rotated(cluster: FakeKubernetes) -> None:
    before = missing({})
    cluster.add_secret(NAME, before)
    cluster.add_workload("deployments", "grafana", {"grafana-admin-password": NAME}, claim="grafana")
    assert credentials("rotate", "--all").exit_code == 0
    after = cluster.values(NAME)
    same = {key for key in before if after[key] == before[key]}
    # nobody has a volume with the other key of Grafana
    assert same == {"mlflow-admin-username", "prefect-username", "grafana-admin-password", "postgres-password"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["postgres-password"], "Error: postgres-password cannot be rotated: a database keeps the password"),
        (["feedback-key", "postgres-password"], "Error: postgres-password cannot be rotated"),
        (["pages-users"], "Error: pages-users is made from pages-password; rotate pages-password"),
        (["nothing"], "Error: there is no key nothing; the keys are: mlflow-admin-username"),
        ([], "Error: name the keys to rotate, or say --all; the keys are:"),
        (["feedback-key", "--all"], "Error: name the keys to rotate, or say --all"),
    ],
)
def test_a_rotation_that_is_refused_changes_nothing(cluster: FakeKubernetes, words: list[str], message: str) -> None:
    before = missing({})
    cluster.add_secret(NAME, before)
    done = credentials("rotate", *words)
    assert done.exit_code in (1, 2)
    assert message in done.output
    assert cluster.values(NAME) == before


def test_a_secret_that_others_keep_is_not_rotated(cluster: FakeKubernetes) -> None:
    done = credentials("rotate", "feedback-key")
    assert "the namespace team has no Secret ours; `mlops credentials create` makes it" in done.output
    cluster.add_secret(NAME, missing({}), owner="vault")
    done = credentials("rotate", "feedback-key")
    assert done.exit_code == 1
    assert "is kept by ExternalSecret/vault, which would undo the change" in done.output


def test_who_may_not_is_told_so(cluster: FakeKubernetes) -> None:
    cluster.refused = {"GET secrets"}
    done = credentials("create")
    assert done.exit_code == 1
    assert "Kubernetes refused to read the Secret ours (403). Secrets is forbidden." in done.output
    assert "whose account may read the Secret ours in the namespace team" in done.output


def test_pods_that_were_not_restarted_are_named(cluster: FakeKubernetes) -> None:
    cluster.add_secret(NAME, missing({}))
    cluster.add_workload("deployments", "model-api", {"feedback-key": NAME})
    cluster.refused = {"PATCH deployments"}
    done = credentials("rotate", "feedback-key")
    assert done.exit_code == 1
    assert "the Secret has new values" in done.output
    assert "run `kubectl -n team rollout restart deployment/model-api`" in done.output


def test_without_kubernetes_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    write_kubeconfig(tmp_path / "config", f"http://127.0.0.1:{free_port()}")
    assert "Error: Kubernetes does not answer" in credentials("create").output
    done = credentials("create", "--context", "nowhere")
    assert "Set KUBECONFIG to a kubeconfig file, and --context to one of its contexts." in done.output


def test_it_waits_for_kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    port = free_port()
    write_kubeconfig(tmp_path / "config", f"http://127.0.0.1:{port}")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(credentials, "create", "--wait", "60")
        with fake_kubernetes(tmp_path / "later", port) as cluster:
            assert waiting.result().exit_code == 0
            assert NAME in cluster.secrets


def test_a_printed_secret_needs_no_cluster() -> None:
    first, second = (yaml.safe_load(credentials("print").output) for _ in range(2))
    assert (first["kind"], first["metadata"]["name"], first["metadata"]["namespace"]) == ("Secret", NAME, "team")
    assert set(first["stringData"]) == set(BY_KEY)
    assert not {first["stringData"][key] for key in RANDOM} & {second["stringData"][key] for key in RANDOM}
