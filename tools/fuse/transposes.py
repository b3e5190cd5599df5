"""Transposes in front of matrix products: cut in two, so that the half that moves rows can be fused.

Exporters turn a key of shape (batch, length, heads, width) in one step into what the product takes, (batch, heads,
width, length). That moves the last axis, and a kernel that does it writes or reads memory by the stride. As two steps,
(batch, heads, length, width) and a swap of the last two axes, the first half stays in whole rows, and onnxruntime runs
the second inside the product. A half that no group took is put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True, eq=False)
class Halves:
    """A transpose that was cut: it now moves rows, and `swap` the last two axes."""

    rows: ir.Node
    swap: ir.Node


def split_transposes(model: ir.Model) -> tuple[Halves, ...]:
    """Cut every transpose that only matrix products read and that moves the last axis among others, in place."""
    nodes = [node for graph in model.graphs() for node in graph if node.op_type == "Transpose" and node.domain == ""]
    return tuple(_split(node) for node in nodes if _is_worth_cutting(node))


def rejoin_transposes(halves: Sequence[Halves]) -> None:
    """Undo the cut where both halves are still in the graph."""
    for half in halves:
        if half.rows.graph is None or half.swap.graph is None or half.swap.inputs[0] is not half.rows.outputs[0]:
            continue
        half.rows.attributes["perm"] = ir.AttrInt64s("perm", _swapped(_order(half.rows)))
        half.rows.outputs[0].shape = half.swap.outputs[0].shape
        name, graph = half.swap.outputs[0].name, half.swap.graph
        half.swap.outputs[0].replace_all_uses_with(half.rows.outputs[0])
        graph.remove(half.swap, safe=True)
        half.rows.outputs[0].name = name


def is_product_swap(node: ir.Node) -> bool:
    """Tell whether a node swaps the last two axes for matrix products alone."""
    order = _order(node) if node.op_type == "Transpose" else []
    return len(order) > 1 and order == _swapped(range(len(order))) and _feeds_products_only(node)


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


def _swapped(order: Sequence[int]) -> list[int]:
    return [*order[:-2], order[-1], order[-2]]


def _split(node: ir.Node) -> Halves:
    out = node.outputs[0]
    rank, users = len(_order(node)), [(use.node, use.idx) for use in out.uses()]
    swapped = ir.Value(name=f"{out.name}_swapped", type=out.type, shape=out.shape)
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
    out.shape = None if out.shape is None else ir.Shape(_swapped_dims(out.shape))
    return Halves(node, swap)


def _swapped_dims(shape: ir.Shape) -> list[int | ir.SymbolicDim]:
    dims = list(shape.dims)
    return [*dims[:-2], dims[-1], dims[-2]]
