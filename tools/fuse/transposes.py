"""Transposes in front of matrix products: cut in two, so that the half that moves rows can be fused.

Exporters turn a key of shape (batch, length, heads, width) in one step into what the product takes, (batch, heads,
width, length). That moves the last axis, and a kernel that does it writes or reads memory by the stride. As two steps,
(batch, heads, length, width) and a swap of the last two axes, the first half stays in whole rows, and onnxruntime runs
the second inside the product. A half that no group took is put back.

They also swap the last two axes on a view with three axes, between two reshapes whose targets are computed from the
tensor's shape; where inference knows that the second reshape undoes the first, the swap alone stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import onnx_ir as ir

from sartor.tools.fuse.emit import remove_dead

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Halves:
    """A transpose that was cut: it now moves rows, and `swap` the last two axes."""

    rows: ir.Node
    swap: ir.Node


def split_transposes(model: ir.Model) -> tuple[Halves, ...]:
    """Cut every transpose that only matrix products read and that moves the last axis among others, in place."""
    nodes = [node for graph in model.graphs() for node in graph if node.op_type == "Transpose" and node.domain == ""]
    return tuple(_split(node) for node in nodes if _is_worth_cutting(node))


def fold_swaps(model: ir.Model) -> int:
    """Replace reshape, swap of the last two axes and reshape back by the swap alone, in place; shapes are inferred.

    Returns how many swaps were folded.
    """
    folded = 0
    nodes = [node for graph in model.graphs() for node in graph if node.op_type == "Transpose" and node.domain == ""]
    for node in nodes:
        before, after = node.inputs[0].producer() if node.inputs[0] else None, _only_user(node)
        if _order(node) == [0, 2, 1] and _is_reshape(before) and _is_reshape(after):
            assert before is not None
            assert after is not None
            folded += _fold(before, node, after)
    return folded


def _only_user(node: ir.Node) -> ir.Node | None:
    uses = tuple(node.outputs[0].uses())
    return uses[0].node if len(uses) == 1 and not node.outputs[0].is_graph_output() else None


def _is_reshape(node: ir.Node | None) -> bool:
    return node is not None and node.op_type == "Reshape" and node.domain == ""


def _fold(before: ir.Node, swap: ir.Node, after: ir.Node) -> bool:
    """Put one transpose in place of the three nodes, if that is what they are."""
    source, flat, result = before.inputs[0], _dims(before.outputs[0]), _dims(after.outputs[0])
    dims = [] if source is None else _dims(source)
    if len(dims) < 3 or len(flat) != 3 or flat[1:] != dims[-2:] or result != _swapped(dims):
        return False
    targets = [value for node in (before, after) for value in node.inputs if value is not None]
    made = _transpose(source, _swapped(range(len(dims))), str(swap.name), after.outputs[0])
    _put(made, after)
    remove_dead([swap.outputs[0], before.outputs[0], *targets])
    return True


def _is_scaled(node: ir.Node) -> bool:
    """Tell whether the second operand is a constant of one element."""
    factor = node.inputs[1]
    known = None if factor is None else ir.convenience.get_const_tensor(factor)
    return known is not None and known.size == 1 and len(known.shape) < 2


def _transpose(source: ir.Value | None, order: list[int], name: str, like: ir.Value) -> ir.Node:
    """Make a transpose whose value takes the name, type and shape of another."""
    out = ir.Value(name=like.name, type=like.type, shape=like.shape)
    return ir.Node("", "Transpose", [source], [ir.AttrInt64s("perm", order)], outputs=[out], name=name)


def _put(made: ir.Node, old: ir.Node) -> None:
    """Put a node of one value in place of another."""
    assert old.graph is not None
    ir.convenience.replace_nodes_and_values(old.graph, old, [old], [made], [old.outputs[0]], [made.outputs[0]])


def _dims(value: ir.Value) -> list[str]:
    """Spell a shape; empty where the rank or a size is not known."""
    sizes = [] if value.shape is None else list(value.shape)
    known = all(isinstance(size, int) or size.value is not None for size in sizes)
    return [str(size if isinstance(size, int) else size.value) for size in sizes] if known else []


def rejoin_transposes(halves: Sequence[Halves]) -> tuple[Halves, ...]:
    """Undo the cut where both halves are still in the graph; return the others."""
    whole = [half for half in halves if _is_whole(half)]
    for half in whole:
        half.rows.attributes["perm"] = ir.AttrInt64s("perm", _swapped(_order(half.rows)))
        half.rows.outputs[0].shape = half.swap.outputs[0].shape
        name, graph = half.swap.outputs[0].name, half.swap.graph
        assert graph is not None
        half.swap.outputs[0].replace_all_uses_with(half.rows.outputs[0])
        graph.remove(half.swap, safe=True)
        half.rows.outputs[0].name = name
    return tuple(half for half in halves if half not in whole)


def _is_whole(half: Halves) -> bool:
    here = half.rows.graph is not None and half.swap.graph is not None
    return here and half.swap.inputs[0] is half.rows.outputs[0]


def runs_in_product(node: ir.Node) -> bool:
    """Tell whether onnxruntime runs a node inside the matrix products behind it.

    That is a swap of the last two axes, also with a number between it and the products, and this number.
    """
    if _swaps(node):
        scale = _only_user(node)
        return _feeds_products_only(node) or (scale is not None and _is_product_scale(scale))
    before = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return before is not None and _swaps(before) and _is_product_scale(node)


def _swaps(node: ir.Node) -> bool:
    order = _order(node) if node.op_type == "Transpose" else []
    return len(order) > 1 and order == _swapped(range(len(order)))


def _is_product_scale(node: ir.Node) -> bool:
    """Tell whether a node multiplies with a number for matrix products alone, which take it as their factor."""
    return node.op_type in ("Mul", "Div") and _is_scaled(node) and _feeds_products_only(node)


def moves_last_axis(node: ir.Node) -> bool:
    """Tell whether a node is a transpose after which another axis is the last."""
    order = _order(node) if node.op_type == "Transpose" else []
    return bool(order) and order[-1] != len(order) - 1


def _feeds_products_only(node: ir.Node) -> bool:
    out = node.outputs[0]
    users = {use.node.op_type for use in out.uses()}
    return users == {"MatMul"} and not out.is_graph_output()


def _is_worth_cutting(node: ir.Node) -> bool:
    order = _order(node)
    if len(order) < 3 or not _feeds_products_only(node):
        return False
    return order[-2] == len(order) - 1 and order[:-2] != list(range(len(order) - 2))


def _order(node: ir.Node) -> list[int]:
    attribute = node.attributes.get("perm")
    return [] if attribute is None else [int(axis) for axis in attribute.as_ints()]


def _swapped(order: Sequence[T]) -> list[T]:
    return [*order[:-2], order[-1], order[-2]]


def _split(node: ir.Node) -> Halves:
    out = node.outputs[0]
    rank, users = len(_order(node)), [(use.node, use.idx) for use in out.uses()]
    swapped = ir.Value(name=out.name, type=out.type, shape=out.shape)
    out.name = f"{out.name}_rows"
    swap = ir.Node(
        "",
        "Transpose",
        [out],
        [ir.AttrInt64s("perm", _swapped(range(rank)))],
        outputs=[swapped],
        name=f"{node.name}_swap",
    )
    assert node.graph is not None
    node.graph.insert_after(node, swap)
    for user, index in users:
        user.replace_input_with(index, swapped)
    node.attributes["perm"] = ir.AttrInt64s("perm", _swapped(_order(node)))
    out.shape = None if out.shape is None else ir.Shape(_swapped(out.shape.dims))
    return Halves(node, swap)
