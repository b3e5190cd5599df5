"""Give each operator parameters of its own where exporters let many share one that says nothing.

A normalisation that is exported as simpler operators has its scale of ones from one constant for the whole model, and
all layers around would have to lose the same channels.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def unshare(graph: ir.Graph) -> None:
    """Copy constants of rank 1 and equal elements for all their uses but the first."""
    for value in list(graph.initializers.values()):
        uses = list(value.uses())
        if len(uses) > 1 and _says_nothing(value):
            for number, (node, index) in enumerate(uses[1:], 1):
                node.replace_input_with(index, _copied(graph, value, number))


def _says_nothing(value: ir.Value) -> bool:
    held = value.const_value
    if held is None or value.is_graph_output() or not held.dtype.is_floating_point() or len(held.shape) != 1:
        return False
    content = held.numpy()
    return len(content) > 1 and bool(np.all(content == content[0]))


def _copied(graph: ir.Graph, value: ir.Value, number: int) -> ir.Value:
    """Add an initialiser of the same content."""
    name = f"{value.name}_{number}"
    while name in graph.initializers:
        name += "_"
    copy = ir.Value(name=name, type=value.type, shape=value.shape, const_value=value.const_value)
    graph.register_initializer(copy)
    return copy
