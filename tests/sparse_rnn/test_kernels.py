"""Kernels of all instruction sets against the float64 oracle, and what must not change a result."""

from __future__ import annotations

import os
import re
import wave
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from sartor.share.kernels import machine as code
from sartor.share.runtime import load
from sartor.share.runtime.calls import find_calls
from sartor.share.runtime.invoke import invoke, prepare
from sartor.share.runtime.kernel import FunctionCall
from sartor.share.runtime.session import kernels_of
from sartor.tools.sparse_rnn.emit import emit
from sartor.tools.sparse_rnn.encode import decode, encode
from sartor.tools.sparse_rnn.executor import bind, build, source_of
from sartor.tools.sparse_rnn.find import R, W, find_layers
from sartor.tools.sparse_rnn.kernels.form import MACHINES, Machine, this_machine
from sartor.tools.sparse_rnn.oracle import GATES, Cell, State, Weights, run
from sartor.tools.sparse_rnn.pack import pack
from sartor.tools.sparse_rnn.pattern import masks, parse_pattern
from sartor.tools.sparse_rnn.plan import Options
from sartor.tools.sparse_rnn.sparsify import sparsify

pytestmark = pytest.mark.usefixtures("everywhere")

Array = np.ndarray
F = np.float32
MIXED = ["Sigmoid", "ScaledTanh", "Softsign", "HardSigmoid", "Tanh", "Elu"]
CASES: dict[str, dict[str, Any]] = {
    "lstm": {"kind": "LSTM"},
    "lstm of everything": {"kind": "LSTM", "direction": "bidirectional", "peepholes": True, "clip": 1.1,
                           "input_forget": 1, "activations": MIXED, "activation_alpha": [0.9, 0.3, 0.8],
                           "activation_beta": [1.2, 0.4]},
    "gru of torch": {"kind": "GRU", "direction": "bidirectional", "linear_before_reset": 1},
    "gru": {"kind": "GRU", "direction": "reverse", "activations": ["Sigmoid", "Softplus"], "clip": 2.0},
    "rnn": {"kind": "RNN", "direction": "bidirectional", "activations": ["Relu", "LeakyRelu"],
            "activation_alpha": [0.2], "sparse_input": True},
    "float32": {"kind": "LSTM", "values": F, "sparse_input": True, "pattern": "unstructured"},
}  # fmt: skip
SHORT = ("lstm of everything", "gru")
"""What other instruction sets than this processor's best are tried on at once; the rest is slow to compile."""

MASKED = {"kind", "peepholes", "values", "sparse_input", "pattern", "absent"}


def drawn(hidden: int, width: int, case: dict[str, Any], seed: int = 0) -> dict[str, Array]:
    """Draw the weights of a layer, those of all optional inputs that the case has."""
    rng, kind, absent = np.random.default_rng(seed), case["kind"], case.get("absent", ())
    gates, directions = len(GATES[kind]), 2 if case.get("direction") == "bidirectional" else 1
    shapes = {"W": (directions, gates * hidden, width), "R": (directions, gates * hidden, hidden),
              "B": (directions, 2 * gates * hidden)}  # fmt: skip
    if case.get("peepholes"):
        shapes["P"] = (directions, 3 * hidden)
    arrays = {name: rng.uniform(-1, 1, shape).astype(F) / F(np.sqrt(hidden)) for name, shape in shapes.items()}
    return {name: array for name, array in arrays.items() if name not in absent}


