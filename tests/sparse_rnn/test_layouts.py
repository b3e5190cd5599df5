"""Batch-first layers are rewritten so that stock onnxruntime, which refuses layout 1, computes what the oracle does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.sparse_rnn.test_oracle import by_oracle

from sartor.tools.sparse_rnn.oracle import GATES
from sartor.tools.sparse_rnn.pattern import Pattern
from sartor.tools.sparse_rnn.plan import Options
from sartor.tools.sparse_rnn.sparsify import sparsify

Array = np.ndarray
WHOLE = Options(density=1.0, pattern=Pattern("unstructured", ()), values="fp32")
T, B, N, H = 5, 3, 4, 6
KINDS = ("RNN", "GRU", "LSTM")


def drawn(kind: Any, directions: int, optional: bool) -> dict[str, Array]:
    """Draw the inputs and weights of a node, batch first."""
    rng = np.random.default_rng(5)
    rows = len(GATES[kind]) * H
    shapes = {"X": (B, T, N), "W": (directions, rows, N), "R": (directions, rows, H), "B": (directions, 2 * rows)}
    if optional:
        shapes |= {"initial_h": (B, directions, H)} | ({"initial_c": (B, directions, H)} if kind == "LSTM" else {})
    feed = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    return feed | ({"sequence_lens": np.array([5, 2, 4], np.int32)} if optional else {})


def graph_of(kind: str, feed: dict[str, Array], outputs: list[str], directions: int) -> onnx.GraphProto:
    """Make a graph of one batch-first node, with the weights as initialisers."""
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c"]
    direction = "bidirectional" if directions == 2 else "forward"
    node = helper.make_node(kind, [name if name in feed else "" for name in order[: 7 if kind == "LSTM" else 6]],
                            outputs, name="rnn", hidden_size=H, direction=direction, layout=1)  # fmt: skip
    shapes = {"Y": [B, T, directions, H], "Y_h": [B, directions, H], "Y_c": [B, directions, H]}
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs if name]
    inputs = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
              for name, array in fed(feed).items()]  # fmt: skip
    weights = [numpy_helper.from_array(feed[name], name) for name in "WRB"]
    return helper.make_graph([node], "g", inputs, named, weights)


def fed(feed: dict[str, Array]) -> dict[str, Array]:
    """Return what is fed at each run."""
    return {name: array for name, array in feed.items() if name not in "WRB"}


def sparse(graph: onnx.GraphProto, folder: Path) -> onnx.ModelProto:
    """Send a graph through the tool, with every weight kept."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "in.onnx")
    sparsify(str(folder / "in.onnx"), str(folder / "out.onnx"), WHOLE, None)
    made = onnx.load(folder / "out.onnx")
    onnx.checker.check_model(made, full_check=True)
    return made


def expected(kind: str, feed: dict[str, Array], directions: int) -> dict[str, Array]:
    """Run the oracle on transposed inputs, and transpose its outputs."""
    turned = {name: array.swapaxes(0, 1) if name in ("X", "initial_h", "initial_c") else array
              for name, array in feed.items()}  # fmt: skip
    y, h, c = by_oracle(kind, turned, {"direction": "bidirectional"} if directions == 2 else {})
    return {"Y": y.transpose(2, 0, 1, 3), "Y_h": h.swapaxes(0, 1), "Y_c": c.swapaxes(0, 1)}


def run(model: onnx.ModelProto, feed: dict[str, Array]) -> list[Any]:
    """Run a model in stock onnxruntime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("absent", ["", "Y", "Y_h"])
def test_the_oracle_agrees(kind: str, directions: int, optional: bool, absent: str, tmp_path: Path) -> None:
    feed = drawn(kind, directions, optional)
    outputs = [name if name != absent else "" for name in ("Y", "Y_h", *(["Y_c"] if kind == "LSTM" else []))]
    graph = graph_of(kind, feed, outputs, directions)
    model = sparse(graph, tmp_path)
    assert list(model.graph.output) == list(graph.output)
    wanted = expected(kind, feed, directions)
    for ours, name in zip(run(model, fed(feed)), filter(None, outputs), strict=True):
        np.testing.assert_allclose(ours, wanted[name], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_inside_a_branch(kind: str, tmp_path: Path) -> None:
    feed = drawn(kind, 1, optional=True)
    inner = graph_of(kind, feed, ["Y"], 1)
    zeros = numpy_helper.from_array(np.zeros((B, T, 1, H), np.float32))
    none = helper.make_tensor_value_info("none", TensorProto.FLOAT, [B, T, 1, H])
    other = helper.make_graph([helper.make_node("Constant", [], ["none"], value=zeros)], "else", [], [none])
    branch = helper.make_graph(inner.node, "then", [], inner.output)
    node = helper.make_node("If", ["which"], ["Z"], then_branch=branch, else_branch=other)
    which = helper.make_tensor_value_info("which", TensorProto.BOOL, [])
    z = helper.make_tensor_value_info("Z", TensorProto.FLOAT, [B, T, 1, H])
    model = sparse(helper.make_graph([node], "g", [*inner.input, which], [z], inner.initializer), tmp_path)
    (ours,) = run(model, fed(feed) | {"which": np.array(True)})
    np.testing.assert_allclose(ours, expected(kind, feed, 1)["Y"], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_inside_a_loop(kind: str, tmp_path: Path) -> None:
    """Batch-first states go round a loop, whose body sees its weights from outside."""
    feed, times = drawn(kind, 1, optional=True), 3
    names = ["h", *(["c"] if kind == "LSTM" else [])]
    initial, ends = [f"initial_{name}" for name in names], [f"Y_{name}" for name in names]
    inner = graph_of(kind, feed, ["Y", *ends], 1)
    # The states of the layer are those that the loop carries, of other names than those it begins with.
    for place, name in enumerate(inner.node[0].input):
        inner.node[0].input[place] = name.replace("initial", "carried")
    kept = helper.make_node("Identity", ["go"], ["goes"])
    flags = [helper.make_tensor_value_info("go", TensorProto.BOOL, []), helper.make_tensor_value_info("goes", 9, [])]
    carried = [helper.make_tensor_value_info(f"carried_{name}", TensorProto.FLOAT, [B, 1, H]) for name in names]
    count = helper.make_tensor_value_info("at", TensorProto.INT64, [])
    y, *states = inner.output
    body = helper.make_graph([kept, *inner.node], "body", [count, flags[0], *carried], [flags[1], *states, y])
    lasts = [f"last_{name}" for name in names]
    node = helper.make_node("Loop", ["times", "", *initial], [*lasts, "all"], body=body)
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [B, 1, H]) for name in lasts]
    outputs.append(helper.make_tensor_value_info("all", TensorProto.FLOAT, [times, B, T, 1, H]))
    constants = [*inner.initializer, numpy_helper.from_array(np.array(times), "times")]
    model = sparse(helper.make_graph([node], "g", inner.input, outputs, constants), tmp_path)
    assert not any(one.op_type == kind for one in model.graph.node[0].attribute[0].g.node)
    *got, every = run(model, fed(feed))
    for turn in range(times):
        found = expected(kind, feed, 1)
        np.testing.assert_allclose(every[turn], found["Y"], atol=1e-5)
        feed |= {start: found[end] for start, end in zip(initial, ends, strict=True)}
    for ours, start in zip(got, initial, strict=True):
        np.testing.assert_allclose(ours, feed[start], atol=1e-5)
