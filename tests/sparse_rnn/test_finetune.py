"""Training while weights are removed: it helps, keeps its promise of sparsity, repeats, refuses what it can't use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sartor.share.data import Split
from sartor.share.errors import InputRefusedError
from sartor.tools.sparse_rnn.encode import decode
from sartor.tools.sparse_rnn.find import R, find_layers
from sartor.tools.sparse_rnn.finetune import settle, tune
from sartor.tools.sparse_rnn.pattern import parse_pattern
from sartor.tools.sparse_rnn.plan import Options, Plan, Tuning
from sartor.tools.sparse_rnn.samples import batch_axes, outputs_of, quality
from sartor.tools.sparse_rnn.sparsify import code, sparsify

Array = np.ndarray
STEPS, WIDTH, UNITS, CLASSES = 6, 3, 32, 2
OPTIONS = Options(0.25, parse_pattern("balanced:32"))
TUNING = Tuning("samples.h5", 8, 0.01, seed=3)


def network(kind: str = "LSTM", hidden_constants: bool = False) -> onnx.ModelProto:
    """Make a recurrent layer over (time, batch, 3) and logits of its last state; weights may hide behind a node."""
    rng, gates = np.random.default_rng(0), {"LSTM": 4, "GRU": 3}[kind]
    arrays = {"W": (1, gates * UNITS, WIDTH), "R": (1, gates * UNITS, UNITS), "V": (UNITS, CLASSES)}
    tensors = [
        numpy_helper.from_array(rng.uniform(-0.2, 0.2, shape).astype(np.float32), name)
        for name, shape in arrays.items()
    ]
    names = ["X", "W", "R"]
    nodes = []
    if hidden_constants:
        nodes = [helper.make_node("Identity", ["R"], ["R_same"])]
        names = ["X", "W", "R_same"]
    nodes += [
        helper.make_node(kind, names, ["", "h"], hidden_size=UNITS, name="layer"),
        helper.make_node("Squeeze", ["h", "zero"], ["last"]),
        helper.make_node("MatMul", ["last", "V"], ["logits"]),
    ]
    tensors.append(numpy_helper.from_array(np.array([0]), "zero"))
    x = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["time", "batch", WIDTH])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    graph = helper.make_graph(nodes, "one", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def samples(count: int, seed: int) -> Split:
    """Make sequences whose label is the sign of the first number: what it takes is memory."""
    x = np.random.default_rng(seed).normal(0, 1, (count, STEPS, WIDTH)).astype(np.float32)
    return Split({"X": x}, {"logits": (x[:, 0, 0] > 0).astype(np.int64)})


def write(path: Path, labels: bool = True, splits: tuple[str, ...] = ("train", "val")) -> Path:
    with h5py.File(path, "w") as file:
        for place, split in enumerate(splits):
            made = samples(1024 if split == "train" else 256, place)
            file[f"{split}/x"] = made.inputs["X"]
            if labels:
                file[f"{split}/y"] = made.labels["logits"]
    return path


def run(folder: Path, tuning: Tuning, options: Options = OPTIONS, labels: bool = True, **kwargs: bool) -> Plan:
    onnx.save(network(**kwargs), folder / "dense.onnx")
    data = write(folder / "samples.h5", labels)
    return sparsify(
        str(folder / "dense.onnx"), str(folder / "sparse.onnx"), options, [], replace(tuning, data=str(data))
    )


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("schedule", ["cubic", "oneshot"])
def test_labels_are_learned(tmp_path: Path, kind: str, schedule: str) -> None:
    onnx.save(network(kind), tmp_path / "dense.onnx")
    data = write(tmp_path / "samples.h5")
    tuning = replace(TUNING, data=str(data), schedule=schedule, epochs=16)
    plan = sparsify(str(tmp_path / "dense.onnx"), str(tmp_path / "sparse.onnx"), OPTIONS, None, tuning)
    assert plan.results is not None
    assert plan.results.metric == "accuracy"
    assert plan.results.before < 0.7
    assert plan.results.after > 0.9
    assert plan.results.losses[-1] < 0.5 * plan.results.losses[0]
    assert all(gate.density == 0.25 for matrix in plan.matrices for gate in matrix.gates)


def test_distillation_makes_up_for_what_was_removed(tmp_path: Path) -> None:
    """Without labels the sparse model is trained towards the outputs of the original."""
    barely = run(tmp_path, replace(TUNING, epochs=1, rate=1e-9, distill=True, schedule="oneshot"), labels=False)
    trained = run(tmp_path, replace(TUNING, distill=True), labels=False)
    assert barely.results is not None
    assert trained.results is not None
    assert (trained.results.metric, trained.results.before) == ("likeness", 1.0)
    assert 1 - trained.results.after < 0.5 * (1 - barely.results.after)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for seed in (3, 3, 4):
        run(tmp_path, replace(TUNING, epochs=2, seed=seed))
        files.append((tmp_path / "sparse.onnx").read_bytes())
    assert files[0] == files[1] != files[2]


def test_weights_behind_nodes_are_trained(tmp_path: Path) -> None:
    plan = run(tmp_path, replace(TUNING, epochs=16), hidden_constants=True)
    assert plan.results is not None
    assert plan.results.after > 0.9


def test_what_is_kept_is_what_is_stored() -> None:
    """The masks that training ends with are those of the trained weights: nothing that stays is cut at the end."""
    model = ir.serde.deserialize_model(network())
    split = samples(128, 0)
    tuned = tune(model, find_layers(model).layers, OPTIONS, TUNING, split, None, batch_axes(model, ""), lambda _: None)
    ((layer, masks),) = tuned.kept.items()
    np.testing.assert_array_equal(layer.weights.r != 0, masks[R])
    stored = decode(code(tuned.kept, OPTIONS)[layer][R])
    np.testing.assert_allclose(stored, layer.weights.r, rtol=1e-3)
    held = layer.node.inputs[R]
    assert held is not None
    assert held.const_value is not None
    np.testing.assert_array_equal(held.const_value.numpy(), layer.weights.r)


@pytest.mark.parametrize(
    ("labels", "splits", "message"),
    [(False, ("train", "val"), "no labels"), (True, ("train",), "lacks train/x or val/x")],
)
def test_data_that_does_not_do(tmp_path: Path, labels: bool, splits: tuple[str, ...], message: str) -> None:
    onnx.save(network(), tmp_path / "dense.onnx")
    data = write(tmp_path / "samples.h5", labels, splits)
    with pytest.raises(InputRefusedError, match=message):
        sparsify(str(tmp_path / "dense.onnx"), None, OPTIONS, None, replace(TUNING, data=str(data)))


@pytest.mark.parametrize(
    ("inputs", "outputs", "axis"),
    [
        (["time", "batch", 3], ["batch", 2], 1),
        (["T", "B", 3], ["T", "B", 2], 1),
        (["n", "T", 3], ["n", "T", 2], 0),
        ([4, 5, 3], [4, 2], 0),
    ],
)
def test_axis_of_samples(inputs: list[int | str], outputs: list[int | str], axis: int) -> None:
    assert batch_axes(shaped(inputs, outputs), "") == {"x": axis, "y": outputs.index(inputs[axis])}


def test_unclear_axis_is_refused() -> None:
    for inputs, outputs in ((["a", "c", 3], ["a", "c", 2]), (["time", 4, 3], ["other", 2])):
        with pytest.raises(InputRefusedError, match="which size counts samples is not clear"):
            batch_axes(shaped(inputs, outputs), "net.onnx")


def shaped(inputs: list[int | str], outputs: list[int | str]) -> ir.Model:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", inputs), ("y", outputs))
    )
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "one", [x], [y])
    return ir.serde.deserialize_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def branches() -> onnx.ModelProto:
    """Make a model that runs one layer in either branch of an If, on a number's say, and scales its states by it."""
    base, branches = network(), []
    for place, one in enumerate(("then", "else")):
        node = helper.make_node("LSTM", ["X", "W", "R"], ["", f"h{place}"], hidden_size=UNITS, name=f"layer{place}")
        out = helper.make_tensor_value_info(f"h{place}", TensorProto.FLOAT, None)
        branches.append(helper.make_graph([node], one, [], [out]))
    nodes = [
        helper.make_node("Greater", ["rate", "half"], ["which"]),
        helper.make_node("If", ["which"], ["h"], then_branch=branches[0], else_branch=branches[1]),
        *base.graph.node[1:],
        helper.make_node("Mul", ["logits", "rate"], ["scaled"]),
    ]
    del base.graph.node[:]
    base.graph.node.extend(nodes)
    base.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    base.graph.input.append(helper.make_tensor_value_info("rate", TensorProto.FLOAT, []))
    base.graph.output[0].name = "scaled"
    return base