def dense(arrays: dict[str, Array], case: dict[str, Any], steps: Any = "T", batch: Any = "B") -> ir.Model:
    """Make a model of one dense layer, with all inputs and outputs but those that the case says are absent."""
    kind, absent, (directions, _, hidden) = case["kind"], case.get("absent", ()), arrays["R"].shape
    states = ["h", *(["c"] if kind == "LSTM" else [])]
    inputs = ["X", "W", "R", "B", "lengths", *states, *(["P"] if "P" in arrays else [])]
    outputs = ["Y", "Y_h", *(["Y_c"] if kind == "LSTM" else [])]
    inputs, outputs = ([name if name not in absent else "" for name in names] for names in (inputs, outputs))
    attributes = {name: value for name, value in case.items() if name not in MASKED}
    node = helper.make_node(kind, inputs, outputs, hidden_size=hidden, name="layer", **attributes)
    shapes = {"X": [steps, batch, arrays["W"].shape[2]], "Y": [steps, directions, batch, hidden]}
    shapes |= {name: [directions, batch, hidden] for name in ("h", "c", "Y_h", "Y_c")}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    values["lengths"] = helper.make_tensor_value_info("lengths", TensorProto.INT32, [batch])
    tensors = [helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.tobytes(), raw=True)
               for name, array in arrays.items()]  # fmt: skip
    ends = ([values[name] for name in names if name in values] for names in (inputs, outputs))
    graph = helper.make_graph([node], "one", *ends, tensors)
    return ir.serde.deserialize_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    )


def made(hidden: int, width: int, case: dict[str, Any], seed: int = 0, density: float = 0.3, steps: Any = "T",
         batch: Any = "B") -> tuple[ir.Model, Cell, Weights]:  # fmt: skip
    """Make a model of one sparse layer, and tell its cell and its weights as they are stored."""
    model, gates = dense(drawn(hidden, width, case, seed), case, steps, batch), len(GATES[case["kind"]])
    (layer,) = find_layers(model).layers
    pattern, values = parse_pattern(case.get("pattern", "balanced:32")), case.get("values", np.float16)
    coded = {}
    for place in (W, R) if case.get("sparse_input") else (R,):
        whole = layer.weights.w if place == W else layer.weights.r
        coded[place] = encode(whole, np.stack(masks(list(whole), gates, pattern, density, "gate")), values)
    held = replace(layer.weights, r=decode(coded[R]))
    if W in coded:
        held = replace(held, w=decode(coded[W]))
    emit(model, {layer: coded})
    return model, layer.cell, held


def feed_of(cell: Cell, hidden: int, width: int, steps: int, batch: int, seed: int = 1) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, steps + 1, batch).astype(np.int32)
    lengths[-1] = steps
    feed = {"X": rng.normal(0, 1, (steps, batch, width)).astype(F), "lengths": lengths}
    for name in ["h", *(["c"] if cell.kind == "LSTM" else [])]:
        feed[name] = rng.normal(0, 0.5, (cell.directions, batch, hidden)).astype(F)
    return feed


def wanted(cell: Cell, weights: Weights, feed: dict[str, Array]) -> list[Array]:
    found = run(cell, weights, feed["X"], feed["lengths"], State(feed["h"], feed.get("c")))
    return list(found if cell.kind == "LSTM" else found[:2])


def call_of(model: ir.Model) -> FunctionCall:
    wanted_functions = frozenset(model.functions)
    ((call,),) = find_calls(model, wanted_functions).values()
    assert call is not None
    return call


def direct(model: ir.Model, feed: dict[str, Array], machine: Machine, threads: int = 1) -> list[Array]:
    """Run the kernel of a model for an instruction set, without a session."""
    call = call_of(model)
    bound = bind(call)
    assert bound is not None
    built = build(call, bound, machine)
    node = next(iter(model.graph))
    inputs = []
    for value, constant in zip(node.inputs, call.constants, strict=True):
        assert value is not None
        inputs.append(feed[str(value.name)] if constant is None else constant.numpy())
    invocation = prepare([built.kernel], inputs, threads)
    with ThreadPoolExecutor(max(threads - 1, 1)) as pool:
        invoke(invocation, pool)
    return list(invocation.outputs)


