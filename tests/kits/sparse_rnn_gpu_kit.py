"""Sparse layers for GPUs without one: random layers, and the kernel run as Python."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx import TensorProto, helper
from tests.kits import gluon_kit

from sartor.share.runtime.kernel import STALLED
from sartor.tools.sparse_rnn.activations import parse_activations
from sartor.tools.sparse_rnn.emit import emit
from sartor.tools.sparse_rnn.encode import Coded, decode, encode
from sartor.tools.sparse_rnn.find import R, find_layers
from sartor.tools.sparse_rnn.gpu import cells, exchange, kernel, product, sync, views
from sartor.tools.sparse_rnn.gpu.layout import entries_of
from sartor.tools.sparse_rnn.gpu.limits import Gpu
from sartor.tools.sparse_rnn.gpu.operands import Call, prepare, resident
from sartor.tools.sparse_rnn.gpu.plan import Source
from sartor.tools.sparse_rnn.oracle import DEFAULTS, GATES, Cell, Weights
from sartor.tools.sparse_rnn.pattern import masks, parse_pattern

ARGUMENTS = (
    "weights", "begins", "threads", "bias", "peepholes", "places", "projected", "lengths", "initial_hidden",
    "initial_cell", "exchange", "arrivals", "y", "last_hidden", "last_cell", "status",
)  # fmt: skip
"""The tensors of a launch in order."""


@dataclass(frozen=True)
class Layer:
    """A random layer: its coded weights, and these as the oracle takes them."""

    cell: Cell
    r: Coded
    weights: Weights


def cell_of(kind: str, direction: str = "forward", **options: Any) -> Cell:
    """Return a cell with usual activations unless others are given."""
    names = options.pop("activations", DEFAULTS[kind] * (2 if direction == "bidirectional" else 1))
    return Cell(kind, direction, parse_activations(names, (), (), "test"), **options)


def layer_of(cell: Cell, hidden: int, inputs: int, density: float, pattern: str, seed: int = 0) -> Layer:
    """Return a random layer with everything that its kind may have."""
    rng, gates = np.random.default_rng(seed), len(GATES[cell.kind])
    d = cell.directions
    w, r = (rng.normal(0, 1, (d, gates * hidden, n)).astype(np.float32) for n in (inputs, hidden))
    r /= np.sqrt(max(density * hidden, 1))
    kept = np.stack(masks(list(r), gates, parse_pattern(pattern), density, "gate"))
    coded = encode(r, kept)
    bias = rng.normal(0, 0.3, (d, 2 * gates * hidden)).astype(np.float32)
    peepholes = rng.normal(0, 0.3, (d, 3 * hidden)).astype(np.float32) if cell.kind == "LSTM" else None
    return Layer(cell, coded, Weights(w / np.sqrt(inputs), decode(coded), bias, peepholes))


def simulate(
    packed: Any, w: Any, call: Call | None = None, patience: float = 20.0, programs: int | None = None, **given: Any
) -> Call:
    """Run a launch as Python, all programs or only the first; `given` are x, lengths, hidden and cell as arrays."""
    if call is None:
        call = prepared(packed, w, **given)
    arrays = [one.numpy() for one in call.tensors]
    numbers = {"steps": call.steps, "samples": call.samples, "patience": patience, "S": packed.shape}
    arguments = dict(zip(ARGUMENTS, arrays, strict=True)) | numbers
    every = packed.shape.directions * packed.shape.programs
    gluon_kit.run(
        kernel.recurrence, (kernel, product, exchange, cells, sync, views), programs or every, arguments, HELPERS
    )
    return call


def prepared(packed: Any, w: Any, x: Any, lengths: Any = None, hidden: Any = None, cell: Any = None) -> Call:
    """Return the tensors of a call, on the CPU."""
    tensors = [None if one is None else torch.from_numpy(one) for one in (x, lengths, hidden, cell)]
    held = resident(packed, w, torch.device("cpu"))
    return prepare(held, *tensors, torch.zeros(1, dtype=torch.int32))  # type: ignore[arg-type]


def _wait(pointers: Any, expected: Any, mine: Any, status: Any, patience: float) -> None:
    needed = np.asarray(mine) != 0
    _until(lambda: bool((pointers.read() == expected)[needed].all()), status, patience)


def _collect(pointers: Any, thread: Any, status: Any, patience: float, COUNT: int, TOTAL: int, KIND: Any) -> Any:
    found: list[Any] = []

    def complete() -> bool:
        found.clear()
        for i in range(COUNT):
            at = thread + i * len(thread)
            found.append((pointers + i * len(thread)).read(np.asarray(at) < TOTAL))
        words = np.ascontiguousarray(np.stack(found)).view(np.int32)
        return not (words == sync.MISSING.value).any()

    _until(complete, status, patience)
    return tuple(found)


def _until(ready: Any, status: Any, patience: float) -> None:
    limit = time.monotonic() + patience
    while not ready() and not status.array[0]:
        if time.monotonic() > limit:
            status.array[0] = STALLED
        time.sleep(0)


def _put(memory: Any, place: Any, words: Any) -> None:
    memory.array[np.asarray(place)] = words


HELPERS = {"wait": _wait, "collect": _collect, "fence": lambda: None, "put": _put}


def source(layer: Layer) -> Source:
    """Return what a layer is packed from."""
    entries = entries_of(layer.r, len(GATES[layer.cell.kind]))
    return Source("layer", layer.cell, entries, layer.weights.bias, layer.weights.peepholes)


HIDDEN, INPUTS, STEPS = 40, 6, 5


def sparse_model(
    kind: str, direction: str, outputs: tuple[str, ...], values: Any = np.float16
) -> tuple[bytes, Any, Weights]:
    """Return a model of one sparse layer with lengths and initial states, its cell, and its weights."""
    rng, gates, d = np.random.default_rng(0), len(GATES[kind]), 2 if direction == "bidirectional" else 1
    shapes = {"W": (d, gates * HIDDEN, INPUTS), "R": (d, gates * HIDDEN, HIDDEN), "B": (d, 2 * gates * HIDDEN)}
    arrays = {name: rng.uniform(-0.4, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    inputs = ["X", "W", "R", "B", "lengths", "h0", *(["c0"] if kind == "LSTM" else [])]
    node = helper.make_node(kind, inputs, list(outputs), hidden_size=HIDDEN, direction=direction, name="layer")
    state, F = [d, "B", HIDDEN], TensorProto.FLOAT
    kinds = {"X": (F, ["T", "B", INPUTS]), "lengths": (TensorProto.INT32, ["B"]), "h0": (F, state), "c0": (F, state)}
    made = {"Y": ["T", d, "B", HIDDEN], "Y_h": state, "Y_c": state}
    graph = helper.make_graph(
        [node], "one",
        [helper.make_tensor_value_info(name, *kinds[name]) for name in inputs if name in kinds],
        [helper.make_tensor_value_info(name, F, made[name]) for name in outputs if name],
        [helper.make_tensor(name, F, one.shape, one.tobytes(), raw=True) for name, one in arrays.items()],
    )  # fmt: skip
    model = ir.serde.deserialize_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    )
    (layer,) = find_layers(model).layers
    kept = np.stack(masks(list(layer.weights.r), gates, parse_pattern("balanced:16"), 0.3, "gate"))
    coded = encode(layer.weights.r, kept, values)
    weights = Weights(arrays["W"], decode(coded), arrays["B"])
    emit(model, {layer: {R: coded}})
    return ir.serde.serialize_model(model).SerializeToString(), layer.cell, weights


def fed(kind: str, directions: int, batch: int) -> dict[str, Any]:
    """Return inputs of such a model."""
    rng = np.random.default_rng(batch)
    state = (directions, batch, HIDDEN)
    feeds = {"X": rng.normal(0, 1, (STEPS, batch, INPUTS)), "h0": rng.normal(0, 0.5, state)}
    feeds |= {"c0": rng.normal(0, 0.5, state)} if kind == "LSTM" else {}
    lengths = rng.integers(0, STEPS + 1, batch).astype(np.int32)
    return {name: one.astype(np.float32) for name, one in feeds.items()} | {"lengths": lengths}


class Simulated:
    """A GPU of three multiprocessors whose programs run as Python."""

    facts = Gpu(90, 3, 232_448)

    def __init__(self) -> None:
        self.launches: list[tuple[int, int]] = []

    def load(self, shape: Any) -> None:
        """Need no code."""

    def run(self, held: Any, call: Any) -> None:
        """Run a launch at once."""
        self.launches.append((held.shape.directions, held.shape.lanes))
        simulate(SimpleNamespace(shape=held.shape), None, call)
