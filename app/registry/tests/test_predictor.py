from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from app.registry.predictor import FEW, OnnxPredictor
from app.vocabulary import Feature

EDGES = [0.0, -0.0, 1.0, -1.0, 1e-6, 9.999999e-7, 9999999.0, 1e7, 1e-45, 3.4e38, 0.1, 2 / 3, float("inf"), float("nan")]


@pytest.fixture(scope="module")
def echo() -> OnnxPredictor:
    """A model whose prediction is its feature, as a float32."""
    shape = [None, 1]
    feature, value = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("rows", "value"))
    graph = helper.make_graph([helper.make_node("Identity", ["rows"], ["value"])], "echo", [feature], [value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return OnnxPredictor(model.SerializeToString(), [Feature("x", "float")])


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.floats(width=32), st.floats(0, 1, width=32), st.sampled_from(EDGES)), min_size=1, max_size=3 * FEW
    )
)
def test_what_a_float32_holds_is_answered_few_values_or_many(echo: OnnxPredictor, values: list[float]) -> None:
    expected = [float(f"{np.float32(value):.7g}") for value in values]
    answered = echo.predict([[value] for value in values]).labels
    assert list(map(repr, answered)) == list(map(repr, expected))