def test_branches_share_weights_and_samples_a_number(tmp_path: Path) -> None:
    """What one branch learns the other knows, so that the file holds one matrix and both give the same."""
    onnx.save(branches(), tmp_path / "dense.onnx")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        for place, split in enumerate(("train", "val")):
            made = samples(256, place)
            file[f"{split}/x/X"], file[f"{split}/x/rate"] = made.inputs["X"], np.float32(1)
            file[f"{split}/y"] = made.labels["logits"]
    tuning = replace(TUNING, data=str(tmp_path / "d.h5"), epochs=2)
    plan = sparsify(str(tmp_path / "dense.onnx"), str(tmp_path / "sparse.onnx"), OPTIONS, None, tuning)
    assert {one.layer for one in plan.matrices} == {"layer0", "layer1"}
    made_model = onnx.load(tmp_path / "sparse.onnx")
    assert len(made_model.functions) == 1
    assert sum(one.name.endswith("R_values") for one in made_model.graph.initializer) == 1
    session = onnxruntime.InferenceSession(tmp_path / "sparse.onnx", providers=["CPUExecutionProvider"])
    x = np.ascontiguousarray(samples(8, 3).inputs["X"].swapaxes(0, 1))
    one, other = (session.run(None, {"X": x, "rate": np.array(rate, np.float32)})[0] for rate in (1, 0.5))
    np.testing.assert_allclose(one, 2 * other, rtol=1e-5)


def test_equal_biases_alone_are_not_shared() -> None:
    model = ir.serde.deserialize_model(branches())
    layers = find_layers(model).layers
    apart = [replace(one, weights=replace(one.weights, r=one.weights.r + n)) for n, one in enumerate(layers)]
    names = settle(model, apart)
    assert len({name for one in names.values() for name in one.values()}) == 4


def test_a_number_has_no_axis_of_samples() -> None:
    model = ir.serde.deserialize_model(branches())
    assert batch_axes(model, "") == {"X": 1, "rate": None, "scaled": 0}


def test_samples_first_whatever_the_model_has() -> None:
    model = ir.serde.deserialize_model(network())
    split = samples(100, 0)
    outputs = outputs_of(model, split, batch_axes(model, ""), 1)
    assert outputs["logits"].shape == (100, CLASSES)
    one = outputs_of(model, Split({"X": split.inputs["X"][70:71]}, {}), batch_axes(model, ""), 1)
    np.testing.assert_allclose(outputs["logits"][70:71], one["logits"], atol=1e-6)
    assert quality({"logits": np.eye(2)[split.labels["logits"]]}, split, {}) == 1.0