def open_(model: ir.Model, threads: int = 1) -> onnxruntime.InferenceSession:
    session = load(ir.serde.serialize_model(model).SerializeToString(), threads=threads)
    assert len(kernels_of(session)) == 1
    return session


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        pytest.param(
            name,
            machine,
            id=f"{name}-{machine.name}",
            marks=() if machine == this_machine() or name in SHORT else pytest.mark.slow,
        )
        for name in CASES
        for machine in MACHINES
    ],
)
def test_oracle(name: str, machine: Machine) -> None:
    """Odd sizes, batches on both sides of what is done at once, lengths of zero, states given."""
    if any(not code.has_feature(feature) for feature in machine.features):
        pytest.skip(f"this processor lacks {machine.name}")
    for hidden, width, steps, batch in [(5, 3, 4, 1), (40, 33, 9, 7), (64, 16, 2, 3), (70, 1, 30, 2)]:
        model, cell, weights = made(hidden, width, CASES[name])
        feed = feed_of(cell, hidden, width, steps, batch)
        for got, want in zip(direct(model, feed, machine), wanted(cell, weights, feed), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-6, err_msg=f"{hidden} {width} {steps} {batch}")


@pytest.mark.parametrize("hidden", [1, 31, 129])
def test_session_agrees_with_stock(hidden: int) -> None:
    model, cell, weights = made(hidden, 20, CASES["lstm"])
    feed = feed_of(cell, hidden, 20, 11, 5)
    content = ir.serde.serialize_model(model).SerializeToString()
    stock = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feed)
    for got, want, other in zip(open_(model).run(None, feed), wanted(cell, weights, feed), stock, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)
        np.testing.assert_allclose(got, other, rtol=0, atol=4e-6)


@pytest.mark.parametrize("case", ["lstm", "gru", "rnn"])
def test_threads_change_no_bit(case: str) -> None:
    """A team of any size computes what one thread does, in a session and where its members come one after another."""
    model, cell, _ = made(600, 24, CASES[case])
    feed = feed_of(cell, 600, 24, 40, 3)
    alone = open_(model).run(None, feed)
    for others in (open_(model, 2).run(None, feed), open_(model, 5).run(None, feed),
                   direct(model, feed, this_machine(), 4)):  # fmt: skip
        for a, b in zip(alone, others, strict=True):
            np.testing.assert_array_equal(a, b)


def test_calls_at_the_same_time() -> None:
    """Threads of a program that share a session disturb each other in nothing."""
    model, cell, _ = made(600, 24, CASES["lstm"])
    session = open_(model, 2)
    feeds = [feed_of(cell, 600, 24, 12, 2, seed) for seed in range(4)]
    alone = [session.run(None, feed) for feed in feeds]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for one, other in zip(alone, pool.map(lambda feed: session.run(None, feed), feeds), strict=True):
                for a, b in zip(one, other, strict=True):
                    np.testing.assert_array_equal(a, b)


