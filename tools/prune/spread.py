"""Spread atoms over a graph: which channels of a model can be removed, and what goes with them.

Weights start with fresh atoms on all axes. The axes of graph inputs carry none: nothing of them can be removed. A rule
for each operator says which atoms its outputs carry and which it merges or freezes. What has no rule, or a subgraph, is
a barrier: it keeps all that it reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from sartor.share.lowering.hosts import nested
from sartor.tools.prune.atoms import Labels
from sartor.tools.prune.channels import Channels, Layer
from sartor.tools.prune.rules import RULES, Node, UntrackedError
from sartor.tools.prune.rules.registry import LARGEST_CONSTANT


def spread(graph: ir.Graph, opset: int, factors: Mapping[str, int]) -> Channels:
    """Visit the nodes in order; `factors` tells of the reshapes that divide an axis which factor keeps atoms."""
    found = Channels()
    for value in graph.initializers.values():
        if value.const_value is not None:
            _add_constant(found, value, value.const_value)
    for node in graph:
        _visit(Node(node, opset, found, factors))
    for value in graph.outputs:
        _freeze(found, value, f"output {value.name}")
    return found


def removable(found: Channels) -> Labels:
    """Return the atoms that are not frozen and that some layer makes and every use of which some layer reads."""
    roots = found.atoms.roots()
    made = np.zeros(len(roots), bool)
    read = made.copy()
    for layer in found.layers:
        made[roots[layer.outputs]] = True
        read[roots[layer.inputs]] = True
    return np.flatnonzero((made & read)[roots] & ~found.atoms.frozen())


def kept_layers(found: Channels) -> tuple[tuple[str, str], ...]:
    """Name the layers all of whose outputs stay in any case, with the first reason."""
    free = set(removable(found).tolist())
    held = (layer for layer in found.layers if not free & set(layer.outputs.tolist()))
    return tuple((name_of(layer), next(iter(found.atoms.reasons(layer.outputs)), "nothing reads it")) for layer in held)


def name_of(layer: Layer) -> str:
    """Return what people call a layer."""
    return str(layer.node.name or layer.node.outputs[0].name)


def _visit(view: Node) -> None:
    node, found = view.node, view.found
    if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
        content = ir.convenience.get_const_tensor(node.outputs[0])
        if content is not None:
            _add_constant(found, node.outputs[0], content)
        return
    spread_rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if spread_rule is None:
        _barrier(view, "no rule")
    else:
        try:
            spread_rule(view)
        except UntrackedError as error:
            _barrier(view, str(error))
    if node.inputs and all(value is None or value in found.derived for value in node.inputs):
        found.derived.update(node.outputs)


def _add_constant(found: Channels, value: ir.Value, content: ir.TensorProtocol) -> None:
    found.derived.add(value)
    found.axes[value] = tuple(found.atoms.fresh(int(size)) for size in content.shape.numpy())
    if content.dtype.is_integer() and content.size <= LARGEST_CONSTANT:
        found.constants[value] = content.numpy()


def _barrier(view: Node, reason: str) -> None:
    """Keep all that a node reads, inside its subgraphs too; its outputs carry nothing."""
    for value in _read(view.node):
        _freeze(view.found, value, f"{view.name}: {reason}")
    for value in view.node.outputs:
        view.found.axes.pop(value, None)


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node and its subgraphs read."""
    yield from (value for value in node.inputs if value is not None)
    for graph in nested(node):
        for inner in graph:
            yield from _read(inner)
        yield from graph.outputs


def _freeze(found: Channels, value: ir.Value, reason: str) -> None:
    for labels in found.axes.get(value, ()):
        if labels is not None:
            found.atoms.freeze(labels, reason)
