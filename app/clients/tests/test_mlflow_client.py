"""What is created through an MLflow that fails at the first try: it is there once."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from app.clients.mlflow import PRODUCTION, MlflowClient, MlflowUnavailable
from app.registry.ledger import Ledger, ensure_model
from app.registry.promotion import history, promote
from app.testing.definitions import IRIS
from app.testing.proxy import LosingProxy, serving

CREATE_RUN = "/api/2.0/mlflow/runs/create"
CREATE_MODEL = "/api/2.0/mlflow/registered-models/create"
CREATE_EXPERIMENT = "/api/2.0/mlflow/experiments/create"
arrives = pytest.mark.parametrize("arrives", [False, True], ids=["the request is lost", "the answer is lost"])


@arrives
def test_a_run_that_is_created_again_is_there_once(registry: MlflowClient, arrives: bool) -> None:
    experiment, name = f"e{uuid4().hex}", f"r{uuid4().hex}"
    lost = {CREATE_RUN: 1 if arrives else 2, CREATE_EXPERIMENT: 1}
    with serving(LosingProxy(registry.uri, lost=lost, arrives=arrives)) as proxy:
        with MlflowClient(proxy.url, retry_for=30) as client:
            run = client.create_run(client.ensure_experiment(experiment), name, {"kind": "test"})
        assert proxy.lost == {CREATE_RUN: 0, CREATE_EXPERIMENT: 0}
    assert [found.run_id for found in registry.search_runs(experiment, {"kind": "test"})] == [run]


def test_without_time_for_another_try_it_is_an_error(registry: MlflowClient) -> None:
    experiment = registry.ensure_experiment(f"e{uuid4().hex}")
    with (
        serving(LosingProxy(registry.uri, lost={CREATE_RUN: 1})) as proxy,
        MlflowClient(proxy.url) as client,
        pytest.raises(MlflowUnavailable, match="503"),
    ):
        client.create_run(experiment, "r", {})


@arrives
def test_a_model_whose_registration_is_tried_again_keeps_its_sequence(
    registry: MlflowClient, name: str, arrives: bool
) -> None:
    losing = LosingProxy(registry.uri, lost={CREATE_MODEL: 1}, arrives=arrives)
    with serving(losing) as proxy, MlflowClient(proxy.url, retry_for=30) as client:
        ensure_model(client, name)
    sequences = registry.search_runs("promotions", {"mlops.kind": "sequence", "mlops.model": name})
    assert [run.run_id for run in sequences] == [Ledger(registry, name).sequence]


@arrives
def test_a_promotion_that_passed_is_not_lost_with_a_503(
    registry: MlflowClient, name: str, new_version: Any, arrives: bool
) -> None:
    new_version()
    losing = LosingProxy(registry.uri, lost={CREATE_RUN: 1}, arrives=arrives)
    with serving(losing) as proxy, MlflowClient(proxy.url, retry_for=30) as client:
        assert promote(client, name, definition=IRIS, who="ada").outcome == "promoted"
    production = registry.version_by_alias(name, PRODUCTION)
    assert production
    assert production.version == "1"
    assert [decision.outcome for decision in history(registry, name)] == ["promoted"]