def test_runs_in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    model, cell, weights = made(64, 20, CASES["lstm"])
    feed = feed_of(cell, 64, 20, 6, 2)
    monkeypatch.setenv("SARTOR_RUNTIME", "segments")
    session = open_(model, 2)
    for _ in range(2):
        for got, want in zip(session.run(None, feed), wanted(cell, weights, feed), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


def test_time_may_be_split() -> None:
    """Streaming: steps one by one with carried states give what one call gives, bit by bit."""
    model, cell, _ = made(48, 10, CASES["lstm"])
    feed = feed_of(cell, 48, 10, 13, 3)
    feed["lengths"][:] = 13
    session = open_(model)
    whole = session.run(None, feed)
    h, c, rows = feed["h"], feed["c"], []
    for x in feed["X"]:
        y, h, c = session.run(None, {"X": x[None], "lengths": np.ones(3, np.int32), "h": h, "c": c})
        rows.append(y)
    np.testing.assert_array_equal(whole[0], np.concatenate(rows))
    np.testing.assert_array_equal(whole[2], c)


def test_order_of_samples_is_nothing() -> None:
    model, cell, _ = made(48, 10, CASES["gru of torch"])
    feed = feed_of(cell, 48, 10, 9, 6)
    order = np.random.default_rng(3).permutation(6)
    mixed = {name: array[order] if name == "lengths" else array[:, order] for name, array in feed.items()}
    session = open_(model)
    y, h = session.run(None, feed)
    y_mixed, h_mixed = session.run(None, mixed)
    np.testing.assert_allclose(y[:, :, order], y_mixed, rtol=0, atol=1e-6)
    np.testing.assert_allclose(h[:, order], h_mixed, rtol=0, atol=1e-6)


def test_soak() -> None:
    """Ten thousand steps in one call: nothing drifts from the stock session, nothing grows."""
    model, cell, _ = made(16, 4, CASES["gru of torch"])
    feed = feed_of(cell, 16, 4, 10_000, 2)
    content = ir.serde.serialize_model(model).SerializeToString()
    stock = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feed)
    for got, want in zip(open_(model, 2).run(None, feed), stock, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_adversarial_values() -> None:
    """Negative zeros are zeros; an infinite or undefined input of a sample stays with that sample."""
    model, cell, weights = made(40, 8, CASES["lstm"])
    feed = feed_of(cell, 40, 8, 5, 3)
    feed["lengths"][:] = 5
    feed["X"][:, 0] = -0.0
    feed["X"][2, 1] = np.nan
    feed["X"][1, 2, 0] = np.inf
    got = open_(model).run(None, feed)[0]
    want = wanted(cell, weights, feed)[0]
    np.testing.assert_allclose(got[:, :, 0], want[:, :, 0], rtol=0, atol=2e-6)
    assert np.isnan(got[2:, :, 1]).all()
    assert np.isfinite(got[:2, :, 1]).all()
    assert np.isfinite(got[0, :, 2]).all()


@pytest.mark.parametrize("length", [-1, 7])
def test_lengths_out_of_range_are_refused(length: int) -> None:
    model, cell, _ = made(40, 8, CASES["lstm"])
    feed = feed_of(cell, 40, 8, 6, 2)
    feed["lengths"][0] = length
    for threads in (1, 2):
        with pytest.raises(Fail, match="gave up"):
            open_(model, threads).run(None, feed)


def test_no_steps_and_no_samples() -> None:
    model, cell, _ = made(40, 8, CASES["lstm"])
    session = open_(model)
    none = feed_of(cell, 40, 8, 4, 1)
    empty = {name: array[:0] if name == "lengths" else array[:, :0] for name, array in none.items()}
    assert [one.shape for one in session.run(None, empty)] == [(4, 1, 0, 40), (1, 0, 40), (1, 0, 40)]


def test_computed_weights_have_no_kernel() -> None:
    model, _, _ = made(40, 8, CASES["lstm"])
    values = next(value for name, value in model.graph.initializers.items() if name.endswith("R_values"))
    del model.graph.initializers[str(values.name)]
    model.graph.inputs.append(values)
    assert kernels_of(load(ir.serde.serialize_model(model).SerializeToString(), threads=1)) == ()


@pytest.mark.parametrize(
    ("machine", "instruction"),
    [(MACHINES[0], r"vperm[it]2ps\s.*zmm"), (MACHINES[1], r"vperm(ps|d)\s.*ymm")],
    ids=["avx512", "avx2"],
)
def test_columns_are_looked_up_in_registers(machine: Machine, instruction: str) -> None:
    if any(not code.has_feature(feature) for feature in machine.features):
        pytest.skip(f"this processor lacks {machine.name}")
    model, _, _ = made(64, 16, CASES["lstm"])
    call = call_of(model)
    bound = bind(call)
    assert bound is not None
    r, w = bound.operands[R], bound.operands[W]
    packed = pack(bound.cell, machine, r, w, None, None)  # type: ignore[arg-type]
    text = code.assembly(source_of(call, bound, packed, machine))
    assert re.search(instruction, text)
    assert re.search(r"vcvtph2ps\s.*[yz]mm", text)


def branches(same: bool) -> ir.Model:
    """Make a model with a sparse layer in each branch of an If, with weights of its own or the same."""
    parts = [made(40, 8, {"kind": "RNN"}, seed=0 if same else seed)[0] for seed in range(2)]
    models = [ir.serde.serialize_model(part) for part in parts]
    names = ["X", "lengths", "h"]
    graphs = []
    for index, one in enumerate(models):
        outputs = [helper.make_tensor_value_info(f"{name}{index}", TensorProto.FLOAT, None) for name in ("y", "z")]
        (call,) = one.graph.node
        node = helper.make_node(call.op_type, list(call.input), [f"y{index}", f"z{index}"], domain=call.domain)
        for place, name in enumerate(node.input):
            if name not in names:
                node.input[place] = f"{name}{index}"
        for held in one.graph.initializer:
            held.name = f"{held.name}{index}"
        graphs.append(helper.make_graph([node], f"branch{index}", [], outputs, list(one.graph.initializer)))
    choice = helper.make_node("If", ["first"], ["Y", "Y_h"], then_branch=graphs[0], else_branch=graphs[1])
    condition = helper.make_tensor_value_info("first", TensorProto.BOOL, [])
    whole = helper.make_graph([choice], "choice", [*models[0].graph.input, condition], models[0].graph.output)
    functions = {function.name: function for one in models for function in one.functions}
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("sartor.sparse_rnn", 1)]
    made_model = helper.make_model(whole, functions=functions.values(), opset_imports=opsets, ir_version=10)
    return ir.serde.deserialize_model(made_model)


