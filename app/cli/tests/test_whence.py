"""`mlops whence`: from a prediction's id back to its training."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from app.api.prediction_id import PredictionIds
from app.cli.main import main
from app.clients.mlflow import MlflowClient
from app.registry.prediction_id import model_digest
from app.registry.promotion import promote
from app.testing.definitions import IRIS


def whence(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["whence", *arguments])


def made(name: str, version: str) -> str:
    (prediction_id,) = PredictionIds("mlops-model-api-x7k2p").make(model_digest(name), version, 1)
    return prediction_id


def test_an_id_leads_to_version_training_and_decision(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version()
    promote(registry, name, "1", definition=IRIS, who="ada", why="the first")
    answered = whence(made(name, "1"), "--json")
    assert answered.exit_code == 0, answered.output
    source = json.loads(answered.output)
    version = registry.version(name, "1")
    assert (source["model"], source["version"], source["replica"]) == (name, "1", "x7k2p")
    assert source["run_id"] == version.run_id
    assert source["serving"] == version.tags["serving"]
    assert source["promotion"]["who"] == "ada"

    printed = whence(made(name, "1")).output
    assert f"by {name} version 1, replica x7k2p" in printed
    assert "by ada: the first" in printed
    assert version.run_id in printed


def test_a_version_that_never_was_in_service_says_so(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version()
    assert "by a decision that the ledger does not have" in whence(made(name, "1")).output


def test_the_decision_is_the_one_before_the_prediction(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version()
    promote(registry, name, "1", definition=IRIS, who="ada")
    before = made(name, "1")
    new_version()
    promote(registry, name, "2", definition=IRIS, who="dan", canary=0.1)
    assert json.loads(whence(made(name, "2"), "--json").output)["promotion"]["who"] == "dan"
    promote(registry, name, "2", definition=IRIS, who="bob")
    promote(registry, name, "1", definition=IRIS, who="eve")
    assert json.loads(whence(before, "--json").output)["promotion"]["who"] == "ada"
    assert json.loads(whence(made(name, "1"), "--json").output)["promotion"]["who"] == "eve"


@pytest.mark.parametrize("text", ["", "iris", "47612.1.cf7nx", "47612.0.cf7nx.1a21fbe8d03.bc6", "zzzzz.1.a.1.1"])
def test_what_is_no_id_is_refused_with_an_example(registry: MlflowClient, text: str) -> None:
    refused = whence(text)
    assert refused.exit_code == 2
    assert "is no prediction id; one looks like" in refused.output


def test_an_id_of_no_version_here_says_what_may_be(registry: MlflowClient, name: str, new_version: Any) -> None:
    new_version()
    for unknown in (made("nothing", "1"), made(name, "2")):
        refused = whence(unknown)
        assert refused.exit_code == 1
        assert "it was deleted, or the prediction is of another platform" in refused.output


def test_a_prediction_from_before_the_version_is_not_its(registry: MlflowClient, name: str, new_version: Any) -> None:
    early = made(name, "1")
    new_version()
    assert whence(early).exit_code == 1
