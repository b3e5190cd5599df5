"""The oracle against onnxruntime over all attributes and optional inputs, and against ONNX's node tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.backend.test.case.node import collect_testcases

from sartor.share.errors import InputRefusedError
from sartor.tools.sparse_rnn.activations import PARAMETERS, parse_activations
from sartor.tools.sparse_rnn.oracle import DEFAULTS, GATES, Cell, State, Weights, run

Array = np.ndarray
F = np.float32
NAMES = ("Affine", "Relu", "LeakyRelu", "ThresholdedRelu", "Tanh", "ScaledTanh", "Sigmoid", "HardSigmoid", "Elu",
         "Softsign", "Softplus")  # fmt: skip
BOUNDED = ("Tanh", "Sigmoid", "HardSigmoid", "Softsign")


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a recurrent operator with inputs; alphas and betas are given, because defaults of onnxruntime are others."""
    kind = draw(st.sampled_from(["RNN", "GRU", "LSTM"]))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    directions = 2 if direction == "bidirectional" else 1
    steps, samples = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    size, width = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    gates = len(GATES[kind])

    def normal(*shape: int) -> Array:
        return rng.normal(0, 0.7, shape).astype(F)

    feed = {"X": normal(steps, samples, width), "W": normal(directions, gates * size, width),
            "R": normal(directions, gates * size, size)}  # fmt: skip
    if draw(st.booleans()):
        feed["B"] = normal(directions, 2 * gates * size)
    if draw(st.booleans()):
        feed["sequence_lens"] = rng.integers(0, steps + 1, samples).astype(np.int32)
        feed["sequence_lens"][rng.integers(samples)] = steps
    if draw(st.booleans()):
        feed["initial_h"] = normal(directions, samples, size)
    if kind == "LSTM":
        if draw(st.booleans()):
            feed["initial_c"] = normal(directions, samples, size)
        if draw(st.booleans()):
            feed["P"] = normal(directions, 3 * size)
    attributes: dict[str, Any] = {"hidden_size": size, "direction": direction}
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(NAMES), min_size=len(DEFAULTS[kind]) * directions,
                              max_size=len(DEFAULTS[kind]) * directions))  # fmt: skip
        # Gates that are not bounded let states grow out of float32.
        names = [name if i % len(DEFAULTS[kind]) else names[i] if names[i] in BOUNDED else "Sigmoid"
                 for i, name in enumerate(names)]  # fmt: skip
        attributes["activations"] = names
        for key, place in (("activation_alpha", 0), ("activation_beta", 1)):
            values = [float(rng.uniform(0.1, 0.9)) for name in names if len(PARAMETERS.get(name.lower(), ())) > place]
            if values:
                attributes[key] = values
    if draw(st.booleans()):
        attributes["clip"] = float(rng.uniform(0.3, 2))
    if kind == "GRU":
        attributes["linear_before_reset"] = draw(st.integers(0, 1))
    if kind == "LSTM":
        attributes["input_forget"] = draw(st.integers(0, 1))
    return {"kind": kind, "feed": feed, "attributes": attributes}


def by_oracle(kind: str, feed: dict[str, Array], attributes: dict[str, Any]) -> tuple[Array, Array, Array]:
    """Run the oracle as a node with these attributes."""
    direction = attributes.get("direction", "forward")
    names = attributes.get("activations", DEFAULTS[kind] * (2 if direction == "bidirectional" else 1))
    parameters = (attributes.get(f"activation_{one}", ()) for one in ("alpha", "beta"))
    cell = Cell(
        kind, direction, parse_activations(names, *parameters, "node"), attributes.get("clip"),
        bool(attributes.get("linear_before_reset", 0)), bool(attributes.get("input_forget", 0)),
    )  # fmt: skip
    weights = Weights(feed["W"], feed["R"], feed.get("B"), feed.get("P"))
    state = State(feed.get("initial_h"), feed.get("initial_c"))
    return run(cell, weights, feed["X"], feed.get("sequence_lens"), state)


def by_onnxruntime(kind: str, feed: dict[str, Array], attributes: dict[str, Any]) -> list[Array]:
    """Run the node in onnxruntime."""
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h", *(["initial_c", "P"] if kind == "LSTM" else [])]
    outputs = ["Y", "Y_h", *(["Y_c"] if kind == "LSTM" else [])]
    node = helper.make_node(kind, [name if name in feed else "" for name in order], outputs, **attributes)
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in feed.items()}
    inputs = [helper.make_tensor_value_info(name, types[name], array.shape) for name, array in feed.items()]
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph([node], "one", inputs, named)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_onnxruntime_agrees(case: dict[str, Any]) -> None:
    for ours, theirs in zip(by_oracle(**case), by_onnxruntime(**case), strict=False):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=2e-5)


def node_tests() -> list[Any]:
    """Collect ONNX's node tests of recurrent operators."""
    return [case for case in collect_testcases("") if case.name.startswith(("test_rnn", "test_gru", "test_lstm",
                                                                            "test_simple_rnn"))]  # fmt: skip


@pytest.mark.parametrize("case", node_tests(), ids=lambda case: str(case.name))
def test_vectors_of_onnx(case: Any) -> None:
    (node,) = case.model.graph.node
    (inputs, outputs), *_ = case.data_sets
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()}
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    given_names = [order[i] for i, name in enumerate(node.input) if name]
    feed = dict(zip(given_names, inputs, strict=True))
    batched = attributes.get("layout", 0) == 1
    if batched:
        feed |= {name: feed[name].swapaxes(0, 1) for name in ("X", "initial_h", "initial_c") if name in feed}
    found = by_oracle(node.op_type, feed, attributes)
    if batched:
        found = (found[0].transpose(2, 0, 1, 3), *(one.swapaxes(0, 1) for one in found[1:]))
    wanted = [found[i] for i, name in enumerate(node.output) if name]
    for ours, theirs in zip(wanted, outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_there_are_eighteen_vectors() -> None:
    assert len(node_tests()) == 18


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(InputRefusedError, match="no activation 'swish'"):
        parse_activations(["Swish"], [], [], "node")


def test_steps_beyond_a_length_are_zero() -> None:
    rng = np.random.default_rng(0)
    feed = {"X": rng.normal(size=(4, 3, 2)), "W": rng.normal(size=(1, 12, 2)), "R": rng.normal(size=(1, 12, 3)),
            "sequence_lens": np.array([0, 2, 4])}  # fmt: skip
    y, h, c = by_oracle("LSTM", feed, {})
    assert not y[:, 0, 0].any()
    assert not y[2:, 0, 1].any()
    assert y[3, 0, 2].all()
    assert not h[0, 0].any()
    assert not c[0, 0].any()
    np.testing.assert_array_equal(h[0, 1], y[1, 0, 1])


def test_checks_are_on_the_specification() -> None:
    """A model of the node passes the checker, so that what is drawn is valid ONNX."""
    node = helper.make_node("GRU", ["X", "W", "R"], ["Y"], hidden_size=3, linear_before_reset=1)
    onnx.checker.check_node(node)