@pytest.mark.parametrize("same", [True, False])
def test_branches(same: bool) -> None:
    """Layers with the weights of another share its kernel, others have their own."""
    model = branches(same)
    session = load(ir.serde.serialize_model(model).SerializeToString(), threads=1)
    assert len(kernels_of(session)) == (1 if same else 2)
    for first in (True, False):
        _, cell, weights = made(40, 8, {"kind": "RNN"}, seed=0 if same or first else 1)
        feed = feed_of(cell, 40, 8, 6, 2)
        got = session.run(None, {**feed, "first": np.array(first)})
        for a, b in zip(got, wanted(cell, weights, feed), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


def test_one_function_for_two_sets_of_weights_has_no_kernel() -> None:
    """A kernel is bound to weights: a function that is called with others runs its body."""
    model = branches(same=True)
    tensors = [
        graph.initializers for graph in model.graphs() if any(name.endswith("R_values1") for name in graph.initializers)
    ]
    (held,) = (one for name, one in tensors[0].items() if name.endswith("R_values1"))
    assert held.const_value is not None
    held.const_value = ir.tensor(-held.const_value.numpy(), name=held.name)
    assert kernels_of(load(ir.serde.serialize_model(model).SerializeToString(), threads=1)) == ()


@pytest.mark.skipif("SARTOR_DATA" not in os.environ, reason="SARTOR_DATA is not set")
def test_a_real_detector(tmp_path: Path) -> None:
    """Of a detector of speech, half the recurrent weights are enough for nearly all of its decisions."""
    folder, target = Path(os.environ["SARTOR_DATA"], "speech"), tmp_path / "sparse.onnx"
    source = folder / "silero_vad_16k_op15.onnx"
    sparsify(str(source), str(target), Options(0.5, parse_pattern("balanced:32")), None)
    with wave.open(str(folder / "speech_16k.wav")) as file:
        samples = np.frombuffer(file.readframes(512 * 400), np.int16).astype(F) / 32768
    ours = load(target, threads=1)
    assert len(kernels_of(ours)) == 1
    before, stock, after = (
        speech(session, samples)
        for session in (onnxruntime.InferenceSession(source), onnxruntime.InferenceSession(target), ours)
    )
    np.testing.assert_allclose(after, stock, rtol=0, atol=1e-4)
    assert np.abs(after - before).mean() < 0.05
    assert ((after > 0.5) == (before > 0.5)).mean() > 0.95


def speech(session: onnxruntime.InferenceSession, samples: Array) -> Array:
    """Return the probability of speech in windows of 512 samples, each fed with the 64 before it."""
    state, before, found = np.zeros((2, 1, 128), F), np.zeros((1, 64), F), []
    for window in samples.reshape(-1, 1, 512):
        fed = np.concatenate([before, window], axis=1)
        feed = {"input": fed, "state": state, "sr": np.array(16000, np.int64)}
        probability, state = session.run(None, feed)
        found.append(float(probability[0, 0]))
        before = fed[:, -64:]
    return np.array(found)
