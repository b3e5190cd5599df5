"""Recurrent nodes are found in nested graphs, with weights behind chains of constants, and others are named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from sartor.share.artifact import read_model
from sartor.share.errors import InputRefusedError
from sartor.tools.sparse_rnn.find import find_layers

RNG = np.random.default_rng(0)
W, R, B = (RNG.standard_normal(shape).astype(np.float32) for shape in ((1, 16, 3), (1, 16, 4), (1, 32)))
X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["t", "b", 3])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)


def model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], inputs: list[onnx.ValueInfoProto]) -> ir.Model:
    """Make a model from nodes."""
    graph = helper.make_graph(
        nodes, "g", inputs, [Y], [numpy_helper.from_array(array, name) for name, array in weights.items()]
    )
    return ir.serde.deserialize_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def lstm(*inputs: str, **attributes: object) -> onnx.NodeProto:
    """Make an LSTM of four units."""
    return helper.make_node("LSTM", inputs, ["y"], name="rnn", hidden_size=4, **attributes)


def test_weights_behind_a_chain() -> None:
    """Exporters slice, transpose and join what they have stored."""
    nodes = [
        helper.make_node("Transpose", ["rt"], ["r0"], perm=[1, 0]),
        helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([0]))),
        helper.make_node("Unsqueeze", ["r0", "axes"], ["r"]),
        helper.make_node("Cast", ["w16"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["b0", "b1"], ["b"], axis=1),
        lstm("x", "w", "r", "b"),
    ]
    weights = {"rt": R[0].T.copy(), "w16": W.astype(np.float16), "b0": B[:, :16], "b1": B[:, 16:]}
    (layer,) = find_layers(model(nodes, weights, [X])).layers
    assert np.array_equal(layer.weights.r, R)
    assert np.array_equal(layer.weights.w, W.astype(np.float16).astype(np.float32))
    assert np.array_equal(layer.weights.bias, B)
    assert (layer.name, layer.hidden, layer.cell.kind, layer.batch_first) == ("rnn", 4, "LSTM", False)


def test_a_node_inside_a_branch_with_weights_outside() -> None:
    branch = helper.make_graph([lstm("x", "w", "r", clip=0.5, direction="reverse")], "then", [], [Y])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "else", [],
                              [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])  # fmt: skip
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=other)
    (layer,) = find_layers(model([node], {"w": W, "r": R}, [X, condition])).layers
    assert (layer.cell.clip, layer.cell.direction) == (0.5, "reverse")
    assert np.array_equal(layer.weights.r, R)


def test_computed_weights_and_nodes_left_out_are_named() -> None:
    given = helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 16, 4])
    found = find_layers(model([lstm("x", "w", "r")], {"w": W}, [X, given]))
    assert (found.layers, found.refused) == ((), {"rnn": "its recurrent weight R is computed from inputs of the model"})
    left_out = find_layers(model([lstm("x", "w", "r")], {"w": W, "r": R}, [X]), ("decoder/*",))
    assert (left_out.layers, left_out.refused) == ((), {"rnn": "--nodes leaves it out"})


def test_a_projection_is_refused() -> None:
    """torch writes a recurrent weight that is narrower than its hidden state."""
    with pytest.raises(InputRefusedError, match=r"R of LSTM rnn has the shape \[1, 16, 2\].*proj_size"):
        find_layers(model([lstm("x", "w", "r")], {"w": W, "r": R[:, :, :2]}, [X]))


@pytest.mark.skipif("SARTOR_DATA" not in os.environ, reason="SARTOR_DATA is not set")
def test_a_real_detector() -> None:
    path = Path(os.environ["SARTOR_DATA"], "speech", "silero_vad_16k_op15.onnx")
    found = find_layers(read_model(str(path)).ir)
    assert [(layer.hidden, layer.cell.kind) for layer in found.layers] == [(128, "LSTM")] * 2
    assert not found.refused
