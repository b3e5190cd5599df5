"""The ONNX model of stacked recurrent layers, with the inputs and outputs of torch's modules for packed sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sartor.tools.sparse_rnn.oracle import Kind, Weights

OPSET, IR_VERSION = 17, 10


@dataclass(frozen=True)
class Stack:
    """Layers on top of each other, by their weights in ONNX's order; `prefix` is what their names begin with."""

    kind: Kind
    prefix: str
    layers: tuple[Weights, ...]


class _Builder:
    """Collects the nodes and initialisers of a graph."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.initialisers: list[ir.Value] = []

    def add(self, operator: str, inputs: Sequence[ir.Value | None], outputs: Sequence[str], **attributes: Any) -> Any:
        made = [ir.convenience.convert_attribute(name, value) for name, value in attributes.items()]
        values = [ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT)) for name in outputs]
        self.nodes.append(ir.Node("", operator, inputs, made, outputs=values, name=outputs[0]))
        return values

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self.initialisers.append(value)
        return value


def model_of(stack: Stack) -> ir.Model:
    """Make the model: X [T, B, I], sequence_lens [B] and states [L D, B, H] to Y [T, B, D H] and states."""
    builder = _Builder()
    directions, _, hidden = stack.layers[0].r.shape
    states = ["h", "c"] if stack.kind == "LSTM" else ["h"]
    count = len(stack.layers) * directions
    x = _value("X", ir.DataType.FLOAT, ["T", "B", stack.layers[0].w.shape[2]])
    lengths = _value("sequence_lens", ir.DataType.INT32, ["B"])
    initial = [_value(f"initial_{one}", ir.DataType.FLOAT, [count, "B", hidden]) for one in states]
    parts = [_split(builder, value, len(stack.layers), directions) for value in initial]
    y, last = x, []
    for place, weights in enumerate(stack.layers):
        name = f"{stack.prefix}l{place}"
        y, *ends = _layer(builder, stack.kind, name, weights, y, lengths, [part[place] for part in parts])
        last.append(ends)
    joined = [
        builder.add("Concat", ends, [f"Y_{one}"], axis=0)[0]
        for one, ends in zip(states, zip(*last, strict=True), strict=True)
    ]
    y.name = "Y"
    for value, shape in ((y, ["T", "B", directions * hidden]), *((one, [count, "B", hidden]) for one in joined)):
        value.shape = ir.Shape(shape)
    graph = ir.Graph(
        [x, lengths, *initial], [y, *joined], nodes=builder.nodes, initializers=builder.initialisers,
        opset_imports={"": OPSET}, name=stack.kind,
    )  # fmt: skip
    return ir.Model(graph, ir_version=IR_VERSION)


def _value(name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def _split(builder: _Builder, state: ir.Value, layers: int, directions: int) -> list[ir.Value]:
    """Give every layer its part [D, B, H] of a state."""
    sizes = builder.constant(f"{state.name}_sizes", np.full(layers, directions, np.int64))
    parts: list[ir.Value] = builder.add("Split", [state, sizes], [f"{state.name}_l{k}" for k in range(layers)], axis=0)
    return parts


def _layer(
    builder: _Builder, kind: Kind, name: str, weights: Weights, x: ir.Value, lengths: ir.Value, states: list[ir.Value]
) -> list[ir.Value]:
    """Add a layer; return its output [T, B, D H] and last states [D, B, H]."""
    directions, _, hidden = weights.r.shape
    w, r = builder.constant(f"{name}.W", weights.w), builder.constant(f"{name}.R", weights.r)
    bias = None if weights.bias is None else builder.constant(f"{name}.B", weights.bias)
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward"}
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    outputs = [f"{name}.{one}" for one in ("Y", "Y_h", "Y_c")[: 1 + len(states)]]
    y, *last = builder.add(kind, [x, w, r, bias, lengths, *states], outputs, **attributes)
    builder.nodes[-1].name = name
    (turned,) = builder.add("Transpose", [y], [f"{name}.turned"], perm=[0, 2, 1, 3])
    shape = builder.constant(f"{name}.shape", np.array([0, 0, directions * hidden], np.int64))
    (joined,) = builder.add("Reshape", [turned, shape], [f"{name}.joined"])
    return [joined, *last]
