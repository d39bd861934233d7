"""What each account may do in MLflow, asked of a server as the chart runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.clients.mlflow import CHALLENGER, PRODUCTION, REQUEST_TAG, Unauthorized
from app.registry import feedback_store, ledger, shadow_record
from app.registry.bundle import BUNDLE_TAG
from app.registry.challenger import challenge, end_challenge, shadow_of
from app.registry.shadow_record import Beside, ShadowCounts
from app.runtime.processes import Server
from app.testing.mlflow_accounts import client_of, password
from images.mlflow import account_rules

MODEL = "iris"
PREFIXES = ("api", "ajax-api")


@dataclass(frozen=True)
class Ids:
    """What the requests are about: made by the admin, as the platform makes it."""

    experiment: str  # of the model's runs
    promotions: str
    feedback: str
    run: str  # of the trainer, in the model's experiment
    registered_run: str  # that version 1 was made of
    decision: str  # a run of the ledger
    uri: str  # of the registered run's artifacts


@pytest.fixture(scope="module")
def ids(mlflow_with_accounts: Server) -> Iterator[Ids]:
    with client_of(mlflow_with_accounts, "trainer") as trainer, client_of(mlflow_with_accounts, "gate") as gate:
        experiment = trainer.ensure_experiment(MODEL)
        promotions, feedback = (str(trainer.find_experiment(name)) for name in ("promotions", "feedback"))
        registered = trainer.create_run(experiment, "registered", {})
        ledger.ensure_model(trainer, MODEL)
        uri = trainer.run(registered).artifact_uri
        trainer.write_artifact(f"{trainer.artifact_path(uri)}/model/MLmodel", b"as registered")
        trainer.create_version(MODEL, registered, f"{uri}/model", {BUNDLE_TAG: "as registered"})
        run = trainer.create_run(experiment, "open", {})
        decision = gate.create_run(promotions, "decision", {"mlops.kind": "decision"})
        yield Ids(experiment, promotions, feedback, run, registered, decision, uri)


def tags(**values: str) -> list[dict[str, str]]:
    return [{"key": key.replace("__", "."), "value": value} for key, value in values.items()]


VERSION = {"name": MODEL, "version": "1"}
ALIAS = {**VERSION, "alias": PRODUCTION}
SEQUENCE = tags(mlops__kind="sequence", mlops__model="new")
# Name -> method, route and body, in which {} are fields of Ids.
REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "search": ("GET", "registered-models/search", {}),
    "search runs": ("POST", "runs/search", {"experiment_ids": ["{experiment}"]}),
    "set alias": ("POST", "registered-models/alias", ALIAS),
    "delete alias": ("DELETE", "registered-models/alias", {"name": MODEL, "alias": CHALLENGER}),
    "tag model": ("POST", "registered-models/set-tag", {"name": MODEL, "key": "k", "value": "v"}),
    "untag model": ("DELETE", "registered-models/delete-tag", {"name": MODEL, "key": "k"}),
    "tag version": ("POST", "model-versions/set-tag", {**VERSION, "key": BUNDLE_TAG, "value": "another"}),
    "untag version": ("DELETE", "model-versions/delete-tag", {**VERSION, "key": "k"}),
    "describe version": ("PATCH", "model-versions/update", {**VERSION, "description": "d"}),
    "stage version": ("POST", "model-versions/transition-stage", {**VERSION, "stage": "Production"}),
    "delete version": ("DELETE", "model-versions/delete", VERSION),
    "rename model": ("POST", "registered-models/rename", {"name": MODEL, "new_name": "mine"}),
    "describe model": ("PATCH", "registered-models/update", {"name": MODEL, "description": "d"}),
    "delete model": ("DELETE", "registered-models/delete", {"name": MODEL}),
    "create model": ("POST", "registered-models/create", {"name": "new-{prefix}-{account}"}),
    "create model with a gate": (
        "POST",
        "registered-models/create",
        {"name": "gated", "tags": tags(mlops__definition="{}")},
    ),
    "create version": (
        "POST",
        "model-versions/create",
        {"name": MODEL, "run_id": "{registered_run}", "source": "{uri}/model"},
    ),
    "create run": ("POST", "runs/create", {"experiment_id": "{experiment}"}),
    "write run": ("POST", "runs/log-batch", {"run_id": "{run}", "tags": tags(a="b")}),
    "write registered run": ("POST", "runs/log-batch", {"run_id": "{registered_run}", "tags": tags(a="b")}),
    "delete run": ("POST", "runs/delete", {"run_id": "{run}"}),
    "begin ledger": ("POST", "runs/create", {"experiment_id": "{promotions}", "tags": SEQUENCE}),
    "write decision": ("POST", "runs/create", {"experiment_id": "{promotions}", "tags": tags(mlops__kind="decision")}),
    "write sequence": ("POST", "runs/log-parameter", {"run_id": "{decision}", "key": "move.000001", "value": "x"}),
    "write sequence by another spelling": (
        "POST",
        "runs/log-parameter",
        {"runId": "{decision}", "key": "move.000001", "value": "x"},
    ),
    "write sequence by its old name": (
        "POST",
        "runs/log-parameter",
        {"run_uuid": "{decision}", "key": "move.000001", "value": "x"},
    ),
    "write sequence by two names": (
        "POST",
        "runs/log-parameter",
        {"run_id": "{decision}", "run_uuid": "{run}", "key": "move.000001", "value": "x"},
    ),
    "create feedback": ("POST", "runs/create", {"experiment_id": "{feedback}"}),
    "create experiment": ("POST", "experiments/create", {"name": "new-{prefix}-{account}"}),
    "create experiment elsewhere": (
        "POST",
        "experiments/create",
        {"name": "elsewhere", "artifact_location": "mlflow-artifacts:/1"},
    ),
    "delete experiment": ("POST", "experiments/delete", {"experiment_id": "{experiment}"}),
    "create user": ("POST", "users/create", {"username": "mallory", "password": "mallory-mallory"}),
    "take over user": ("PATCH", "users/update-password", {"username": "gate", "password": "mallory-mallory"}),
    "create webhook": (
        "POST",
        "webhooks",
        {"name": "w", "url": "https://example.com", "events": [{"entity": "MODEL_VERSION", "action": "CREATED"}]},
    ),
}
TRICKS = {
    name for name in REQUESTS if name.startswith("write sequence by ")
}  # refused by MLflow itself, or by the rules
READS = {"search", "search runs"}
ALLOWED = {
    "trainer": READS
    | {"create model", "create version", "create run", "write run", "begin ledger", "create experiment"},
    "gate": READS | {"set alias", "delete alias", "tag model", "begin ledger", "write decision", "write sequence"},
    "reader": READS | {"create feedback"},
}


def ask(server: Server, account: str, method: str, path: str, body: Any = None) -> httpx.Response:
    options: dict[str, Any] = {"params": body} if method == "GET" else {"json": body}
    return httpx.request(method, f"{server.uri}/{path}", auth=(account, password(account)), timeout=30, **options)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("account", ALLOWED)
def test_each_account_may_do_what_it_is_there_for_and_nothing_else(
    mlflow_with_accounts: Server, ids: Ids, account: str, prefix: str
) -> None:
    done = set()
    values = {**vars(ids), "prefix": prefix, "account": account}
    for name, (method, route, body) in REQUESTS.items():
        text = json.dumps(body)
        for key, value in values.items():
            text = text.replace(f"{{{key}}}", value)
        answer = ask(mlflow_with_accounts, account, method, f"{prefix}/2.0/mlflow/{route}", json.loads(text))
        assert answer.status_code < 500, f"{name}: {answer.status_code} {answer.text}"
        if answer.is_success:
            done.add(name)
        elif answer.status_code == 403:
            assert f"`{account}` may not do this: " in answer.json()["message"], name
        else:
            assert name in TRICKS, f"{name} is not refused: {answer.status_code} {answer.text}"
    assert done - (TRICKS if account == "gate" else set()) == ALLOWED[account]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("account", ALLOWED)
def test_nobody_asks_by_graphql_or_other_ways_in(
    mlflow_with_accounts: Server, ids: Ids, account: str, prefix: str
) -> None:
    server = mlflow_with_accounts
    query = {"query": 'mutation { testMutation(inputString: "x") { echoString } }'}
    upload = f"mlflow/upload-artifact?run_uuid={ids.registered_run}&path=model/MLmodel"
    registered = f"{ids.experiment}/{ids.registered_run}/artifacts/model/MLmodel"
    for method, path, body in (
        ("POST", "graphql", query),
        ("GET", "graphql", query),
        ("POST", f"{prefix}/2.0/{upload}", {}),
        ("PUT", f"{prefix}/2.0/mlflow-artifacts/artifacts/{registered}", {}),
        ("PUT", f"{prefix}/2.0/mlflow-artifacts/artifacts/{registered.replace('model', '%256dodel')}", {}),
        ("PUT", f"{prefix}/2.0/mlflow-artifacts/artifacts/{ids.experiment}/{ids.run}/artifacts/%2e%2e/x", {}),
        ("PUT", f"{prefix}/2.0/mlflow-artifacts/artifacts/{ids.promotions}/{ids.run}/artifacts/x", {}),
        ("DELETE", f"{prefix}/2.0/mlflow-artifacts/artifacts/{registered}", {}),
        ("POST", f"{prefix}/2.0/mlflow-artifacts/mpu/create/{registered}", {"path": "x", "num_parts": 1}),
        ("POST", f"{prefix}/3.0/mlflow/users/permissions/grant", {"username": account}),
        ("POST", f"{prefix}/3.0/mlflow/roles/create", {"name": "r"}),
    ):
        answer = ask(server, account, method, path, body)
        assert answer.status_code == 403, f"{method} {path}: {answer.status_code} {answer.text}"
    with client_of(server, "admin") as admin:
        assert admin.read_artifact(f"{admin.artifact_path(ids.uri)}/model/MLmodel") == b"as registered"


def test_artifacts_are_written_by_the_trainer_to_its_runs_and_by_the_reader_to_feedback(
    mlflow_with_accounts: Server, ids: Ids
) -> None:
    with client_of(mlflow_with_accounts, "trainer") as trainer, client_of(mlflow_with_accounts, "reader") as reader:
        path = f"{trainer.artifact_path(trainer.run(ids.run).artifact_uri)}/evaluation/a.json"
        trainer.write_artifact(path, b"{}")
        assert reader.read_artifact(path) == b"{}"
        with pytest.raises(Unauthorized, match="it writes the experiment feedback alone"):
            reader.write_artifact(path, b"[]")
        row = {"id": "1", "time": 1.0, "model": MODEL, "version": "1", "features": {}, "prediction": "a", "label": "a"}
        folder = feedback_store.store(reader, MODEL, [row]).rsplit("/", 1)[0]
        assert feedback_store.read(trainer, MODEL)
        with pytest.raises(Unauthorized, match="the experiment feedback is written by the account `reader`"):
            trainer.write_artifact(f"{folder}/forged.json", b"[]")


def test_the_reader_keeps_what_challengers_counted_and_the_gate_reads_it(
    mlflow_with_accounts: Server, ids: Ids
) -> None:
    with client_of(mlflow_with_accounts, "reader") as reader, client_of(mlflow_with_accounts, "gate") as gate:
        beside = Beside(MODEL, "2", "1", reader.model(MODEL).tags[ledger.SEQUENCE_TAG])
        run = shadow_record.begin(reader, beside, "a replica")
        shadow_record.write(reader, run, ShadowCounts(agree=3), ShadowCounts())
        assert shadow_record.read(gate, MODEL, "2", "1") == ShadowCounts(agree=3)
        for account in ("trainer", "gate"):
            with client_of(mlflow_with_accounts, account) as other, pytest.raises(Unauthorized):
                shadow_record.write(other, run, ShadowCounts(agree=4), ShadowCounts())


def test_the_gate_begins_and_ends_challenges(mlflow_with_accounts: Server, ids: Ids) -> None:
    server = mlflow_with_accounts
    with client_of(server, "trainer") as trainer, client_of(server, "gate") as gate:
        run = trainer.create_run(ids.experiment, "another", {})
        version = trainer.create_version(MODEL, run, f"{trainer.run(run).artifact_uri}/model", {}).version
        gate.set_alias(MODEL, PRODUCTION, "1")
        with pytest.raises(Unauthorized):
            challenge(trainer, MODEL, version, 1.0)
        challenge(gate, MODEL, version, 1.0, who="ada")
        assert shadow_of(trainer.model(MODEL)) == (version, 1.0)
        end_challenge(gate, MODEL, who="ada")
        assert shadow_of(trainer.model(MODEL)) is None


def test_without_a_password_nothing_is_answered(mlflow_with_accounts: Server) -> None:
    for account, secret in (("trainer", "wrong"), ("nobody", "x")):
        url = f"{mlflow_with_accounts.uri}/api/2.0/mlflow/registered-models/search"
        assert httpx.get(url, auth=(account, secret)).status_code == 401
    assert httpx.get(f"{mlflow_with_accounts.uri}/health").is_success


def test_the_admin_may_do_everything(mlflow_with_accounts: Server, ids: Ids) -> None:
    with client_of(mlflow_with_accounts, "admin") as admin:
        admin.set_alias(MODEL, PRODUCTION, "1")
        admin.create_model("made-by-hand", {"any": "tag"})


def test_the_image_uses_the_names_of_the_platform() -> None:
    assert account_rules.FEEDBACK == feedback_store.EXPERIMENT
    assert account_rules.PROMOTIONS == ledger.PROMOTIONS_EXPERIMENT
    assert account_rules.SEQUENCE_TAG == ledger.SEQUENCE_TAG
    assert account_rules.REQUEST_TAG == REQUEST_TAG
