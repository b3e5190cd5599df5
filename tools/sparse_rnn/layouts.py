"""Rewrite recurrent nodes of layout 1, batch first, which onnxruntime refuses, to layout 0 between Transposes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from sartor.tools.sparse_rnn.find import Layer
from sartor.tools.sparse_rnn.names import free_name, taken_names

SWAPPED = (1, 0, 2)
INPUTS = {0: SWAPPED, 5: SWAPPED, 6: SWAPPED}
"""How X, initial_h and initial_c are transposed on the way in, by their positions."""

OUTPUTS = ((2, 0, 1, 3), SWAPPED, SWAPPED)
"""How Y, Y_h and Y_c are transposed on the way out."""


def put_steps_first(model: ir.Model, layers: Iterable[Layer]) -> None:
    """Rewrite the nodes of batch-first layers to layout 0, in place; values keep their names, types and shapes."""
    batched = [layer for layer in layers if layer.batch_first]
    taken = taken_names(model)
    for layer in batched:
        _transpose_inputs(layer, taken)
        _transpose_outputs(layer, taken)
        del layer.node.attributes["layout"]


def _transpose_inputs(layer: Layer, taken: set[str]) -> None:
    node = layer.node
    for place, order in INPUTS.items():
        source = node.inputs[place] if place < len(node.inputs) else None
        if source is None:
            continue
        value = ir.Value(
            name=free_name(f"{source.name}_steps_first", taken), type=source.type, shape=_permuted(source.shape, order)
        )
        _graph_of(node).insert_before(node, _transpose(layer, source, value, order))
        node.replace_input_with(place, value)


def _transpose_outputs(layer: Layer, taken: set[str]) -> None:
    node = layer.node
    for inner, order in zip(node.outputs, OUTPUTS, strict=False):
        if not inner.name:
            continue
        outer = ir.Value(name=inner.name, type=inner.type, shape=inner.shape)
        ir.convenience.replace_all_uses_with(inner, outer, replace_graph_outputs=True)
        inner.name = free_name(f"{inner.name}_steps_first", taken)
        inner.shape = _permuted(outer.shape, [order.index(axis) for axis in range(len(order))])
        _graph_of(node).insert_after(node, _transpose(layer, inner, outer, order))


def _transpose(layer: Layer, source: ir.Value, target: ir.Value, order: Sequence[int]) -> ir.Node:
    attribute = ir.AttrInt64s("perm", order)
    return ir.Node("", "Transpose", [source], [attribute], outputs=[target], name=f"{layer.name}_{target.name}")


def _graph_of(node: ir.Node) -> ir.Graph:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    return graph


def _permuted(shape: ir.Shape | None, order: Sequence[int]) -> ir.Shape | None:
    return None if shape is None else ir.Shape([shape[axis] for axis in order])
