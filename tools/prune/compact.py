"""Remove atoms from a model: every constant loses their slices, and edits rewrite what counts them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sartor.share.shapes import infer_shapes
from sartor.tools.prune.atoms import Labels
from sartor.tools.prune.channels import Channels, Kept


def compact(model: ir.Model, found: Channels, removed: Labels) -> ir.Model:
    """Return a copy of a model without some atoms of its graph, and without all that live and die with them.

    Raises AssertionError where one of them is frozen.
    """
    kept = kept_of(found, removed)
    copy = model.clone()
    same = dict(zip(model.graph, copy.graph, strict=True))
    for value in found.derived & found.axes.keys():
        _cut(value, found, kept, copy, same)
    for edit in found.edits:
        if not all(kept(labels).all() for labels in edit.labels):
            edit.apply(same[edit.node], kept)
    for value in model.graph.initializers.values():
        made = copy.graph.initializers[str(value.name)]
        if value.uses() and not made.uses() and not made.is_graph_output():
            del copy.graph.initializers[str(value.name)]
    declared = set(copy.graph.outputs)
    for node in copy.graph:
        for out in node.outputs:
            out.shape = out.shape if out in declared else None
    infer_shapes(copy)
    return copy


def kept_of(found: Channels, removed: Labels) -> Kept:
    """Return the function that tells whether atoms stay when others go."""
    roots, frozen = found.atoms.roots(), found.atoms.frozen()
    gone = np.zeros(found.atoms.count, bool)
    gone[roots[removed]] = True
    gone = gone[roots]
    assert not (gone & frozen).any(), "what must stay is removed"
    return lambda labels: ~gone[labels]


def _cut(value: ir.Value, found: Channels, kept: Kept, copy: ir.Model, same: dict[ir.Node, ir.Node]) -> None:
    stays = [None if labels is None or kept(labels).all() else kept(labels) for labels in found.axes[value]]
    if all(stay is None for stay in stays):
        return
    node = value.producer()
    if node is None:
        target = copy.graph.initializers[str(value.name)]
        assert target.const_value is not None
        target.const_value = _sliced(target.const_value, stays, str(value.name))
        target.shape = ir.Shape(list(target.const_value.shape.numpy()))
    elif node.op_type == "Constant":
        target = same[node].outputs[0]
        content = ir.convenience.get_const_tensor(target)
        assert content is not None
        made = _sliced(content, stays, str(value.name))
        same[node].attributes.clear()
        same[node].attributes["value"] = ir.AttrTensor("value", made)


def _sliced(tensor: ir.TensorProtocol, stays: list[NDArray[np.bool_] | None], name: str) -> ir.TensorProtocol:
    array = tensor.numpy()
    for axis, stay in enumerate(stays):
        if stay is not None:
            array = np.compress(stay, array, axis)
    return ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name, dtype=tensor.dtype)
