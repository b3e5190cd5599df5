"""Two tasks that take memory: a trained LSTM keeps what it can do with three in ten of its recurrent weights.

Source: Hochreiter and Schmidhuber 1997, section 5.4 (adding); Arjovsky, Shah and Bengio 2016, section 5.1 (copying).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from sartor.share.data import Split
from sartor.share.lowering import lower, write_back
from sartor.share.training import Recipe, cross_entropy, train
from sartor.tools.sparse_rnn.pattern import parse_pattern
from sartor.tools.sparse_rnn.plan import Options, Tuning
from sartor.tools.sparse_rnn.samples import batch_axes
from sartor.tools.sparse_rnn.sparsify import sparsify

Array = np.ndarray
F = np.float32
UNITS, TRAINED, HELD_OUT = 32, 2048, 512
SYMBOLS, COPIED, DELAY = 4, 2, 2
ADDED = 8
OPTIONS = Options(0.3, parse_pattern("balanced:32"))


def network(width: int, outputs: int, late: int | None) -> ir.Model:
    """Make an LSTM (time, batch, width) with a linear head on the last state, or on the last so many steps."""
    rng = np.random.default_rng(0)
    shapes = {"W": (1, 4 * UNITS, width), "R": (1, 4 * UNITS, UNITS), "B": (1, 8 * UNITS), "V": (UNITS, outputs),
              "b": (outputs,)}  # fmt: skip
    bound = 1 / np.sqrt(UNITS)
    arrays = {name: rng.uniform(-bound, bound, shape).astype(F) for name, shape in shapes.items()}
    # Open forget gates let an untrained LSTM remember.
    arrays["B"][0, 2 * UNITS : 3 * UNITS] = 1
    arrays["axis"] = np.array([1 if late else 0])
    if late:
        arrays |= {"from": np.array([-late]), "to": np.array([2**31])}
    states = ["y"] if late else ["", "y"]
    nodes = [
        helper.make_node("LSTM", ["X", "W", "R", "B"], states, hidden_size=UNITS, name="layer"),
        helper.make_node("Squeeze", ["y", "axis"], ["states"]),
        helper.make_node("Slice", ["states", "from", "to"], ["last"]) if late else
        helper.make_node("Identity", ["states"], ["last"]),
        helper.make_node("MatMul", ["last", "V"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["found"]),
    ]  # fmt: skip
    x = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["time", "batch", width])
    y = helper.make_tensor_value_info("found", TensorProto.FLOAT, [*([late] if late else []), "batch", outputs])
    graph = helper.make_graph(nodes, "task", [x], [y], [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    return ir.serde.deserialize_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    )


def copying(count: int, seed: int) -> Split:
    """Make sequences of symbols, blanks, and a mark a step for each symbol to say again."""
    symbols = np.random.default_rng(seed).integers(0, SYMBOLS, (count, COPIED))
    steps = np.full((count, 2 * COPIED + DELAY), SYMBOLS)
    steps[:, :COPIED], steps[:, -COPIED:] = symbols, SYMBOLS + 1
    return Split({"X": np.eye(SYMBOLS + 2, dtype=F)[steps]}, {"found": symbols})


def adding(count: int, seed: int) -> Split:
    """Make sequences of numbers of which two are marked; their sum is wanted."""
    rng = np.random.default_rng(seed)
    numbers, marks = rng.uniform(0, 1, (count, ADDED)), np.zeros((count, ADDED))
    for row in marks:
        row[rng.choice(ADDED, 2, replace=False)] = 1
    x = np.stack([numbers, marks], axis=2).astype(F)
    return Split({"X": x}, {"found": (numbers * marks).sum(1, keepdims=True).astype(F)})


def taught(model: ir.Model, split: Split, loss: Callable[..., torch.Tensor], epochs: int, path: Path) -> None:
    """Train all weights, and write the model."""
    lowered = lower(model)
    parameters = [one for one in lowered.tensors().values() if one.is_floating_point()]
    recipe = Recipe(epochs, 0, 1, loss, lambda ones: torch.optim.Adam(ones, 0.01), batch_axes(model, ""))
    train(lowered, parameters, split, split.labels, recipe, lambda _: None)
    write_back(model, {name: one.detach() for name, one in lowered.tensors().items() if one.requires_grad})
    ir.save(model, path)


def outputs(path: Path, split: Split) -> Array:
    """Return what stock onnxruntime gives, the samples first."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"X": np.ascontiguousarray(split.inputs["X"].swapaxes(0, 1))})
    return found.swapaxes(0, 1) if found.ndim == 3 else found


def write(path: Path, *, labels: bool, **splits: Split) -> None:
    with h5py.File(path, "w") as file:
        for name, split in splits.items():
            file[f"{name}/x"] = split.inputs["X"]
            if labels:
                file[f"{name}/y"] = split.labels["found"]


def test_copying(tmp_path: Path) -> None:
    """Symbols are said again after a pause: trained on labels, the sparse model does it as well as the dense one."""
    split, held_out = copying(TRAINED, 0), copying(HELD_OUT, 1)
    taught(network(SYMBOLS + 2, SYMBOLS, COPIED), split, cross_entropy(-1), 12, tmp_path / "dense.onnx")
    write(tmp_path / "d.h5", labels=True, train=split, val=held_out)
    plan = sparsify(str(tmp_path / "dense.onnx"), str(tmp_path / "sparse.onnx"), OPTIONS, None,
                    Tuning(str(tmp_path / "d.h5"), 6, 0.01))  # fmt: skip
    assert plan.results is not None
    for name, told in (("dense.onnx", plan.results.before), ("sparse.onnx", plan.results.after)):
        right = outputs(tmp_path / name, held_out).argmax(-1) == held_out.labels["found"]
        assert told == right.mean() > 0.99


def test_adding(tmp_path: Path) -> None:
    """Two marked numbers are added: taught by the dense model, the sparse one is off by no more than twice as much."""
    split, held_out = adding(TRAINED, 0), adding(HELD_OUT, 1)

    def off(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> torch.Tensor:
        return (found["found"] - wanted["found"]).square().mean()

    taught(network(2, 1, None), split, off, 30, tmp_path / "dense.onnx")
    write(tmp_path / "d.h5", labels=False, train=split, val=held_out)
    sparsify(str(tmp_path / "dense.onnx"), str(tmp_path / "shot.onnx"), OPTIONS, None)
    sparsify(str(tmp_path / "dense.onnx"), str(tmp_path / "sparse.onnx"), OPTIONS, None,
             Tuning(str(tmp_path / "d.h5"), 15, 0.01, True))  # fmt: skip
    errors = {
        name: float(np.square(outputs(tmp_path / f"{name}.onnx", held_out) - held_out.labels["found"]).mean())
        for name in ("dense", "shot", "sparse")
    }
    # Always to say 1 is off by a sixth.
    assert errors["dense"] < 0.01
    assert errors["sparse"] < min(2 * errors["dense"], 0.01) < errors["shot"], errors
