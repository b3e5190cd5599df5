"""Remove atoms from a model: every constant loses their slices, and edits rewrite what counts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sartor.tools.prune.atoms import Labels
from sartor.tools.prune.channels import Channels, Kept, Layer


@dataclass(frozen=True)
class Tuned:
    """New content for constants, and biases (outputs,) for layers that had none; whole, before anything is removed."""

    constants: Mapping[ir.Value, NDArray[Any]] = field(default_factory=dict)
    biases: Mapping[Layer, NDArray[Any]] = field(default_factory=dict)


def compact(model: ir.Model, found: Channels, removed: Labels, tuned: Tuned | None = None) -> ir.Model:
    """Return a copy of a model without some atoms of its graph, and without all that live and die with them.

    Shapes of values are left to be inferred. Raises AssertionError where an atom is frozen.
    """
    kept, tuned = kept_of(found, removed), tuned or Tuned()
    copy = model.clone()
    same = dict(zip(model.graph, copy.graph, strict=True))
    for value in found.derived & found.axes.keys():
        _cut(value, found, kept, copy, same, tuned)
    for edit in found.edits:
        if not all(kept(labels).all() for labels in edit.labels):
            edit.apply(same[edit.node], kept)
    for layer, bias in tuned.biases.items():
        _add_bias(same[layer.node], bias[kept(layer.outputs)])
    _drop_unused(model, copy)
    declared = set(copy.graph.outputs)
    for node in copy.graph:
        for out in node.outputs:
            out.shape = out.shape if out in declared else None
    return copy


def _drop_unused(model: ir.Model, copy: ir.Model) -> None:
    """Drop the constants that an edit has replaced."""
    for value in model.graph.initializers.values():
        made = copy.graph.initializers[str(value.name)]
        if value.uses() and not made.uses() and not made.is_graph_output():
            del copy.graph.initializers[str(value.name)]


def _add_bias(node: ir.Node, bias: NDArray[Any]) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    name = f"{node.outputs[0].name}_bias"
    value = ir.Value(name=name, const_value=ir.tensor(bias.astype(np.float32), name=name))
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([len(bias)])
    graph.register_initializer(value)
    node.resize_inputs(3)
    node.replace_input_with(2, value)


def kept_of(found: Channels, removed: Labels) -> Kept:
    """Return the function that tells whether atoms stay when others go."""
    roots, frozen = found.atoms.roots(), found.atoms.frozen()
    gone = np.zeros(found.atoms.count, bool)
    gone[roots[removed]] = True
    gone = gone[roots]
    assert not (gone & frozen).any(), "what must stay is removed"
    return lambda labels: ~gone[labels]


def _cut(
    value: ir.Value, found: Channels, kept: Kept, copy: ir.Model, same: dict[ir.Node, ir.Node], tuned: Tuned
) -> None:
    stays = [None if labels is None or kept(labels).all() else kept(labels) for labels in found.axes[value]]
    if all(stay is None for stay in stays) and value not in tuned.constants:
        return
    node, name = value.producer(), str(value.name)
    if node is None:
        target = copy.graph.initializers[name]
        assert target.const_value is not None
        content = tuned.constants.get(value)
        target.const_value = _sliced(target.const_value.numpy() if content is None else content, stays, target)
        target.shape = ir.Shape(list(target.const_value.shape.numpy()))
    elif node.op_type == "Constant":
        target = same[node].outputs[0]
        held = ir.convenience.get_const_tensor(target)
        assert held is not None
        made = _sliced(held.numpy(), stays, target)
        same[node].attributes.clear()
        same[node].attributes["value"] = ir.AttrTensor("value", made)


def _sliced(array: NDArray[Any], stays: list[NDArray[np.bool_] | None], target: ir.Value) -> ir.TensorProtocol:
    held = ir.convenience.get_const_tensor(target)
    assert held is not None
    for axis, stay in enumerate(stays):
        if stay is not None:
            array = np.compress(stay, array, axis)
    content = np.ascontiguousarray(array.astype(held.dtype.numpy(), copy=False)).reshape(array.shape)
    return ir.Tensor(content, name=str(target.name), dtype=held.dtype)
