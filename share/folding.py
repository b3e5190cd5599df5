"""The content of values that no input of the model has a part in: weights behind Slice, Concat, Transpose, ...."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[Any]

LARGEST_CHAIN = 256
"""Nodes beyond which a chain counts as a part of the model."""

RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}


def constant_of(value: ir.Value, opset: int) -> Array | None:
    """Return the content of a value; None where it depends on an input of a graph, or on chance."""
    held = ir.convenience.get_const_tensor(value)
    if held is not None:
        return None if value.is_graph_input() else np.asarray(held.numpy())
    chain = _chain(value)
    return None if chain is None else _evaluated(value, chain, opset)


def _chain(value: ir.Value) -> list[ir.Node] | None:
    """Return the nodes that a value is computed by, in order; None where a constant is not all they need."""
    ordered: dict[ir.Node, None] = {}
    stack: list[tuple[ir.Node | None, bool]] = [(value.producer(), False)]
    while stack:
        node, done = stack.pop()
        if node is None or node.op_type in RANDOM or len(ordered) > LARGEST_CHAIN:
            return None
        if any(one.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for one in node.attributes.values()):
            return None
        if done:
            ordered[node] = None
        elif node not in ordered:
            stack.append((node, True))
            needed = (one for one in node.inputs if one is not None and _constant(one) is None)
            stack += [(one.producer(), False) for one in needed]
    return list(ordered)


def _constant(value: ir.Value) -> ir.TensorProtocol | None:
    return None if value.is_graph_input() else ir.convenience.get_const_tensor(value)


def _evaluated(value: ir.Value, chain: list[ir.Node], opset: int) -> Array:
    """Run a chain in onnxruntime."""
    made: dict[ir.Value, ir.Value] = {}
    constants: list[ir.Value] = []

    def copy(one: ir.Value | None) -> ir.Value | None:
        if one is None:
            return None
        if one not in made:
            made[one] = ir.Value(name=f"v{len(made)}")
            if (held := _constant(one)) is not None:
                made[one].const_value = ir.Tensor(held.numpy(), dtype=held.dtype, name=made[one].name)
                made[one].type, made[one].shape = ir.TensorType(held.dtype), ir.Shape(held.shape.numpy())
                constants.append(made[one])
        return made[one]

    nodes = [
        ir.Node(
            node.domain, node.op_type, [copy(one) for one in node.inputs], list(node.attributes.values()),
            outputs=[copy(one) or ir.Value() for one in node.outputs],
        )
        for node in chain
    ]  # fmt: skip
    graph = ir.Graph([], [made[value]], nodes=nodes, initializers=constants, opset_imports={"": opset}, name="chain")
    proto = ir.serde.serialize_model(ir.Model(graph, ir_version=10))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {})[0])
