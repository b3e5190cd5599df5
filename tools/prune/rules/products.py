"""Layers: convolutions and matrix products, whose weights make and mix channels."""

from __future__ import annotations

import math

import onnx_ir as ir

from sartor.tools.prune.atoms import Labels
from sartor.tools.prune.channels import Axis, Kept, Rewrite
from sartor.tools.prune.rules.elementwise import meet
from sartor.tools.prune.rules.registry import Node, UntrackedError, rule, sizes_of

INPUT = "its data keeps all channels"


@rule("Conv")
def conv(node: Node) -> None:
    """Weight (out, in / groups, *kernel)."""
    data, groups = node.axes(0)[1], node.attr("group", 1)
    outputs, inputs = node.labels(1, 0), node.labels(1, 1)
    if groups > 1 and len(inputs) == 1:
        _depthwise(node, data, outputs, groups)
    else:
        _connect(node, data, inputs, groups)
        node.tie(outputs, groups)
        node.layer(1, data, outputs, 1, 0, groups)
    _finish(node, outputs, (inputs, outputs))


@rule("ConvTranspose")
def conv_transpose(node: Node) -> None:
    """Weight (in, out / groups, *kernel)."""
    data, groups = node.axes(0)[1], node.attr("group", 1)
    inputs, made = node.labels(1, 0), node.labels(1, 1)
    node.merge(data, inputs, INPUT)
    outputs = made
    if groups > 1 and groups == len(inputs):
        # Group j reads channel j only; its outputs go with it.
        node.freeze((made,), "a weight is shared among its groups")
        outputs = inputs.repeat(len(made))
        node.edit((inputs,), _set_groups(inputs))
    elif groups > 1:
        node.tie(inputs, groups)
        outputs = node.found.atoms.fresh(groups * len(made))
        node.found.atoms.merge(made[None], outputs.reshape(groups, -1))
    if outputs is made or groups != len(inputs):
        node.layer(1, data, outputs, 0, 1, groups)
    _finish(node, outputs, (inputs, made))


def _depthwise(node: Node, data: Axis, outputs: Labels, groups: int) -> None:
    """Group j reads channel j only and makes a block of outputs, which goes with it."""
    if data is None:
        node.freeze((outputs,), INPUT)
        return
    node.found.atoms.merge(data[:, None], outputs.reshape(groups, -1))
    node.edit((data,), _set_groups(data))


def _connect(node: Node, data: Axis, inputs: Labels, groups: int) -> None:
    """Tie the groups of the data, so that an equal number stays in each, to the weight that all of them have."""
    if data is None:
        node.freeze((inputs,), INPUT)
        return
    node.found.atoms.merge(inputs[None], data.reshape(groups, -1))


def _set_groups(channels: Labels) -> Rewrite:
    def apply(node: ir.Node, kept: Kept) -> None:
        node.attributes["group"] = ir.AttrInt64("group", int(kept(channels).sum()))

    return apply


def _finish(node: Node, outputs: Labels, factors: tuple[Labels, Labels]) -> None:
    """Follow the bias, count the multiplications, and hand on the outputs."""
    if node.has(2):
        node.merge(outputs, node.labels(2, 0), INPUT)
    data = node.axes(0)
    node.freeze(data[2:], "a convolution runs along it")
    node.freeze(node.axes(1)[2:], "a kernel has it")
    kernel = math.prod(size or 1 for size in node.sizes(1)[2:])
    # A transposed convolution multiplies at every position of its data, the others at every one of their result.
    result = node.value(0) if node.node.op_type == "ConvTranspose" else node.node.outputs[0]
    positions = math.prod(size or 1 for size in sizes_of(result)[2:]) if result.shape is not None else 1
    node.multiplies([(one, len(one)) for one in factors], kernel * positions)
    node.put((data[0], outputs, *(None,) * (len(data) - 2)))


@rule("Gemm")
def gemm(node: Node) -> None:
    """alpha * A' B' + beta * C, either transposed."""
    turned, flipped = node.attr("transA", 0), node.attr("transB", 0)
    left, right = (list(zip(node.axes(i), node.sizes(i), strict=True)) for i in (0, 1))
    rows, inner = left[::-1] if turned else left
    other, columns = right[::-1] if flipped else right
    _contract(node, inner[0], other[0], (flipped, 1 - flipped))
    node.multiplies((rows, inner if inner[1] is not None else other, columns))
    result = ((rows[0], columns[0]), (rows[1], columns[1]))
    node.put(meet(node, [result, (node.axes(2), node.sizes(2))]) if node.has(2) else result[0])


@rule("MatMul")
def matmul(node: Node) -> None:
    """Products of the last two axes; those before are laid over each other."""
    left, right = node.axes(0), node.axes(1)
    if min(len(left), len(right)) < 2:
        raise UntrackedError(f"{node.name} multiplies a vector")
    sizes, widths = node.sizes(0), node.sizes(1)
    batch = meet(node, [(left[:-2], sizes[:-2]), (right[:-2], widths[:-2])]) if max(len(left), len(right)) > 2 else ()
    _contract(node, left[-1], right[-2], (len(right) - 2, len(right) - 1))
    many = sizes[:-2] if len(left) >= len(right) else widths[:-2]
    inner = (left[-1], sizes[-1]) if sizes[-1] is not None else (right[-2], widths[-2])
    node.multiplies([*zip(batch, many, strict=True), (left[-2], sizes[-2]), inner, (right[-1], widths[-1])])
    node.put((*batch, left[-2], right[-1]))


def _contract(node: Node, inner: Axis, other: Axis, places: tuple[int, int]) -> None:
    """Merge the axes that are summed over; between two activations all of them stay."""
    if node.is_weight(1):
        node.merge(inner, other, INPUT)
        outputs = node.axes(1)[places[1]]
        if outputs is not None:
            node.layer(1, inner, outputs, *places)
    elif node.is_weight(0):
        node.merge(inner, other, INPUT)
        rank = len(node.axes(0))
        outputs = node.axes(0)[rank - 2]
        if outputs is not None:
            node.layer(0, other, outputs, rank - 1, rank - 2)
    else:
        node.freeze((inner, other), "two activations are multiplied")
