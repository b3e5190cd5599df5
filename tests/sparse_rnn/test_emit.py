"""Emitted models are valid, smaller, and compute in stock onnxruntime what the sparse weights do."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.sparse_rnn.test_oracle import by_oracle

from sartor.tools.sparse_rnn.emit import DOMAIN, emit
from sartor.tools.sparse_rnn.encode import Coded, decode, encode
from sartor.tools.sparse_rnn.find import R, W, find_layers
from sartor.tools.sparse_rnn.pattern import Pattern, masks

F = np.float32
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def recurrent(kind: str, hidden: int, outputs: list[str], feed: dict[str, np.ndarray], **attributes: Any) -> ir.Model:
    """Make a model of one recurrent node."""
    names = ["x", "w", "r", "b" if "b" in feed else "", "", "h0" if "h0" in feed else ""]
    node = helper.make_node(kind, names, outputs, name="rnn", hidden_size=hidden, **attributes)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, feed[name].shape) for name in ("x", "h0") if name in feed
    ]
    weights = [numpy_helper.from_array(feed[name], name) for name in ("w", "r", "b") if name in feed]
    shapes = {"y": [5, 1, 2, hidden], "yh": [1, 2, hidden]}
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs if name]
    graph = helper.make_graph([node], "g", inputs, named, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ir.serde.deserialize_model(made)


def drawn(kind: str, hidden: int, width: int, optional: bool) -> dict[str, np.ndarray]:
    """Draw inputs and weights."""
    rng = np.random.default_rng(3)
    rows = GATES[kind] * hidden
    shapes = {"x": (5, 2, width), "w": (1, rows, width), "r": (1, rows, hidden)}
    shapes |= {"b": (1, 2 * rows), "h0": (1, 2, hidden)} if optional else {}
    return {name: rng.normal(0, 0.3, shape).astype(F) for name, shape in shapes.items()}


def coded_of(array: np.ndarray, gates: int, density: float) -> Coded:
    """Code what a pattern keeps."""
    (mask,) = masks([array[0]], gates, Pattern("balanced", (32,)), density, "gate")
    return encode(array, mask[None])


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("outputs", [["y", "yh"], ["", "yh"], ["y"]])
@pytest.mark.parametrize("also_input", [True, False])
def test_stock_onnxruntime_runs_it(kind: str, optional: bool, outputs: list[str], also_input: bool) -> None:
    feed = drawn(kind, 32, 8, optional)
    model = recurrent(kind, 32, outputs, feed)
    (layer,) = find_layers(model).layers
    coded = {R: coded_of(feed["r"], GATES[kind], 0.3)}
    if also_input:
        coded[W] = coded_of(feed["w"], GATES[kind], 0.5)
    emit(model, {layer: coded})
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto, full_check=True)
    assert [function.domain for function in proto.functions] == [DOMAIN]
    assert "r" not in {one.name for one in proto.graph.initializer}
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {name: array for name, array in feed.items() if name in ("x", "h0")})
    sparse = {"X": feed["x"], "W": decode(coded[W]) if also_input else feed["w"], "R": decode(coded[R])}
    sparse |= {"B": feed["b"], "initial_h": feed["h0"]} if optional else {}
    expected = dict(zip(["y", "yh"], by_oracle(kind, sparse, {}), strict=False))
    for ours, name in zip(found, [name for name in outputs if name], strict=True):
        np.testing.assert_allclose(ours, expected[name], atol=1e-5)


@pytest.mark.parametrize(("density", "smaller"), [(0.3, 3.5), (0.1, 7.0)])
def test_a_layer_is_smaller(density: float, smaller: float) -> None:
    feed = drawn("LSTM", 512, 8, optional=False)
    model = recurrent("LSTM", 512, ["y"], feed)
    before = len(ir.serde.serialize_model(model).SerializeToString())
    (layer,) = find_layers(model).layers
    emit(model, {layer: {R: coded_of(feed["r"], 4, density)}})
    assert before / len(ir.serde.serialize_model(model).SerializeToString()) >= smaller


def test_equal_layers_share_a_function() -> None:
    feed = drawn("GRU", 32, 32, optional=False)
    model = recurrent("GRU", 32, ["y"], feed)
    other = recurrent("GRU", 32, ["y"], feed)
    names = []
    for one in (model, other):
        (layer,) = find_layers(one).layers
        emit(one, {layer: {R: coded_of(feed["r"], 3, 0.3)}})
        names += [function.name for function in one.functions.values()]
    assert names[0] == names[1]
