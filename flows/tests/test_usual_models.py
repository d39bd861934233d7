"""Usual models of every kind pass the strict loader, and its list of operators is no longer than they need."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from skops import io as skops

from app.registry.onnx_file import OPERATORS
from app.registry.skops_file import read_estimator
from app.testing.zoo import NUMBERS, ZOO, fitted
from app.vocabulary import Feature, Task
from flows.bundle_writer import served_estimator
from flows.onnx_export import export

# Of no model in the zoo: of an MLP for three classes, of KMeans, and of neighbours weighted by distance (which differ
# for the training rows).
ELSEWHERE = {("", name) for name in ("ReduceMax", "Gemm", "Reciprocal")}


@pytest.mark.parametrize("name", ZOO)
def test_a_usual_model_predicts_the_same_after_it_was_read(name: str, tmp_path: Path) -> None:
    estimator, rows = fitted(name)
    skops.dump(served_estimator(estimator), tmp_path / "estimator.skops")
    read = read_estimator(tmp_path / "estimator.skops")
    np.testing.assert_array_equal(read.predict(rows), estimator.predict(rows))
    if hasattr(estimator, "predict_proba"):
        np.testing.assert_array_equal(read.predict_proba(rows), estimator.predict_proba(rows))


def _operators(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    for node in graph.node:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            yield from _operators(attribute.g)


def test_serving_knows_exactly_the_operators_that_exports_have() -> None:
    used = set()
    for name in ZOO:
        task: Task = "classification" if name.startswith("classification") else "regression"
        if name.endswith(("chain", "local outlier factor")):
            continue  # of two targets, and neither a classification nor a regression
        estimator, rows = fitted(name)
        features = [Feature(column, "double" if column in NUMBERS else "string") for column in map(str, rows)]
        model, reason = export(served_estimator(estimator), features, rows, task)
        assert "not among those that training writes" not in reason or "ZipMap" in reason, name  # a list of dicts
        used |= set(_operators(model.graph)) if model else set()
    known = {(domain, operator) for domain, operators in OPERATORS.items() for operator in operators}
    assert used <= known
    assert known - used == ELSEWHERE
