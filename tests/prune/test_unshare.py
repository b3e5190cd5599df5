"""Parameters that say nothing do not tie layers together, and numbers behind chains of constants are known."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.kits import prune_kit as kit

SIZE = 8


def normalised(scale: np.ndarray) -> onnx.ModelProto:
    """Return three convolutions; two are normalised by one scale, and something is padded."""
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.standard_normal((SIZE, 3, 1, 1)),
        "w1": rng.standard_normal((SIZE, SIZE, 1, 1)),
        "w2": rng.standard_normal((2, SIZE, 1, 1)),
        "scale": scale,
        "zeros": np.zeros(SIZE),
    }
    held = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    held.append(numpy_helper.from_array(np.array([1, 1], np.int64), "ones"))
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"]),
        helper.make_node("InstanceNormalization", ["a", "scale", "zeros"], ["b"]),
        *chained_pads(),
        helper.make_node("Pad", ["b", "pads"], ["c"], mode="reflect"),
        helper.make_node("Conv", ["c", "w1"], ["d"]),
        helper.make_node("InstanceNormalization", ["d", "scale", "zeros"], ["e"]),
        helper.make_node("Conv", ["e", "w2"], ["y"]),
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2, 7, 7])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 5, 5])
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def chained_pads() -> list[onnx.NodeProto]:
    """Return pads of one on both sides of the last two axes as the older exporter writes them."""
    zero = numpy_helper.from_array(np.zeros(1, np.int64))
    return [
        helper.make_node("Constant", [], ["shape"], value_ints=[2]),
        helper.make_node("ConstantOfShape", ["shape"], ["none"], value=zero),
        helper.make_node("Concat", ["none", "ones", "none", "ones"], ["listed"], axis=0),
        helper.make_node("Cast", ["listed"], ["pads"], to=TensorProto.INT64),
    ]


def sizes_of(scale: np.ndarray) -> list[int]:
    """Return the classes of every unit, each of which is checked against the masked model."""
    feed = {"x": np.random.default_rng(1).standard_normal((2, 3, 5, 5)).astype(np.float32)}
    network = kit.Network(kit.read(normalised(scale)), samples=feed)
    kit.check(network, [1] * len(network.units), 0, feed)
    return [len(unit.classes) for unit in network.units]


def test_a_shared_scale_of_ones_does_not_tie_layers() -> None:
    assert sizes_of(np.ones(SIZE)) == [SIZE, SIZE]


def test_a_shared_scale_that_says_something_does() -> None:
    assert sizes_of(np.arange(1.0, SIZE + 1)) == [SIZE]
